import type { LaneId } from "../message.ts";
import type { Delivery } from "./delivery.ts";
import { firstWindow } from "./window.ts";

/**
 * One subscription's deliveries in memory.
 *
 * - `direct`: what is fanned out goes into the lane.
 * - `behind`: from its first overflow all goes to the journal only, until a refill that began after the last overflow was committed
 *   returns fewer than it asked for.
 */
export interface Lane {
  readonly id: LaneId;
  /** Ready to be sent, in order; `head` is the first that was not taken yet. */
  ready: Delivery[];
  head: number;
  /** All that is in memory: ready, in flight, or waiting for a retry soon. By message id. */
  readonly held: Map<string, Delivery>;
  /**
   * Deliveries whose row says less than what has happened: their outcome is recorded and not journaled yet, or was journaled while a
   * refill was reading. A refill that took them for due would send them twice.
   */
  readonly stale: Set<string>;
  /** Those of `stale` that the journal has by now; they leave when the refill that is under way has ended. */
  readonly fresh: Set<string>;
  inFlight: number;
  window: number;
  isBehind: boolean;
  isRefilling: boolean;
  /** Raised by each overflow: a refill that ends with the number it began with has seen them all. */
  overflows: number;
}

/** One text a lane, for maps. */
export const keyOf = ({ subscriptionId, jobId }: LaneId): string => (jobId === undefined ? subscriptionId : `${subscriptionId} ${jobId}`);

export function createLane(id: LaneId): Lane {
  return {
    id,
    ready: [],
    head: 0,
    held: new Map(),
    stale: new Set(),
    fresh: new Set(),
    inFlight: 0,
    // A job must not look like an attack to a receiver that also gets what happens now.
    window: id.jobId === undefined ? firstWindow : 1,
    isBehind: false,
    isRefilling: false,
    overflows: 0,
  };
}

/** Deliveries that nothing but the window keeps from being sent. */
export const readyCount = (lane: Lane): number => lane.ready.length - lane.head;

/** The next one in order, which the caller then sends. */
export function takeReady(lane: Lane): Delivery | undefined {
  const delivery = lane.ready[lane.head++];
  // The sent part is cut off now and then: shifting the array for each delivery would copy it for each delivery.
  if (lane.head > 256 && lane.head * 2 > lane.ready.length) {
    lane.ready = lane.ready.slice(lane.head);
    lane.head = 0;
  }
  // Its row may have been written, or it canceled, since it became ready.
  return delivery === undefined ? undefined : lane.held.get(delivery.message.id);
}

/** What a lane holds in memory, at most; the rest waits in the journal. */
export const laneCapacity = 10_000;
/** What each lane may hold however full the memory is, so that a small receiver is served beside large ones. */
const laneFloor = 200;
/** What all lanes hold together, in bytes of bodies. */
const mostHeldBytes = 64 * 1024 * 1024;

/** @param heldBytes of all lanes together */
export function canHold(lane: Lane, heldBytes: number, capacity: number): boolean {
  return lane.held.size < laneFloor || (lane.held.size < capacity && heldBytes < mostHeldBytes);
}
