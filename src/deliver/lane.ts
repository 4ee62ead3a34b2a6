import type { LaneId } from "../message.ts";
import type { Delivery } from "./delivery.ts";
import type { Applicant } from "./grants.ts";
import { createOrder, isTurn, type Order } from "./order.ts";
import type { Receiver } from "./receiver.ts";

/**
 * One subscription's deliveries in memory, through one job or none.
 *
 * - `direct`: what is fanned out goes into the lane.
 * - `behind`: from its first overflow all goes to the journal only, until a refill that began after the last overflow was committed
 *   has read to the end. A lane with an order begins so: an earlier process may have left what comes first.
 */
export interface Lane extends Applicant {
  readonly id: LaneId;
  readonly receiver: Receiver;
  /** Ready to be sent, in order; `head` is the first that was not taken yet. */
  ready: Delivery[];
  head: number;
  /** All that is in memory: ready, in flight, or waiting for a retry soon. By message id. */
  readonly held: Map<string, Delivery>;
  /** Those of `held` that are in flight. */
  readonly sending: Set<string>;
  /**
   * Deliveries whose row says less than what has happened: their outcome is recorded and not journaled yet, or was journaled while a
   * refill was reading. A refill that took them for due would send them twice.
   */
  readonly stale: Set<string>;
  /** Those of `stale` that the journal has by now; they leave when the refill that is under way has ended. */
  readonly fresh: Set<string>;
  /** Cancellations that came while a page was being read, which may have been read before them: whom each of them means. */
  canceled: ((delivery: Delivery) => boolean)[];
  isBehind: boolean;
  isRefilling: boolean;
  /** Raised by each overflow: a refill that ends with the number it began with has seen them all. */
  overflows: number;
  /**
   * How far it has read the journal, as `placeOfMessage` has it. Moved on by `Refiller`; another object each time it begins
   * anew, which whoever gives something back sees to. Without it each refill would
   * come again past all that was sent, and that an old transaction keeps from being vacuumed.
   */
  reading: {
    after: string;
    /** The first place of what overflowed while a page is being read; undefined where none did. Written by `Lanes`, taken by `Refiller`. */
    least?: string | undefined;
  };
  /** A refill that found nothing to take: the next one begins no earlier, by the monotonic clock. */
  refillAtMs: number;
  /** Which of them wait for an earlier one; undefined where none does. */
  order: Order | undefined;
}

export function createLane(id: LaneId, receiver: Receiver, order: "none" | "record" | "all"): Lane {
  return {
    id,
    receiver,
    line: undefined,
    ready: [],
    head: 0,
    held: new Map(),
    sending: new Set(),
    stale: new Set(),
    fresh: new Set(),
    canceled: [],
    isBehind: order !== "none",
    isRefilling: false,
    overflows: order === "none" ? 0 : 1,
    reading: { after: "" },
    refillAtMs: 0,
    order: order === "none" ? undefined : createOrder(order),
  };
}

/** One text a lane, for sets. */
export const keyOf = ({ subscriptionId, jobId }: LaneId): string => (jobId === undefined ? subscriptionId : `${subscriptionId} ${jobId}`);

/** Nothing is held, nothing is under way, and the journal has nothing: it need not be kept. */
export const isIdle = ({ held, stale, sending, isBehind, isRefilling }: Lane): boolean =>
  held.size + stale.size + sending.size === 0 && !isBehind && !isRefilling;

/** Deliveries that nothing but the receiver keeps from being sent. */
export const readyCount = (lane: Lane): number => lane.ready.length - lane.head;

/** Through any lane of its receiver: never twice at once. */
function isSending({ sending, receiver: { lanes } }: Lane, messageId: string): boolean {
  if (lanes.size < 2) return sending.has(messageId);
  for (const lane of lanes.values()) if (lane.sending.has(messageId)) return true;
  return false;
}

/** The next one in order, which the caller then sends; undefined where none is left. */
export function takeReady(lane: Lane): Delivery | undefined {
  while (lane.head < lane.ready.length) {
    const delivery = lane.ready[lane.head++];
    // The sent part is cut off now and then: shifting the array for each delivery would copy it for each delivery.
    if (lane.head > 256 && lane.head * 2 > lane.ready.length) {
      lane.ready = lane.ready.slice(lane.head);
      lane.head = 0;
    }
    if (delivery === undefined) continue;
    // Since it became ready its row may have been written, it may have been canceled, or an earlier one of its order have come.
    const current = lane.held.get(delivery.message.id);
    if (current === undefined || isSending(lane, current.message.id)) continue;
    // It was tried since, or resent: this is an older word of it.
    if (current.attempts !== delivery.attempts || current.round !== delivery.round) continue;
    if (lane.order !== undefined && !isTurn(lane.order, current.message)) continue;
    return current;
  }
  return undefined;
}
