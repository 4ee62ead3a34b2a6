import { startOfLog, type Captured, type ChangeSource, type Position } from "./capture/change.ts";
import type { Clock } from "./clock.ts";
import { newDelivery } from "./deliver/delivery.ts";
import type { Dispatcher } from "./deliver/dispatcher.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import { fanOut } from "./fan-out.ts";
import { leastIdOf, rejectionIdOf } from "./message-id.ts";
import type { Journal } from "./journal/journal.ts";
import { isUntouched, WaitingRows } from "./journal/waiting-rows.ts";
import type { Logger } from "./log.ts";
import type { BatchInFlight, DeliveryUpdate, Message } from "./message.ts";
import { createMessageBuilder, type Built, type MessageBuilder, type Parked, type TriggerCame } from "./build-messages.ts";
import { placeSubscriptions, type PlacingDeps } from "./place-subscriptions.ts";
import { atMost } from "./pause.ts";
import type { PayloadDeps } from "./payload/build.ts";
import type { Registry, Subscription } from "./subscription/registry.ts";
import type { TestSignal } from "./test-signal.ts";

export interface PipelineOptions {
  readonly source: ChangeSource;
  readonly catalogue: Catalogue;
  readonly payload: PayloadDeps;
  readonly journal: Journal;
  readonly registry: Registry;
  readonly dispatcher: Dispatcher;
  readonly refreshSubscription: PlacingDeps["refreshSubscription"];
  /** Told when an event, or a file of handlers, is parked. */
  readonly onParked?: (parked: Parked) => void;
  /** What came of an explicit trigger, for whoever waits for it. */
  readonly onTrigger: (id: string, came: TriggerCame) => void;
  /** Everything ended by a fault, and another process may lead: slot and lock were let go. */
  readonly onFailure: () => void;
  /** Capture ended by a fault; delivery goes on. */
  readonly onCaptureFailure?: (error: unknown) => void;
  readonly maxOccurrences: number;
  /** How long reads of payloads that run out of time are waited for. */
  readonly readPatienceMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal?: TestSignal | undefined;
}

/** What went through; `deliveries` by the state that they came into. */
export interface Counts {
  readonly messages: number;
  readonly rejections: number;
  readonly deliveries: Readonly<Record<string, number>>;
}

/** Outcomes alone wait so long for a batch to go with; this many of them wait no longer. */
const lingerMs = 50;
const lingerCount = 500;
/**
 * Deliveries that one batch may make, about: the event loop stands still while they are handed over, and again while the rows of those
 * that no lane holds are written. [M: 500 rows for 2,000 subscriptions in one batch held it for 8 s and 6 s, longer than the lease.]
 */
const mostDeliveries = 10_000;
/** Changes that a batch may take however widely they go: most of them go nowhere, and a commit for each would be slow for all. */
const fewest = 32;
/** A position that carries no message is journaled at most so often (while changes come, and while the log is idle). */
const positionMs = 1_000;
const idleMs = 10_000;
/** How long a fault that ends everything leaves the slot to be let go of. A server that answers takes less than a second. */
const slotGoodbyeMs = 2_000;

/** Who is to get what, of a batch. */
export interface OwedMessage {
  readonly message: Message;
  readonly subscription: Subscription;
}

/**
 * THE FLOW: capture → match → payload → fan-out → journal → deliver.
 *
 * One loop, back to back: take what is committed and visible, build it, commit it with the position and the outcomes that came in
 * meanwhile, hand it to delivery, confirm the log. A message waits for one commit.
 */
