import type { Delivery } from "./delivery.ts";
import type { Lane } from "./lane.ts";
import { computeDrainMs } from "./receiver.ts";

/** What a lane holds in memory, at most; the rest waits in the journal. */
export const laneCapacity = 10_000;
/** What all lanes hold together. */
const mostBytes = 64 * 1024 * 1024;
/** Of it a tenth is kept for lanes that hold little: beside large ones a small receiver is served at once. */
const largeBytes = mostBytes * 0.9;
const smallCount = 16;
/** Above this a lane is worth taking from. */
const worthCount = 200;
/** A delivery without its body, about. */
const ownBytes = 768;
/** A lane must be so much slower than the one that needs the room. */
const slowerBy = 2;
/** Looking for the slowest again so soon finds nothing new. */
const lookEachMs = 100;

/** What all lanes hold, in bytes; a body that several of them hold counts for each. */
export class Memory {
  readonly #capacity: number;
  #count = 0;
  #bytes = 0;
  /** Lanes that are worth taking from. */
  readonly #large = new Set<Lane>();
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(capacity: number | undefined) {
    this.#capacity = capacity ?? laneCapacity;
  }

  /** Deliveries in memory. */
  get count(): number {
    return this.#count;
  }

  /** Lanes that hold much. */
  get large(): Iterable<Lane> {
    return this.#large;
  }

  add(lane: Lane, delivery: Delivery): void {
    this.#count++;
    this.#bytes += delivery.message.body.length + ownBytes;
    if (lane.held.size === worthCount + 1) this.#large.add(lane);
  }

  remove(lane: Lane, delivery: Delivery): void {
    this.#count--;
    this.#bytes -= delivery.message.body.length + ownBytes;
    if (lane.held.size <= worthCount) this.#large.delete(lane);
  }

  hasRoom(lane: Lane): boolean {
    if (lane.held.size >= this.#capacity) return false;
    return this.#bytes < (lane.held.size < smallCount ? mostBytes : largeBytes);
  }

  /** The lane that is to give back what it holds, so that `lane` may hold more; undefined where none is much slower than it. */
  slowest(lane: Lane, monotonicMs: number): Lane | undefined {
    // At its own bound a lane needs no room, it has too much.
    if (lane.held.size >= this.#capacity || monotonicMs - this.#lookedAtMs < lookEachMs) return undefined;
    let slowest: Lane | undefined;
    let slowestMs = slowerBy * Math.max(1, computeDrainMs(lane, monotonicMs));
    for (const other of this.#large) {
      const drainMs = other === lane || other.held.size === other.sending.size ? 0 : computeDrainMs(other, monotonicMs);
      if (drainMs <= slowestMs) continue;
      slowest = other;
      slowestMs = drainMs;
    }
    if (slowest === undefined) this.#lookedAtMs = monotonicMs;
    return slowest;
  }
}
