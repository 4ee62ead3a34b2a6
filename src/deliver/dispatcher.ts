import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { DeliveryUpdate, LaneId } from "../message.ts";
import { atMost } from "../pause.ts";
import { isElsewhere, type Subscription } from "../subscription/registry.ts";
import type { TestSignal } from "../test-signal.ts";
import type { Health } from "../subscription/health.ts";
import { applyOutcome, cancel, suspend, type Delivery, type Step } from "./delivery.ts";
import { DueTimer } from "./due-timer.ts";
import { Grants, type Grant } from "./grants.ts";
import { readyCount, takeReady, type Lane } from "./lane.ts";
import { heldMs, Lanes } from "./lanes.ts";
import { createOrder, enter, isFirst, markSending, release, type Order } from "./order.ts";
import type { Outcome, Unsent } from "./outcome.ts";
import {
  forgive,
  isFull,
  isStopped,
  noteAttempt,
  noteEnd,
  noteOutcome,
  rankOf,
  untilOpenMs,
  untilStartMs,
  type Receiver,
} from "./receiver.ts";
import type { RetryPolicy } from "./retry.ts";
import { Refiller, whereIs, type Refill, type RefillRequest } from "./refiller.ts";
import { Room } from "./room.ts";
import type { Sender } from "./send.ts";

export interface DispatcherOptions {
  readonly sender: Sender;
  /** Where a subscription stands now; undefined once it was deleted. */
  readonly subscription: (id: string) => Subscription | undefined;
  readonly retry: RetryPolicy;
  /** Takes what happened to deliveries, for the next batch. */
  readonly record: (update: DeliveryUpdate) => void;
  /** Reads deliveries of one lane from the journal, by position, but for those in memory. */
  readonly refill: (request: RefillRequest) => Promise<Refill>;
  /** Whether an attempt may start at all: not while the journal refuses, or another process leads. */
  readonly maySend: () => boolean;
  /** The receiver wants nothing more, or is gone. Nothing is sent to it until `changed` tells of a later revision that is enabled. */
  readonly onDisable: (subscriptionId: string, why: DisableRequest) => void;
  /** How a receiver is doing: at its first failure, at its recovery, and at most once a minute between. */
  readonly onHealth?: (subscriptionId: string, health: Health) => void;
  /** What `onHealth` told an earlier process; undefined where all was well, or the subscription was enabled since. */
  readonly initialHealth?: (subscriptionId: string) => Health | undefined;
  /** Requests to one origin at a time, at most. */
  readonly connectionsPerOrigin: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Deliveries that a lane holds in memory, at most. @default 10000 */
  readonly laneCapacity?: number;
  readonly random?: () => number;
  readonly signal?: TestSignal | undefined;
}

/** Why a subscription is to be disabled. `gone`: it answered 410. `asked`: it said so in a header. `failing`: nothing succeeded for five days. */
export interface DisableRequest {
  readonly reason: "gone" | "asked" | "failing";
  readonly status: number | undefined;
  /** Of the subscription, as the attempt knew it: what was changed since is not meant. */
  readonly revision: bigint;
}

/** A lane that holds more than this is crowded: it has enough to do, and another batch brings it nearer to its overflow. */
const crowdedAbove = 1_000;
const tickMs = 250;
/** How long a receiver waits at least when this machine had no descriptor or port for it. */
const shortageMs = 1_000;
/** A shortage is shown for so long after it was felt. */
const shortageShownMs = 60_000;

