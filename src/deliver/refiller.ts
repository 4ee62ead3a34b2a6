import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { LaneId } from "../message.ts";
import { placeOfMessage } from "../message-id.ts";
import type { Subscription } from "../subscription/registry.ts";
import type { Delivery } from "./delivery.ts";
import { readyCount, type Lane } from "./lane.ts";
import { refillAgainMs, heldMs, type Lanes } from "./lanes.ts";
import { orderKeyOf } from "./order.ts";
import { isStopped, untilOpenMs, type Receiver } from "./receiver.ts";

export interface RefillRequest {
  readonly lane: LaneId;
  readonly order: "none" | "record" | "all";
  /** Without an order: what was read before. */
  readonly after: string;
  readonly limit: number;
  /** `held`: it is in memory; `stale`: its row says less than what has happened to it. */
  readonly whereIs: (messageId: string) => "held" | "stale" | undefined;
}

export interface Refill {
  readonly deliveries: readonly Delivery[];
  /** Without an order: how far it has read; of those before none that was due is missing. */
  readonly readTo?: string;
  /** Whether the journal has no more of them: none that is due, and none that waits for an earlier one. */
  readonly isAll: boolean;
  /** In a lane with an order: when the first of those that hold others back is due. */
  readonly dueInMs?: number | undefined;
}

export interface RefillerOptions {
  readonly refill: (request: RefillRequest) => Promise<Refill>;
  readonly lanes: Lanes;
  readonly subscription: (id: string) => Subscription | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly pump: (lane: Lane) => void;
  /** The receiver may be asked again after so long. */
  readonly wakeIn: (receiver: Receiver, waitMs: number) => void;
  readonly isStopped: () => boolean;
}

/** A lane that is behind reads so many from the journal when fewer than so many are ready. */
const refillCount = 500;
const refillBelow = 250;
/** For the one attempt of an open breaker. */
const probeCount = 8;
const retryMs = 1_000;
/** Lanes of each kind that read at a time: a thousand of them must not have a thousand pages in memory, nor all sessions. */
const mostReading = 4;

/** Lanes that read, and those that wait until one of them has, first come first. */
interface Turns {
  count: number;
  readonly waiting: Set<Lane>;
}

const createTurns = (): Turns => ({ count: 0, waiting: new Set() });

/** Takes from the journal what lanes that are behind have room for. */
export class Refiller {
  readonly #options: RefillerOptions;
  /** Lanes that could read on if the memory were not full. */
  readonly #waitingForRoom = new Set<Lane>();
  /** An order is looked for from the first that is unfinished on, which may take long: that must not hold up the others. */
  readonly #turns = { free: createTurns(), ordered: createTurns() };

  constructor(options: RefillerOptions) {
    this.#options = options;
  }

  /** Lanes that found the memory full try again. */
  retryForRoom(): void {
    const waiting = [...this.#waitingForRoom];
    this.#waitingForRoom.clear();
    for (const lane of waiting) this.#options.pump(lane);
  }

  /** Begins to read where the lane is behind and has little to do. */
  start(lane: Lane, subscription: Subscription): void {
    if (!lane.isBehind || lane.isRefilling || readyCount(lane) >= refillBelow || isStopped(lane.receiver, subscription)) return;
    const { lanes, clock, wakeIn } = this.#options;
    const nowMs = clock.monotonicMs();
    const openInMs = untilOpenMs(lane.receiver, nowMs);
    if (openInMs > 0) return wakeIn(lane.receiver, openInMs);
    if (nowMs < lane.refillAtMs) return;
    const turns = this.#turns[lane.order === undefined ? "free" : "ordered"];
    if (turns.count >= mostReading) turns.waiting.add(lane);
    else if (lanes.takesMore(lane, subscription)) {
      turns.count++;
      void this.#refill(lane).finally(() => this.#nextTurn(turns));
    } else this.#waitingForRoom.add(lane);
  }

  /** Some of those that wait may want nothing any more. */
  #nextTurn(turns: Turns): void {
    turns.count--;
    for (const lane of turns.waiting) {
      if (turns.count >= mostReading) return;
      turns.waiting.delete(lane);
      this.#options.pump(lane);
    }
  }

  async #refill(lane: Lane): Promise<void> {
    const { lanes, clock, log, refill, pump } = this.#options;
    lane.isRefilling = true;
    const { overflows, order, reading } = lane;
    order?.released.clear();
    try {
      const found = await refill({
        lane: lane.id,
        order: order?.kind ?? "none",
        after: reading.after,
        limit: lane.receiver.breaker.kind === "open" ? probeCount : refillCount,
        whereIs: (messageId) => whereIs(lane, messageId),
      });
      const { canceled } = lane;
      endRefill(lane);
      // It was dropped meanwhile, or its order is another one.
      if (lanes.find(lane.id) !== lane || lane.order !== order) return pump(lane);
      const deliveries = found.deliveries.filter((delivery) => !canceled.some((isMeant) => isMeant(delivery)));
      // As it is now: paused meanwhile, it takes nothing.
      const now = this.#options.subscription(lane.id.subscriptionId);
      const taken = now === undefined ? 0 : this.#take(lane, now, deliveries);
      const isTaken = taken === deliveries.length;
      const last = deliveries[taken - 1];
      if (isTaken) reading.after = found.readTo ?? reading.after;
      else if (last !== undefined) reading.after = placeOfMessage(last.message.id);
      goBackToLeast(reading);
      const hasMore = lane.overflows !== overflows || lane.reading !== reading;
      if (found.isAll && isTaken && !hasMore) lane.isBehind = false;
      else if (found.deliveries.length === 0 && found.dueInMs !== undefined) {
        // All that is there waits for something else. Reading on at once would find the same.
        const waitMs = hasMore ? refillAgainMs : Math.min(heldMs, Math.max(refillAgainMs, found.dueInMs));
        lanes.refillAt(lane, clock.monotonicMs() + waitMs);
      }
      pump(lane);
    } catch (error) {
      endRefill(lane);
      if (!this.#options.isStopped()) log.warn({ err: error, subscription: lane.id.subscriptionId }, "could not read waiting deliveries");
      lanes.refillAt(lane, clock.monotonicMs() + retryMs);
    }
  }

  /** What memory does not take stays in the journal, and the lane behind. @returns how many it took */
  #take(lane: Lane, subscription: Subscription, found: readonly Delivery[]): number {
    const { lanes } = this.#options;
    const { order } = lane;
    let taken = 0;
    for (const delivery of found) {
      if (order?.released.has(orderKeyOf(order.kind, delivery.message.key)) === true) continue;
      if (!lanes.takesMore(lane, subscription)) break;
      lanes.hold(lane, delivery);
      taken++;
    }
    return taken;
  }
}

export function whereIs(lane: Lane, messageId: string): "held" | "stale" | undefined {
  if (lane.held.has(messageId)) return "held";
  return lane.stale.has(messageId) ? "stale" : undefined;
}

/** What overflowed while a page was read may stand before the page's end, and was not in the journal yet. */
function goBackToLeast(reading: Lane["reading"]): void {
  const { least } = reading;
  reading.least = undefined;
  // All places are of one length: this is before it, and behind all that is before it by more than its last digit.
  if (least !== undefined && least <= reading.after) reading.after = least.slice(0, -1);
}

function endRefill(lane: Lane): void {
  lane.isRefilling = false;
  for (const messageId of lane.fresh) lane.stale.delete(messageId);
  lane.fresh.clear();
  lane.canceled = [];
}