export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #counts = { messages: 0, rejections: 0, deliveries: {} as Record<string, number> };
  readonly #builder: MessageBuilder;
  readonly #placing: PlacingDeps;
  /** Rows that go beside the batches. */
  readonly #rows: WaitingRows;
  /** Outcomes for the next batch. Filled by `record`, emptied by the loop. */
  #updates: DeliveryUpdate[] = [];
  #firstUpdateAtMs = 0;
  /** Rows were written beside the batches: the next one tells how far all is settled, and comes before long. Undefined: none were. */
  #rowsWrittenAtMs: number | undefined;
  /** Everything up to here was read and, where it made a message, journaled; the position itself may not be yet. */
  #passed: { position: Position; endLsn: bigint; cursor: string | undefined } = { position: startOfLog, endLsn: 0n, cursor: undefined };
  #committedAtMs = 0;
  #wake: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  readonly #stopping = new AbortController();
  /** Written by `stopReading`. */
  #isReading = true;
  /** The loop is over: nothing is journaled any more, so nothing may be sent either. */
  #hasEnded = false;
  /** Why capture ended; delivery goes on. */
  #captureFailure: unknown;
  /** Why everything ended. */
  #failure: unknown;
  /** A batch is being committed. Written by `#turn`. */
  #isCommitting = false;
  /** Callers of `flushed`, resolved when all that was recorded before is in the journal. */
  #waitingForFlush: { readonly resolve: () => void; readonly reject: (error: Error) => void }[] = [];

  constructor(options: PipelineOptions) {
    this.#options = options;
    const { signal: stopping } = this.#stopping;
    this.#builder = createMessageBuilder({ ...options, sourceId: options.source.sourceId, stopping });
    this.#placing = { ...options, stopping };
    this.#rows = new WaitingRows({
      write: (updates) => options.journal.writeRows(updates),
      onWritten: (updates) => {
        this.#rowsWrittenAtMs ??= options.clock.monotonicMs();
        this.#wakeAfter(lingerMs);
        void options.signal?.("journaled", { messages: [], owed: [], updates });
      },
      onRefused: () => this.#wakeNow(),
      log: options.log,
    });
  }

  /** @param endLsn up to where an earlier process had read */
  start(endLsn: bigint): void {
    const { journaled: position, cursor } = this.#options.journal;
    this.#passed = { position, endLsn, cursor };
    this.#committedAtMs = this.#options.clock.monotonicMs();
    this.#running = this.#run();
  }

  get captureFailure(): unknown {
    return this.#captureFailure ?? this.#failure;
  }

  /** Why everything ended; undefined while it has not, or where only capture has. */
  get failure(): unknown {
    return this.#failure;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Events whose code is not run for now. */
  parked(): readonly string[] {
    return this.#builder.parked();
  }

  /** What cannot be built for now, and what is rejected for its time. */
  get readable(): MessageBuilder["readable"] {
    return this.#builder.readable;
  }

  unpark(name: string): void {
    this.#builder.unpark(name);
  }

  /** All that was committed before this place of the log is in the journal. */
  get passedLsn(): bigint {
    const { source, journal } = this.#options;
    const passed = this.#isCommitting ? journal.endLsn : this.#passed.endLsn;
    // What capture lost is behind nobody.
    if (this.#captureFailure !== undefined) return passed;
    const idle = source.idleLsn() ?? 0n;
    return idle > passed ? idle : passed;
  }

  /** Since the start, for the metrics. */
  get counts(): Counts {
    return this.#counts;
  }

  /** Takes what happened to a delivery. */
  record(update: DeliveryUpdate): void {
    const { state } = update.row;
    this.#counts.deliveries[state] = (this.#counts.deliveries[state] ?? 0) + 1;
    if (isUntouched(update)) return this.#rows.add(update);
    if (this.#updates.length === 0) this.#firstUpdateAtMs = this.#options.clock.monotonicMs();
    this.#updates.push(update);
    if (this.#updates.length === 1) this.#wakeAfter(lingerMs);
    else if (this.#updates.length === lingerCount) this.#wakeNow();
  }

  /**
   * Resolves when all that was recorded so far is in the journal; rejects where the loop ends first.
   *
   * Never to be awaited by the loop itself.
   */
  async flushed(): Promise<void> {
    await this.#rows.flushed();
    if (this.#hasEnded) throw ended();
    // What the batch under way carries is in no list any more, and not in the journal yet.
    if (this.#updates.length === 0 && this.#waitingForFlush.length === 0 && !this.#isCommitting && !this.#rows.isRefused) return;
    const flushed = new Promise<void>((resolve, reject) => this.#waitingForFlush.push({ resolve, reject }));
    this.#firstUpdateAtMs = 0;
    this.#wakeNow();
    await flushed;
  }

  /** Takes no more from the log; what happens to deliveries is journaled until `stop`. */
  stopReading(): void {
    this.#isReading = false;
  }

  /** Reads no more, journals the outcomes that are in, and ends. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wakeNow();
    await this.#running;
    this.#end();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isStopping) {
        await this.#somethingToDo();
        await this.#turn(this.#isStopping ? [] : await this.#take());
      }
      this.#updates.unshift(...(await this.#rows.stop()));
      await this.#turn([]);
    } catch (error) {
      this.#failure = error;
      this.#end();
      if (this.#isStopping) return;
      this.#options.log.fatal({ err: error }, "capture and delivery stopped");
      // Whoever leads next needs the slot, and before it the lock: a standby that has the one must find the other free. Where the network
      // is dead the slot is not let go of anyway, and nobody is to wait for that.
      const stopped = this.#options.source.stop();
      await atMost(slotGoodbyeMs, stopped);
      await this.#options.journal.stop();
      await stopped;
      this.#options.onFailure();
    }
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  #end(): void {
    this.#hasEnded = true;
    clearTimeout(this.#timer);
    void this.#rows.stop();
    for (const { reject } of this.#waitingForFlush.splice(0)) reject(ended());
  }

  /** One batch. */
  async #turn(captured: readonly Captured[]): Promise<void> {
    const { journal, source, dispatcher, signal } = this.#options;
    if (captured.length > 0) await signal?.("captured", captured);
    const built = await this.#builder.build(captured);
    const starts = built === undefined ? undefined : await placeSubscriptions(built.subscriptions, this.#placing);
    // Stopped while the database could not be read: what was taken is read again after the next start.
    if (built === undefined || starts === undefined) return;
    if (built.passed !== undefined) {
      this.#passed = {
        position: built.passed,
        endLsn: built.endLsn > this.#passed.endLsn ? built.endLsn : this.#passed.endLsn,
        cursor: source.cursor?.(),
      };
    }
    this.#noteIdle();
    const outcomes = this.#updates;
    this.#updates = [];
    this.#isCommitting = true;
    const updates = [...(await this.#rows.claim(outcomes)), ...outcomes];
    const waiting = this.#waitingForFlush;
    this.#waitingForFlush = [];
    const hasContent =
      built.messages.length + built.rejections.length + starts.length + updates.length > 0 || this.#rowsWrittenAtMs !== undefined;
    if (!hasContent && !this.#isPositionDue() && !journal.isSuperseded) {
      this.#isCommitting = false;
      for (const { resolve } of waiting) resolve();
      // Of those that make no message nothing is journaled but the place.
      this.#answerTriggers(built, []);
      return;
    }

    this.#rowsWrittenAtMs = undefined;
    const before = journal.journaled;
    // A keepalive may move `#passed` on during the commit: only what this batch says may be confirmed.
    const { position, endLsn, cursor } = this.#passed;
    try {
      const taken = await journal.commit({
        messages: built.messages,
        rejections: built.rejections,
        updates,
        starts,
        journaled: position,
        endLsn,
        cursor,
      });
      this.#isCommitting = false;
      this.#committedAtMs = this.#options.clock.monotonicMs();
      this.#counts.messages += taken.length;
      this.#counts.rejections += built.rejections.length;
      const owed = await this.#deliver(taken, before);
      source.confirm(endLsn);
      for (const { resolve } of waiting) resolve();
      dispatcher.journaled(updates);
      this.#answerTriggers(built, taken);
      await signal?.("journaled", { messages: taken, owed, updates });
      if (taken.length > 0) await dispatcher.room();
    } catch (error) {
      // They are in no list any more: nobody else would tell them. To those that were told already it says nothing.
      for (const { reject } of waiting) reject(ended());
      throw error;
    }
  }

  /** Journaled, then sent. */
  async #deliver(messages: readonly Message[], before: Position): Promise<readonly OwedMessage[]> {
    const leastId = leastIdOf(messages);
    if (leastId === undefined) return [];
    const { registry, dispatcher, journal } = this.#options;
    const owed: OwedMessage[] = [];
    for (const message of messages) for (const subscription of fanOut(message, registry)) owed.push({ message, subscription });
    const batch: BatchInFlight = { before, leastId, open: owed.length };
    journal.track(batch);
    for (const [index, { message, subscription }] of owed.entries()) {
      dispatcher.add(newDelivery(message, subscription, batch));
      // One occurrence may have a hundred thousand receivers.
      if ((index + 1) % mostDeliveries === 0) await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return owed;
  }

  #answerTriggers(built: Built, taken: readonly Message[]): void {
    if (built.triggers.length === 0) return;
    const ids = new Set(taken.map((message) => message.id));
    for (const { id, came } of built.triggers) {
      const isRefused = came.kind === "message" && !ids.has(came.messageId);
      this.#options.onTrigger(id, isRefused ? { kind: "rejected", rejectionId: rejectionIdOf(came.messageId) } : came);
    }
  }

  /** A source that cannot go on ends capture; outcomes are journaled all the same. */
  async #take(): Promise<readonly Captured[]> {
    if (!this.#hasWork()) return [];
    try {
      const { source, registry, maxOccurrences } = this.#options;
      return await source.take(Math.min(maxOccurrences, Math.max(fewest, Math.floor(mostDeliveries / Math.max(1, registry.widest)))));
    } catch (error) {
      // Delivery would go on from what the database does not know.
      if (error instanceof AncrageError && error.code === "ANCRAGE_JOURNAL_WENT_BACK") throw error;
      this.stopCapture(error);
      return [];
    }
  }

  /** Reads no more, and lets the slot go: whoever mends it must be able to drop it. Outcomes are journaled all the same. */
  stopCapture(error: unknown): void {
    if (this.#captureFailure !== undefined) return;
    this.#captureFailure = error;
    const words = error instanceof AncrageError ? error.toString() : String(error);
    this.#options.log.error({ err: error }, `capture stopped: ${words} Delivery and the API go on.`);
    void this.#options.source.stop();
    this.#options.onCaptureFailure?.(error);
  }

  #hasWork(): boolean {
    return this.#isReading && this.#captureFailure === undefined && this.#options.source.hasWork();
  }

  #isPositionDue(): boolean {
    const { journal, clock } = this.#options;
    if (this.#passed.endLsn <= journal.endLsn) return false;
    const isIdle = this.#passed.position === journal.journaled;
    return this.#isStopping || clock.monotonicMs() - this.#committedAtMs >= (isIdle ? idleMs : positionMs);
  }

  async #somethingToDo(): Promise<void> {
    const { source, journal, clock } = this.#options;
    const isDue = (): boolean =>
      this.#isStopping ||
      // The next commit says it; where nothing is to commit, nothing else would.
      journal.isSuperseded ||
      this.#hasWork() ||
      this.#waitingForFlush.length > 0 ||
      this.#rows.isRefused ||
      this.#updates.length >= lingerCount ||
      (this.#updates.length > 0 && clock.monotonicMs() - this.#firstUpdateAtMs >= lingerMs) ||
      (this.#rowsWrittenAtMs !== undefined && clock.monotonicMs() - this.#rowsWrittenAtMs >= lingerMs) ||
      this.#isPositionDue();
    while (!isDue()) {
      const woken = new Promise<void>((resolve) => (this.#wake = resolve));
      source.onWork(() => this.#wakeNow());
      this.#wakeAfter(this.#updates.length > 0 || this.#rowsWrittenAtMs !== undefined ? lingerMs : positionMs);
      await woken;
      clearTimeout(this.#timer);
    }
  }

  #wakeNow(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  #wakeAfter(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // A keepalive may have moved the idle position meanwhile.
      this.#noteIdle();
      this.#wakeNow();
    }, ms);
  }

  #noteIdle(): void {
    // What the server has read since may hold changes that capture lost.
    if (this.#captureFailure !== undefined) return;
    const { source } = this.#options;
    const idleLsn = source.idleLsn();
    if (idleLsn !== undefined && idleLsn > this.#passed.endLsn)
      this.#passed = { ...this.#passed, endLsn: idleLsn, cursor: source.cursor?.() };
  }
}

const ended = (): Error => new Error("the pipeline has ended: nothing more is journaled");
