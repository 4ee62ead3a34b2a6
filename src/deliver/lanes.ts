import type { Clock } from "../clock.ts";
import type { DeliveryUpdate, LaneId, Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";
import type { Health } from "../subscription/health.ts";
import { placeOfMessage } from "../message-id.ts";
import { cancel, suspend, type Delivery } from "./delivery.ts";
import type { DueTimer } from "./due-timer.ts";
import { createLane, isIdle, keyOf, type Lane } from "./lane.ts";
import { Memory } from "./memory.ts";
import { enter, isFirst, leave, release, releaseAll } from "./order.ts";
import { createReceiver, isForgettable, isStopped, untilOpenMs, type Receiver } from "./receiver.ts";
import type { RetryPolicy } from "./retry.ts";

export interface LanesOptions {
  readonly record: (update: DeliveryUpdate) => void;
  readonly initialHealth: ((subscriptionId: string) => Health | undefined) | undefined;
  readonly retry: RetryPolicy;
  readonly clock: Clock;
  readonly due: DueTimer;
  readonly capacity: number | undefined;
  /** Something of it may have become ready. */
  readonly pump: (lane: Lane) => void;
}

/** What is to be tried later than this lives in the journal only. */
export const heldMs = 60_000;
/** A delivery without a row for this long gets one, so that `settled` moves on past a slow receiver. */
const openMs = 1_000;
const forgetEachMs = 10_000;
/** An ordered refill that found nothing to take comes again so soon after something was added. */
export const refillAgainMs = 50;

/** What is in memory: the lanes, what they hold, and how it leaves them. It sends nothing. */
export class Lanes {
  readonly #options: LanesOptions;
  readonly memory: Memory;
  readonly #receivers = new Map<string, Receiver>();
  /** In the order in which they came, for the tick that gives old ones a row. */
  #open: { readonly lane: Lane; readonly messageId: string; readonly sinceMs: number }[] = [];
  /** Lanes with an order that are not kept, and of which the journal has nothing. */
  readonly #emptyOrdered = new Set<string>();
  #forgotAtMs: number;

  constructor(options: LanesOptions) {
    this.#options = options;
    this.memory = new Memory(options.capacity);
    this.#forgotAtMs = options.clock.monotonicMs();
  }

  *[Symbol.iterator](): Iterator<Lane> {
    for (const { lanes } of this.#receivers.values()) yield* lanes.values();
  }

  receiverOf(subscriptionId: string): Receiver | undefined {
    return this.#receivers.get(subscriptionId);
  }

  find({ subscriptionId, jobId }: LaneId): Lane | undefined {
    return this.#receivers.get(subscriptionId)?.lanes.get(jobId ?? "");
  }

  /** The lane of that name, made where there is none. */
  of({ subscriptionId, jobId }: LaneId, subscription: Subscription): Lane {
    let receiver = this.#receivers.get(subscriptionId);
    if (receiver === undefined) {
      const { clock, retry, initialHealth } = this.#options;
      const now = { ms: clock.nowMs(), monotonicMs: clock.monotonicMs() };
      receiver = createReceiver(subscriptionId, initialHealth?.(subscriptionId), retry, now);
      this.#receivers.set(subscriptionId, receiver);
    }
    let lane = receiver.lanes.get(jobId ?? "");
    if (lane === undefined) {
      const id = { subscriptionId, jobId };
      lane = createLane(id, receiver, subscription.order ?? "none");
      if (this.#emptyOrdered.delete(keyOf(id))) lane.isBehind = false;
      receiver.lanes.set(jobId ?? "", lane);
    }
    return lane;
  }

  /** Whether it may hold one more; where memory is short, a lane that is much slower gives its own back. */
  takesMore(lane: Lane, subscription: Subscription): boolean {
    const nowMs = this.#options.clock.monotonicMs();
    if (isStopped(lane.receiver, subscription) || untilOpenMs(lane.receiver, nowMs) > heldMs) return false;
    if (this.memory.hasRoom(lane)) return true;
    const slowest = this.memory.slowest(lane, nowMs);
    if (slowest !== undefined) this.release(slowest);
    return slowest !== undefined && this.memory.hasRoom(lane);
  }

  /** It comes into memory. */
  hold(lane: Lane, delivery: Delivery): void {
    lane.held.set(delivery.message.id, delivery);
    this.memory.add(lane, delivery);
    if (!delivery.hasRow) this.#open.push({ lane, messageId: delivery.message.id, sinceMs: this.#options.clock.monotonicMs() });
    if (lane.order === undefined || enter(lane.order, delivery.message)) this.makeReady(lane, delivery);
  }

  /** Its turn has come: it is sent now, or when its next attempt is due. */
  makeReady(lane: Lane, delivery: Delivery): void {
    const waitMs = delivery.nextAttemptAtMs === undefined ? 0 : delivery.nextAttemptAtMs - this.#options.clock.nowMs();
    if (waitMs <= 0) {
      lane.ready.push(delivery);
      return;
    }
    this.#options.due.at(this.#options.clock.monotonicMs() + waitMs, () => {
      if (!lane.held.has(delivery.message.id)) return;
      lane.ready.push(delivery);
      this.#options.pump(lane);
    });
  }

  /** It is not in flight any more: begun again by hand, it may have waited for that in another lane. */
  notSending(lane: Lane, messageId: string): void {
    for (const sister of lane.receiver.lanes.values()) {
      const delivery = sister === lane ? undefined : sister.held.get(messageId);
      if (delivery !== undefined) this.makeReady(sister, delivery);
    }
  }

  /** From here on all goes to the journal only, until a refill has seen all of it. @param message where it may be read; none: anywhere */
  overflow(lane: Lane, message?: Message): void {
    lane.isBehind = true;
    const place = message === undefined ? "" : placeOfMessage(message.id);
    const { reading } = lane;
    if (place <= reading.after) lane.reading = { after: "" };
    else if (lane.isRefilling && (reading.least === undefined || place < reading.least)) reading.least = place;
    lane.overflows++;
    const againAtMs = this.#options.clock.monotonicMs() + refillAgainMs;
    if (lane.refillAtMs > againAtMs) this.refillAt(lane, againAtMs);
  }

  /** It reads the journal no earlier than then, and does so then. */
  refillAt(lane: Lane, atMs: number): void {
    lane.refillAtMs = atMs;
    this.#options.due.at(atMs, () => this.#options.pump(lane));
  }

  /** What is in memory and not in flight goes back to the journal. */
  release(lane: Lane): void {
    this.giveBack(
      lane,
      [...lane.held.values()].map(({ message }) => message),
    );
    if (lane.order !== undefined) releaseAll(lane.order);
    lane.ready = [];
    lane.head = 0;
  }

  /** They leave memory unfinished, and have a row from here on. */
  giveBack(lane: Lane, messages: readonly Message[]): void {
    this.overflow(lane);
    for (const { id } of messages) {
      const delivery = lane.held.get(id);
      if (delivery === undefined || lane.sending.has(id)) continue;
      this.#letGo(lane, delivery);
      if (!delivery.hasRow) this.#record(suspend(delivery, this.#options.clock.nowMs()));
    }
  }

  #letGo(lane: Lane, delivery: Delivery): void {
    lane.held.delete(delivery.message.id);
    this.memory.remove(lane, delivery);
  }

  /** @returns how many there were; what is in flight goes on, and its outcome changes nothing */
  cancel(lane: Lane, isMeant: (delivery: Delivery) => boolean): number {
    const nowMs = this.#options.clock.nowMs();
    if (lane.isRefilling) lane.canceled.push(isMeant);
    const meant = [...lane.held.values()].filter(isMeant);
    for (const delivery of meant) {
      this.#letGo(lane, delivery);
      const step = cancel(delivery, nowMs);
      this.#record(step);
      if (delivery.hasRow) lane.stale.add(delivery.message.id);
      this.#nextInOrder(lane, delivery.message);
    }
    return meant.length;
  }

  #nextInOrder(lane: Lane, message: Message): void {
    const next = lane.order === undefined ? undefined : leave(lane.order, message);
    const delivery = next === undefined ? undefined : lane.held.get(next.id);
    if (delivery !== undefined) this.makeReady(lane, delivery);
  }

  /** Keeps a delivery that will be tried again soon; all others leave memory. */
  settle(lane: Lane, before: Delivery, delivery: Delivery): void {
    this.#letGo(lane, before);
    const { message, nextAttemptAtMs } = delivery;
    if (delivery.state !== "retrying" || nextAttemptAtMs === undefined) this.#nextInOrder(lane, message);
    else if (nextAttemptAtMs - this.#options.clock.nowMs() <= heldMs && (lane.order === undefined || isFirst(lane.order, message))) {
      // In an order it keeps its place.
      lane.held.set(message.id, delivery);
      this.memory.add(lane, delivery);
      this.makeReady(lane, delivery);
    } else if (lane.order !== undefined) this.giveBack(lane, release(lane.order, message));
  }

  /** Gives a row to deliveries that have been open for long. */
  giveRows(nowMs: number): void {
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

  /** A subscription was deleted: what is in memory of it is canceled. */
  drop(receiver: Receiver): void {
    this.#receivers.delete(receiver.subscriptionId);
    for (const lane of receiver.lanes.values()) this.cancel(lane, () => true);
  }

  /** A hundred thousand subscriptions, each with something now and then, need no lane each. */
  forgetIdle(nowMs: number): void {
    if (nowMs - this.#forgotAtMs < forgetEachMs) return;
    this.#forgotAtMs = nowMs;
    for (const [id, receiver] of this.#receivers) {
      for (const [name, lane] of receiver.lanes) {
        if (!isIdle(lane)) continue;
        if (lane.order !== undefined) this.#emptyOrdered.add(keyOf(lane.id));
        receiver.lanes.delete(name);
      }
      if (isForgettable(receiver, nowMs)) this.#receivers.delete(id);
    }
  }

  #record(step: { readonly update: DeliveryUpdate }): void {
    this.#options.record(step.update);
  }
}
