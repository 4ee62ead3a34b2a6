import { createSecretKey } from "node:crypto";
import { Backlog } from "./backlog.ts";
import type { ChangeSource } from "./capture/change.ts";
import { Dispatcher } from "./deliver/dispatcher.ts";
import { newDelivery } from "./deliver/delivery.ts";
import { createSender, type Sender } from "./deliver/send.ts";
import type { EngineOptions } from "./engine.ts";
import { AncrageError } from "./errors.ts";
import { JobRunner } from "./job/runner.ts";
import type { Journal, LastBatch } from "./journal/journal.ts";
import { tellExpired } from "./journal/tell-expired.ts";
import { Retention } from "./journal/retention.ts";
import { fanOutUnsettled } from "./journal/restart.ts";
import { atMost } from "./pause.ts";
import { Pipeline } from "./pipeline.ts";
import type { DeliveryKey } from "./store/deliveries.ts";
import { readUnsettled } from "./store/resume.ts";
import type { SubscriptionRow } from "./store/subscriptions.ts";
import { SubscriptionCare } from "./subscription-care.ts";
import { SubscriptionWatch } from "./subscription-watch.ts";
import { HealthBook } from "./subscription/health-book.ts";
import type { LiveSubscriptions } from "./subscription/live.ts";
import { isElsewhere } from "./subscription/registry.ts";
import { version } from "./version.ts";
import { deliveryNameOf } from "./message.ts";

export interface LeaderOptions extends EngineOptions {
  readonly source: ChangeSource;
  readonly journal: Journal;
  readonly subscriptions: LiveSubscriptions;
  readonly begun: Begun;
  /** Waits out what passes by itself, where a standby takes over. */
  readonly patiently: <Result>(work: () => Promise<Result>) => Promise<Result>;
  /** Everything ended by a fault, and another process may lead: slot and lock were let go. */
  readonly onFailure: () => void;
  /** Capture ended by a fault; delivery goes on. */
  readonly onCaptureFailure: (error: unknown) => void;
}

/** What a process finds when it begins to lead. */
export interface Begun {
  readonly last: Exclude<LastBatch, undefined> | undefined;
  readonly epoch: bigint;
  /** Where the log is read from. */
  readonly endLsn: bigint;
  /** The last revision of a subscription that was given out before they were read. */
  readonly revision: bigint;
  /** What `ancrage.emit` signs with. */
  readonly markKey: Buffer;
}

/** What runs while a process leads: one source, one journal, one dispatcher, and the loop between them. */
export class Leader {
  readonly dispatcher: Dispatcher;
  readonly pipeline: Pipeline;
  readonly #options: LeaderOptions;
  readonly #sender: Sender;
  readonly #backlog: Backlog;
  readonly #watch: SubscriptionWatch;
  readonly jobs: JobRunner;
  readonly #care: SubscriptionCare;
  readonly #health: HealthBook;
  readonly retention: Retention;
  #isRunning = false;