/** Sends what was journaled, lane by lane. It reads the journal only through `refill`; what decides stands in the files beside it. */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #lanes: Lanes;
  readonly #refiller: Refiller;
  readonly #grants: Grants<Lane>;
  readonly #due: DueTimer;
  readonly #room = new Room();
  #tick: NodeJS.Timeout | undefined;
  #isStopped = false;
  #inFlight = 0;
  #exhaustedCount = 0;
  /** Something could not be sent since `maySend` said no. */
  #isHeldUp = false;
  #whenIdle: (() => void) | undefined;
  /** The last one; see `shortage`. */
  #shortage: { readonly words: string; readonly atMs: number } | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    const { clock, log, record, initialHealth, retry, laneCapacity: capacity, refill } = options;
    const pump = (lane: Lane): void => this.#pump(lane);
    this.#due = new DueTimer(clock);
    this.#lanes = new Lanes({ record, initialHealth, retry, clock, due: this.#due, capacity, pump });
    this.#refiller = new Refiller({
      refill,
      lanes: this.#lanes,
      clock,
      log,
      pump,
      subscription: options.subscription,
      wakeIn: (receiver, waitMs) => this.#wakeIn(receiver, waitMs),
      isStopped: () => this.#isStopped,
    });
    this.#grants = new Grants<Lane>({
      perOrigin: options.connectionsPerOrigin,
      rankOf,
      start: (lane, grant) => this.#start(lane, grant),
      wantsMore: (lane) => this.#wants(lane),
    });
  }

  start(): void {
    this.#tick = setInterval(() => this.tick(), tickMs);
    this.#tick.unref();
  }

  /** Deliveries in memory. */
  get heldCount(): number {
    return this.#lanes.memory.count;
  }

  /** Lanes that have deliveries in the journal only. */
  get behindCount(): number {
    let count = 0;
    for (const lane of this.#lanes) if (lane.isBehind) count++;
    return count;
  }

  /** Lanes in memory; those with nothing to do are forgotten. */
  get laneCount(): number {
    let count = 0;
    for (const _ of this.#lanes) count++;
    return count;
  }

  /** What this machine lacks for sending, in words; undefined where it has lacked nothing for a while. */
  get shortage(): string | undefined {
    const shortage = this.#shortage;
    return shortage === undefined || this.#options.clock.monotonicMs() - shortage.atMs > shortageShownMs ? undefined : shortage.words;
  }

  /** Deliveries that were given up since the start. */
  get exhaustedCount(): number {
    return this.#exhaustedCount;
  }

  /** Deliveries of one lane that may have a row although nobody is to take them from the journal. */
  heldBy(id: LaneId): number {
    const lane = this.#lanes.find(id);
    return lane === undefined ? 0 : lane.held.size + lane.stale.size;
  }

  /** Whether a delivery is in memory, or on its way from there into the journal. */
  isHeld(id: LaneId, messageId: string): boolean {
    const lane = this.#lanes.find(id);
    return lane !== undefined && whereIs(lane, messageId) !== undefined;
  }

  /** Whether a lane takes from the journal what it does not hold. */
  isBehind(id: LaneId): boolean {
    return this.#lanes.find(id)?.isBehind === true;
  }

  /** Takes a delivery whose message is journaled. What its lane cannot hold goes to the journal as `pending`. */
  add(delivery: Delivery): void {
    const subscription = this.#options.subscription(delivery.subscriptionId);
    if (subscription === undefined) return this.#record(cancel(delivery, this.#options.clock.nowMs()));
    const lane = this.#lanes.of(delivery, subscription);
    if (!lane.isBehind && this.#lanes.takesMore(lane, subscription)) this.#lanes.hold(lane, delivery);
    else {
      this.#lanes.overflow(lane, delivery.message);
      if (!delivery.hasRow) this.#record(suspend(delivery, this.#options.clock.nowMs()));
    }
    this.#pump(lane);
  }

  /** Lets a busy process send before it captures more. */
  async room(): Promise<void> {
    await this.#room.wait(() => {
      for (const lane of this.#lanes.memory.large) if (lane.held.size > crowdedAbove && !lane.isBehind) return true;
      return false;
    });
  }

  /** The journal has deliveries of it that nobody holds: of an earlier process, or due again. */
  wake(subscriptionId: string, jobId?: string): void {
    this.#wake({ subscriptionId, jobId }, (lane) => {
      // Where all that is there waits for something, it goes on to: such a lane is found at each sweep.
      if (lane.isBehind) lane.reading = { after: "" };
      else this.#lanes.overflow(lane);
    });
  }

  /** The journal has new ones of it, that this process has not made: of a job, or resent. */
  added(subscriptionId: string, jobId?: string): void {
    this.#wake({ subscriptionId, jobId }, (lane) => this.#lanes.overflow(lane));
  }

  #wake(id: LaneId, note: (lane: Lane) => void): void {
    const subscription = this.#options.subscription(id.subscriptionId);
    if (subscription === undefined || subscription.state !== "enabled") return;
    const lane = this.#lanes.of(id, subscription);
    note(lane);
    this.#pump(lane);
  }

  /** The journal took a batch with these updates: lanes that it had held up send on. */
  journaled(updates: readonly DeliveryUpdate[]): void {
    for (const { row, from } of updates) {
      if (from === undefined) continue;
      const lane = this.#lanes.find(row);
      if (lane?.isRefilling === true) lane.fresh.add(row.messageId);
      else lane?.stale.delete(row.messageId);
    }
    this.#resume();
  }

  /**
   * Something about it changed: it may be sent again, or not any more.
   *
   * @param hasMoved it has another URL: see `isElsewhere`
   */
  changed(subscriptionId: string, hasMoved = false): void {
    const subscription = this.#options.subscription(subscriptionId);
    const receiver = this.#lanes.receiverOf(subscriptionId);
    if (receiver === undefined) return this.wake(subscriptionId);
    if (subscription === undefined) return this.#lanes.drop(receiver);
    if (hasMoved || (receiver.stoppedRevision !== undefined && !isStopped(receiver, subscription))) {
      forgive(receiver);
      this.#options.onHealth?.(subscriptionId, receiver.health);
    }
    for (const lane of receiver.lanes.values()) {
      const order = subscription.order ?? "none";
      if (isStopped(receiver, subscription) || order !== (lane.order?.kind ?? "none")) this.#lanes.release(lane);
      if (order !== (lane.order?.kind ?? "none")) lane.order = order === "none" ? undefined : orderOf(lane, order);
      if (lane.id.jobId !== undefined) this.wake(subscriptionId, lane.id.jobId);
    }
    this.wake(subscriptionId);
  }

  /** Cancels what is in memory; what is in flight goes on, and its outcome changes nothing. @returns how many */
  cancelWhere(isMeant: (delivery: Delivery) => boolean): number {
    let count = 0;
    for (const lane of this.#lanes) {
      const canceled = this.#lanes.cancel(lane, isMeant);
      if (canceled > 0) this.#pump(lane);
      count += canceled;
    }
    return count;
  }

  /** Starts nothing more and waits for what is in flight, at most `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#tick);
    this.#due.stop();
    if (this.#inFlight === 0) return;
    await atMost(graceMs, new Promise<void>((resolve) => (this.#whenIdle = resolve)));
  }

  /** What is done from time to time. The timer calls it; so does a test, whose clock is its own. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#due.run();
    this.#lanes.giveRows(nowMs);
    if (this.#isHeldUp && this.#options.maySend()) this.#resume();
    this.#refiller.retryForRoom();
    this.#lanes.forgetIdle(nowMs);
  }

  // --- sending -----------------------------------------------------------------------------------------------------------------

  #pump(lane: Lane): void {
    const subscription = this.#options.subscription(lane.id.subscriptionId);
    if (this.#isStopped || subscription === undefined) return;
    if (this.#wants(lane)) this.#grants.request(lane, subscription.origin);
    this.#refiller.start(lane, subscription);
  }

  /** Whether it would start an attempt now. Where only time keeps it from that, the due timer asks again. */
  #wants(lane: Lane): boolean {
    if (readyCount(lane) === 0 || this.#isStopped) return false;
    const subscription = this.#options.subscription(lane.id.subscriptionId);
    if (subscription === undefined || isStopped(lane.receiver, subscription) || isFull(lane, subscription)) return false;
    if (!this.#options.maySend()) {
      this.#isHeldUp = true;
      return false;
    }
    const waitMs = untilStartMs(lane.receiver, subscription, this.#options.clock);
    if (waitMs > 0) this.#wakeIn(lane.receiver, waitMs);
    return waitMs === 0;
  }

  #wakeIn(receiver: Receiver, waitMs: number): void {
    const atMs = this.#options.clock.monotonicMs() + waitMs;
    if (atMs >= receiver.wakeAtMs) return;
    receiver.wakeAtMs = atMs;
    this.#due.at(atMs, () => {
      if (receiver.wakeAtMs !== atMs) return;
      receiver.wakeAtMs = Number.POSITIVE_INFINITY;
      this.#pumpAll(receiver);
    });
  }

  #pumpAll(receiver: Receiver): void {
    for (const lane of receiver.lanes.values()) this.#pump(lane);
  }

  #start(lane: Lane, grant: Grant): boolean {
    const subscription = this.#options.subscription(lane.id.subscriptionId);
    const delivery = subscription !== undefined && this.#wants(lane) ? takeReady(lane) : undefined;
    if (delivery === undefined || subscription === undefined) return false;
    const { message } = delivery;
    const isProbe = lane.receiver.breaker.kind === "open";
    const isWanted = (): boolean => {
      const now = this.#options.subscription(subscription.id);
      // Changed meanwhile, it is sent as it is now: to its new URL, with its new headers.
      if (now?.revision !== subscription.revision || isStopped(lane.receiver, now)) return false;
      // It was asked for while it waited for a connection.
      return lane.receiver.heldUntilMs === 0 || lane.receiver.heldUntilMs <= this.#options.clock.monotonicMs();
    };
    this.#inFlight++;
    lane.sending.add(message.id);
    if (lane.order !== undefined) markSending(lane.order, message, true);
    noteAttempt(lane.receiver, subscription, this.#options.clock.monotonicMs());
    this.#options.sender.send({ message, subscription, number: delivery.attempts + 1, isWanted }, (outcome) => {
      this.#inFlight--;
      lane.sending.delete(message.id);
      if (lane.order !== undefined) markSending(lane.order, message, false);
      if (outcome.kind === "unsent") this.#takeBack(lane, delivery, outcome);
      else this.#finish(lane, { delivery, subscription, isProbe }, outcome);
      this.#lanes.notSending(lane, message.id);
      this.#grants.release(grant);
      this.#pumpAll(lane.receiver);
      if (this.#inFlight === 0) this.#whenIdle?.();
    });
    return true;
  }

  /** Nothing was sent: it is as if it had not been begun. */
  #takeBack(lane: Lane, { message, round }: Delivery, { shortage }: Unsent): void {
    const { receiver } = lane;
    receiver.inFlight--;
    const held = lane.held.get(message.id);
    if (shortage === undefined || held?.round !== round || (lane.order !== undefined && !isFirst(lane.order, message))) {
      this.#lanes.giveBack(lane, lane.order === undefined ? [message] : release(lane.order, message));
      return;
    }
    this.#noteShortage(shortage);
    // Others may have what it lacks: only this receiver waits. It keeps its place in memory, since reading the journal costs more.
    const { clock, random = Math.random } = this.#options;
    receiver.heldUntilMs = Math.max(receiver.heldUntilMs, clock.monotonicMs() + shortageMs * (1 + random()));
    this.#lanes.makeReady(lane, held);
  }

  #noteShortage(words: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (this.shortage === undefined) {
      this.#options.log.error({ words }, "this machine lacks what sending takes; nothing counts as an attempt until it has it again");
    }
    this.#shortage = { words, atMs: nowMs };
  }

  #finish(
    lane: Lane,
    { delivery, subscription, isProbe }: { readonly delivery: Delivery; readonly subscription: Subscription; readonly isProbe: boolean },
    outcome: Outcome,
  ): void {
    const { clock, retry, random = Math.random, onHealth, onDisable, signal } = this.#options;
    const { receiver } = lane;
    const { message } = delivery;
    const nowMs = clock.nowMs();
    const now = { ms: nowMs, monotonicMs: clock.monotonicMs() };
    const noted = isElsewhere(subscription, this.#options.subscription(subscription.id))
      ? noteEnd(receiver, now.monotonicMs)
      : noteOutcome(receiver, outcome, { isProbe, policy: retry, ...now, random: random() });
    if (noted.toTell !== undefined) onHealth?.(subscription.id, noted.toTell);
    const held = lane.held.get(message.id);
    let after: Delivery | undefined;
    if (held?.round !== delivery.round) {
      // Canceled while it was under way, or begun again by hand: that stands, and this outcome is kept as late.
      this.#record(applyOutcome({ ...delivery, hasRow: true, batch: undefined }, outcome, retry, { ms: nowMs, random: random() }));
      // Two attempts of one message are never under way at once: the other round has waited for this.
      if (held === undefined) this.#lanes.giveBack(lane, [message]);
      else this.#lanes.makeReady(lane, held);
    } else {
      // It may have got a row while it was under way.
      const step = applyOutcome(held, outcome, retry, { ms: nowMs, random: random() });
      this.#record(step);
      if (step.delivery.state === "exhausted") this.#noteExhausted(subscription, step);
      if (held.hasRow) lane.stale.add(message.id);
      this.#lanes.settle(lane, held, step.delivery);
      after = step.delivery;
    }
    const { revision } = subscription;
    if (noted.disable !== undefined && (receiver.stoppedRevision ?? -1n) < revision) {
      receiver.stoppedRevision = revision;
      onDisable(subscription.id, { reason: noted.disable, status: outcome.status, revision });
    }
    // What cannot be sent for long lives in the journal only.
    const openInMs = receiver.stoppedRevision === undefined ? untilOpenMs(receiver, clock.monotonicMs()) : Number.POSITIVE_INFINITY;
    if (openInMs > heldMs) for (const one of receiver.lanes.values()) if (one.held.size > one.sending.size) this.#lanes.release(one);
    if (openInMs > 0 && openInMs < Number.POSITIVE_INFINITY) this.#wakeIn(receiver, openInMs);
    void signal?.("attempted", { message, outcome, subscription, after });
  }

  /** A receiver that took nothing in all attempts: no silence about it. */
  #noteExhausted({ id, origin }: Subscription, { update: { row } }: Step): void {
    this.#exhaustedCount++;
    const { messageId: message, attempts, lastStatus: status, lastReason: reason } = row;
    this.#options.log.warn(
      { subscription: id, receiver: origin, message, attempts, status, reason },
      "a delivery is exhausted: no attempt is left",
    );
  }

  #resume(): void {
    if (!this.#isHeldUp) return;
    this.#isHeldUp = false;
    for (const lane of this.#lanes) this.#pump(lane);
  }

  #record(step: Step): void {
    this.#options.record(step.update);
  }
}

/** What is in flight comes first in it, whatever the order was when it began. */
function orderOf(lane: Lane, kind: Order["kind"]): Order {
  const order = createOrder(kind);
  for (const id of lane.sending) {
    const message = lane.held.get(id)?.message;
    if (message === undefined) continue;
    enter(order, message);
    markSending(order, message, true);
  }
  return order;
}
