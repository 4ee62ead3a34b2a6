import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { DeliveryUpdate, LaneId } from "../message.ts";
import { atMost } from "../pause.ts";
import type { Subscription } from "../subscription/registry.ts";
import type { TestSignal } from "../test-signal.ts";
import { canHold, createLane, keyOf, laneCapacity, readyCount, takeReady, type Lane } from "./lane.ts";
import { applyOutcome, cancel, suspend, type Delivery, type Step } from "./delivery.ts";
import type { RetryPolicy } from "./retry.ts";
import type { Sender } from "./send.ts";
import { largestWindow, nextWindow } from "./window.ts";

export interface DispatcherOptions {
  readonly sender: Sender;
  /** Where a subscription stands now; undefined once it was deleted. */
  readonly subscription: (id: string) => Subscription | undefined;
  readonly retry: RetryPolicy;
  /** Takes what happened to deliveries, for the next batch. */
  readonly record: (update: DeliveryUpdate) => void;
  /** Reads deliveries of one lane that are due from the journal, oldest first, but for those in memory. */
  readonly refill: (lane: LaneId, limit: number, isInMemory: (messageId: string) => boolean) => Promise<Refill>;
  /** Whether an attempt may start at all: not while the journal refuses, or another process leads. */
  readonly maySend: () => boolean;
  readonly clock: Clock;
  readonly log: Logger;
  /** Deliveries that a lane holds in memory, at most. @default 10000 */
  readonly laneCapacity?: number;
  readonly random?: () => number;
  readonly signal?: TestSignal | undefined;
}

/** A lane that is behind reads so many from the journal when fewer than so many are ready. */
const refillCount = 1_000;
const refillBelow = 500;
/** A lane that holds more than this is crowded: it has enough to do, and another batch brings it nearer to its overflow. */
const crowdedAbove = 1_000;
/** `room` looks again after so long, and waits at most so long. */
const roomSliceMs = 5;
const mostRoomMs = 1_000;
/** Below this the event loop has time to spare: it is the receivers that are slow, and waiting for them helps nobody. */
const busyUtilization = 0.8;
/** Later retries live in the journal only. */
const heldRetryMs = 60_000;
/** A delivery without a row for this long gets one, so that `settled` moves on past a slow receiver. */
const openMs = 1_000;
const sweepMs = 250;
const refillRetryMs = 1_000;

export interface Refill {
  readonly deliveries: readonly Delivery[];
  /** Whether the journal has no more of them that are due now. */
  readonly isAll: boolean;
}