  constructor(options: LeaderOptions) {
    this.#options = options;
    const { source, journal, subscriptions, begun, options: given, clock, log, signal, deliveryDb } = options;
    const { registry } = subscriptions;
    this.#sender = createSender({
      allowNetworks: given.allowNetworks,
      timeoutMs: given.delivery.timeoutMs,
      connectionsPerOrigin: given.delivery.connectionsPerOrigin,
      causeKey: createSecretKey(begun.markKey),
      version,
      clock,
    });
    const mayLead = (): boolean => journal.isLeased && !this.pipeline.hasEnded;
    this.dispatcher = new Dispatcher({
      // A process that stood still for a while finds requests that wait for a connection, and another process that leads.
      sender: {
        ...this.#sender,
        send: (attempt, done) => this.#sender.send({ ...attempt, isWanted: () => mayLead() && attempt.isWanted() }, done),
      },
      subscription: (id) => registry.get(id),
      retry: { scheduleS: given.retry.schedule, jitter: given.retry.jitter },
      record: (update) => this.pipeline.record(update),
      refill: (request) => this.#backlog.refill(request),
      connectionsPerOrigin: given.delivery.connectionsPerOrigin,
      onDisable: (id, why) => this.#care.disable(id, why),
      onHealth: (id, health) => this.#health.note(id, health),
      initialHealth: (id) => this.#health.get(id),
      // What could not be journaled any more is for whoever leads now.
      maySend: () => journal.maySend && !this.pipeline.hasEnded,
      // Retries are due by the database's clock, whatever this host's says.
      clock: { nowMs: () => journal.databaseNowMs, monotonicMs: () => clock.monotonicMs() },
      log,
      signal,
    });
    this.pipeline = new Pipeline({
      source,
      catalogue: options.catalogue,
      payload: options.payload,
      journal,
      registry,
      dispatcher: this.dispatcher,
      refreshSubscription: (id) => this.#refresh(id),
      onParked: (parked) => this.#care.tellParked(parked),
      onTrigger: options.onTrigger,
      onFailure: options.onFailure,
      onCaptureFailure: options.onCaptureFailure,
      maxOccurrences: given.batch.maxOccurrences,
      readPatienceMs: options.readPatienceMs,
      clock,
      log,
      signal,
    });
    const flushed = (): Promise<void> => this.pipeline.flushed();
    this.#backlog = new Backlog({ db: deliveryDb, registry, dispatcher: this.dispatcher, flushed, log });
    this.#health = new HealthBook({ db: deliveryDb, log });
    this.#care = new SubscriptionCare({
      db: deliveryDb,
      subscriptions,
      onChanged: (row) => this.changed(row),
      clock,
      log,
      sweepMs: options.subscriptionSweepMs,
    });
    this.#watch = new SubscriptionWatch({
      db: deliveryDb,
      source: source.sourceId,
      epoch: begun.epoch,
      from: begun.revision,
      onChanged: async (change) => {
        if (change.isDeleted) this.#removed(change);
        else if (!registry.knows(change.id, change.revision)) await this.#refresh(change.id);
      },
      log,
    });
    const onCanceled = (deliveries: readonly DeliveryKey[]): void => {
      const keys = new Set(deliveries.map(deliveryNameOf));
      this.dispatcher.cancelWhere(({ message, subscriptionId }) => keys.has(deliveryNameOf({ messageId: message.id, subscriptionId })));
    };
    this.retention = new Retention({
      ...given.retention,
      db: deliveryDb,
      connectionString: options.database,
      onCanceled,
      onExpired: (client, expired) => tellExpired(client, expired, clock),
      log,
    });
    this.jobs = new JobRunner({
      db: deliveryDb,
      reads: options.db,
      sourceId: source.sourceId,
      catalogue: options.catalogue,
      payload: options.payload,
      passedLsn: () => this.pipeline.passedLsn,
      unpark: (name) => this.pipeline.unpark(name),
      onCanceled,
      wake: (subscriptionId, jobId) => this.dispatcher.added(subscriptionId, jobId),
      dropLane: (jobId) => void this.dispatcher.cancelWhere((delivery) => delivery.jobId === jobId),
      clock,
      log,
    });
  }

  get ignoredMarks(): number {
    return this.#options.source.ignoredMarks;
  }

  /**
   * Resolves when capture streams, or has ended with a slot that is lost.
   *
   * @throws AncrageError of the source, but for that
   */
  async start(): Promise<void> {
    const { source, journal, subscriptions, begun, patiently, deliveryDb } = this.#options;
    const { last, endLsn } = begun;
    await patiently(() => source.start({ endLsn, journaled: journal.journaled, cursor: last?.cursor })).catch((error: unknown) => {
      if (!(error instanceof AncrageError) || error.code !== "ANCRAGE_SLOT_LOST") throw error;
      this.pipeline.stopCapture(error);
    });
    await patiently(() => this.#health.load());
    // What was changed since the subscriptions were read, and its change answered because nobody led, counts for the first request.
    await patiently(() => this.#watch.look());
    this.#watch.start();
    this.dispatcher.start();
    if (last !== undefined) {
      const batch = await fanOutUnsettled({
        readPage: (page) => patiently(() => readUnsettled(deliveryDb, page)),
        last,
        registry: subscriptions.registry,
        deliver: (message, subscription, waiting) => this.dispatcher.add(newDelivery(message, subscription, waiting)),
      });
      if (batch !== undefined) journal.track(batch);
    }
    this.pipeline.start(endLsn);
    this.#isRunning = true;
    this.#backlog.start();
    this.jobs.start();
    this.#care.start();
    this.#health.start();
    this.retention.start();
  }

  /** Ends a start that waits for the slot. */
  async interrupt(): Promise<void> {
    if (this.#isRunning) return;
    await this.#options.journal.stop();
    await this.#options.source.stop();
  }

  /** Reads no more, finishes what is in flight or leaves it to the next one, journals what came of it, confirms that. */
  async stop(): Promise<void> {
    const { journal, source, options } = this.#options;
    const graceMs = options.shutdown.graceS * 1_000;
    this.pipeline.stopReading();
    // Nobody waits for what is in the middle of a long statement: the lead would be kept from the next one for it. What a page still
    // makes counts only while nobody has gone on with its job, and days may be looked after by two.
    await Promise.all([atMost(graceMs, this.jobs.stop()), atMost(graceMs, this.retention.stop()), this.dispatcher.stop(graceMs)]);
    const ended = this.pipeline.stop();
    // A journal that refuses would hold the end up for as long as it does. What it did not take is sent again after a restart.
    await atMost(graceMs, ended);
    await journal.stop();
    // It confirms what was journaled last. A read that has no answer, for which the loop may wait, ends with it.
    await source.stop();
    await ended;
    await this.#backlog.stop();
    await this.#watch.stop();
    await this.#care.stop();
    await this.#health.stop();
    await this.#sender.close();
  }

  /** Once this returns nothing more is begun as it was before: to one that was paused, disabled or deleted nothing at all. */
  changed(row: SubscriptionRow): void {
    if (row.state === "deleted") {
      this.#removed(row);
      return;
    }
    const { subscriptions } = this.#options;
    const known = subscriptions.registry.get(row.id);
    subscriptions.put(row);
    // Of one that was just made nothing waits.
    if (known === undefined) return;
    const hasMoved = isElsewhere(known, subscriptions.registry.get(row.id));
    if (hasMoved || (known.state === "disabled" && row.state !== "disabled")) this.#health.forgive(row.id);
    this.dispatcher.changed(row.id, hasMoved);
  }

  #removed(row: Pick<SubscriptionRow, "id" | "revision">): void {
    if (!this.#options.subscriptions.remove(row)) return;
    this.dispatcher.changed(row.id);
    // Not waited for: a journal that refuses must not hold the answer up, and the loop itself may be the caller, when it comes to a
    // deletion in the log.
    this.#backlog.cancel(row.id);
  }

  /** @returns whether it is there */
  async #refresh(id: string): Promise<boolean> {
    const row = await this.#options.subscriptions.read(id);
    if (row !== undefined) this.changed(row);
    if (row !== undefined && row.state !== "deleted") return true;
    // Also one that this process never knew: it may have been deleted while nobody led.
    this.#backlog.cancel(id);
    return false;
  }
}