/** Sends what was journaled, lane by lane. It reads the journal only through `refill`. */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #lanes = new Map<string, Lane>();
  /** In the order in which they came, for the sweep that gives old ones a row. */
  #open: { readonly lane: Lane; readonly messageId: string; readonly sinceMs: number }[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #crowded = new Set<Lane>();
  #sweep: NodeJS.Timeout | undefined;
  #isStopped = false;
  #inFlight = 0;
  #exhaustedCount = 0;
  /** Bodies of all that is held; one that several lanes hold counts for each. Written by `#hold`, `#settle` and `#drop`. */
  #heldBytes = 0;
  /** Something could not be sent since `maySend` said no. */
  #isHeldUp = false;
  #whenIdle: (() => void) | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  start(): void {
    this.#sweep = setInterval(() => this.#sweepOpen(), sweepMs);
    this.#sweep.unref();
  }

  /** Deliveries in memory. */
  get heldCount(): number {
    let count = 0;
    for (const lane of this.#lanes.values()) count += lane.held.size;
    return count;
  }

  /** Lanes that have deliveries in the journal only. */
  get behindCount(): number {
    let count = 0;
    for (const lane of this.#lanes.values()) if (lane.isBehind) count++;
    return count;
  }

  /** Deliveries that were given up since the start. */
  get exhaustedCount(): number {
    return this.#exhaustedCount;
  }

  /** Deliveries of one lane that may have a row although nobody is to take them from the journal. */
  heldBy(id: LaneId): number {
    const lane = this.#lanes.get(keyOf(id));
    return lane === undefined ? 0 : lane.held.size + lane.stale.size;
  }

  /** Takes a delivery whose message is journaled. What its lane cannot hold goes to the journal as `pending`. */
  add(delivery: Delivery): void {
    const lane = this.#lane(delivery);
    if (lane.isBehind || !this.#canHold(lane)) {
      lane.isBehind = true;
      lane.overflows++;
      if (!delivery.hasRow) this.#record(suspend(delivery, this.#options.clock.nowMs()));
      return;
    }
    this.#hold(lane, delivery);
    this.#pump(lane);
  }

  /**
   * Lets a busy process send before it captures more. [M: reading on fills the lanes, and a delivery that overflows costs a row, a
   * read and an update instead of one row; a COPY of 10,000 rows then went out at a fifth of the speed.]
   *
   * It waits only while this process itself is what is slow, at most a second for each batch. In such a process a lane of a slow
   * receiver may be the crowded one; that one is then behind before long, and is not waited for.
   */
  async room(): Promise<void> {
    for (let waitedMs = 0; waitedMs < mostRoomMs && this.#isCrowded(); waitedMs += roomSliceMs) {
      const before = performance.eventLoopUtilization();
      await new Promise((resolve) => setTimeout(resolve, roomSliceMs));
      if (performance.eventLoopUtilization(before).utilization < busyUtilization) return;
    }
  }

  /** The journal has deliveries of it that nobody holds: of an earlier process, or due again. */
  wake(subscriptionId: string, jobId?: string): void {
    const lane = this.#lane({ subscriptionId, jobId });
    if (!lane.isBehind) {
      lane.isBehind = true;
      lane.overflows++;
    }
    void this.#refill(lane);
  }

  /** The journal took a batch with these updates: lanes that it had held up send on. */
  journaled(updates: readonly DeliveryUpdate[]): void {
    for (const { row, from } of updates) {
      if (from === undefined) continue;
      const lane = this.#lanes.get(keyOf(row));
      if (lane?.isRefilling === true) lane.fresh.add(row.messageId);
      else lane?.stale.delete(row.messageId);
    }
    if (!this.#isHeldUp) return;
    this.#isHeldUp = false;
    for (const lane of this.#lanes.values()) this.#pump(lane);
  }

  /** Something about it changed: it may be sent again, or not any more. */
  changed(subscriptionId: string): void {
    for (const lane of [...this.#lanes.values()].filter(({ id }) => id.subscriptionId === subscriptionId)) {
      if (this.#options.subscription(subscriptionId) === undefined) this.#drop(lane);
      else this.#pump(lane);
    }
  }

  /** Starts nothing more and waits for what is in flight, at most `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#sweep);
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    if (this.#inFlight === 0) return;
    await atMost(graceMs, new Promise<void>((resolve) => (this.#whenIdle = resolve)));
  }

  #lane({ subscriptionId, jobId }: LaneId): Lane {
    const id = { subscriptionId, jobId };
    let lane = this.#lanes.get(keyOf(id));
    if (lane === undefined) {
      lane = createLane(id);
      this.#lanes.set(keyOf(id), lane);
    }
    return lane;
  }

  #canHold(lane: Lane): boolean {
    return canHold(lane, this.#heldBytes, this.#options.laneCapacity ?? laneCapacity);
  }

  #isCrowded(): boolean {
    for (const lane of this.#crowded) if (!lane.isBehind) return true;
    return false;
  }

  #hold(lane: Lane, delivery: Delivery): void {
    const nowMs = this.#options.clock.nowMs();
    lane.held.set(delivery.message.id, delivery);
    this.#heldBytes += delivery.message.body.length;
    if (lane.held.size === crowdedAbove + 1) this.#crowded.add(lane);
    if (!delivery.hasRow) this.#open.push({ lane, messageId: delivery.message.id, sinceMs: this.#options.clock.monotonicMs() });
    const waitMs = delivery.nextAttemptAtMs === undefined ? 0 : delivery.nextAttemptAtMs - nowMs;
    if (waitMs > 0) this.#after(waitMs, () => this.#makeReady(lane, delivery.message.id));
    else lane.ready.push(delivery);
  }

  #makeReady(lane: Lane, messageId: string): void {
    const delivery = lane.held.get(messageId);
    if (delivery === undefined) return;
    lane.ready.push(delivery);
    this.#pump(lane);
  }

  #pump(lane: Lane): void {
    while (lane.inFlight < lane.window && readyCount(lane) > 0) {
      if (this.#isStopped) return;
      if (!this.#options.maySend()) {
        this.#isHeldUp = true;
        return;
      }
      const subscription = this.#options.subscription(lane.id.subscriptionId);
      if (subscription === undefined) return this.#drop(lane);
      if (subscription.state !== "enabled") return;
      const delivery = takeReady(lane);
      if (delivery !== undefined) this.#send(lane, subscription, delivery);
    }
    if (lane.isBehind && readyCount(lane) < refillBelow) void this.#refill(lane);
  }

  #send(lane: Lane, subscription: Subscription, delivery: Delivery): void {
    lane.inFlight++;
    this.#inFlight++;
    const { message } = delivery;
    const isWanted = (): boolean => this.#options.subscription(lane.id.subscriptionId) !== undefined;
    this.#options.sender.send({ message, subscription, number: delivery.attempts + 1, isWanted }, (outcome) => {
      lane.inFlight--;
      this.#inFlight--;
      lane.window = nextWindow(lane.window, outcome.kind === "delivered", lane.id.jobId === undefined ? largestWindow : largestWindow / 4);
      // It may have got a row while it was under way; gone from `held`, it was canceled meanwhile, and that stands.
      const current = lane.held.get(message.id);
      let after: Delivery | undefined;
      if (current !== undefined) {
        const step = applyOutcome(current, outcome, this.#options.retry, {
          ms: this.#options.clock.nowMs(),
          random: (this.#options.random ?? Math.random)(),
        });
        this.#record(step);
        if (step.delivery.state === "exhausted") this.#noteExhausted(subscription, step);
        if (current.hasRow) lane.stale.add(message.id);
        this.#settle(lane, step.delivery);
        after = step.delivery;
      }
      void this.#options.signal?.("attempted", { message, outcome, subscription, after });
      this.#pump(lane);
      if (this.#inFlight === 0) this.#whenIdle?.();
    });
  }

  /** A receiver that took nothing in all attempts: no silence about it. */
  #noteExhausted({ id, origin }: Subscription, { update: { row } }: Step): void {
    this.#exhaustedCount++;
    this.#options.log.warn(
      {
        subscription: id,
        receiver: origin,
        message: row.messageId,
        attempts: row.attempts,
        status: row.lastStatus,
        reason: row.lastReason,
      },
      "a delivery is exhausted: no attempt is left",
    );
  }

  /** Keeps a delivery that will be tried again soon; all others leave memory. */
  #settle(lane: Lane, delivery: Delivery): void {
    lane.held.delete(delivery.message.id);
    this.#heldBytes -= delivery.message.body.length;
    if (lane.held.size === crowdedAbove) this.#crowded.delete(lane);
    if (delivery.state !== "retrying" || delivery.nextAttemptAtMs === undefined) return;
    if (delivery.nextAttemptAtMs - this.#options.clock.nowMs() <= heldRetryMs) this.#hold(lane, delivery);
  }

  #drop(lane: Lane): void {
    this.#lanes.delete(keyOf(lane.id));
    this.#crowded.delete(lane);
    const nowMs = this.#options.clock.nowMs();
    for (const delivery of lane.held.values()) {
      this.#heldBytes -= delivery.message.body.length;
      this.#record(cancel(delivery, nowMs));
    }
    lane.held.clear();
    lane.ready = [];
    lane.head = 0;
    lane.isBehind = false;
  }

  async #refill(lane: Lane): Promise<void> {
    if (lane.isRefilling || this.#isStopped || readyCount(lane) >= refillBelow || !this.#canHold(lane)) return;
    lane.isRefilling = true;
    const { overflows } = lane;
    const isInMemory = (messageId: string): boolean => lane.held.has(messageId) || lane.stale.has(messageId);
    try {
      const { deliveries, isAll } = await this.#options.refill(lane.id, refillCount, isInMemory);
      this.#endRefill(lane);
      // It was dropped meanwhile.
      if (this.#lanes.get(keyOf(lane.id)) !== lane) return;
      // What memory does not take stays in the journal, and the lane behind.
      const taken = deliveries.filter((delivery) => {
        if (!this.#canHold(lane)) return false;
        this.#hold(lane, delivery);
        return true;
      });
      if (isAll && taken.length === deliveries.length && lane.overflows === overflows) lane.isBehind = false;
      this.#pump(lane);
    } catch (error) {
      this.#endRefill(lane);
      if (!this.#isStopped) {
        this.#options.log.warn({ err: error, subscription: lane.id.subscriptionId }, "could not read waiting deliveries");
      }
      this.#after(refillRetryMs, () => void this.#refill(lane));
    }
  }

  #endRefill(lane: Lane): void {
    lane.isRefilling = false;
    for (const messageId of lane.fresh) lane.stale.delete(messageId);
    lane.fresh.clear();
  }

  /** Gives a row to deliveries that have been open for long. */
  #sweepOpen(): void {
    const nowMs = this.#options.clock.monotonicMs();
    let passed = 0;
    for (const { lane, messageId, sinceMs } of this.#open) {
      if (nowMs - sinceMs < openMs) break;
      passed++;
      const delivery = lane.held.get(messageId);
      if (delivery === undefined || delivery.hasRow) continue;
      const step = suspend(delivery, this.#options.clock.nowMs());
      lane.held.set(messageId, step.delivery);
      this.#record(step);
    }
    if (passed > 0) this.#open = this.#open.slice(passed);
  }

  #record(step: Step): void {
    this.#options.record(step.update);
  }

  #after(ms: number, work: () => void): void {
    // What is answered while it stops: a timer would keep the process alive, for nothing.
    if (this.#isStopped) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, ms);
    this.#timers.add(timer);
  }
}
