import { hostname } from "node:os";
import type pg from "pg";
import { Backlog } from "./backlog.ts";
import type { TriggerCame } from "./build-messages.ts";
import { checkDatabase, type CheckedDatabase } from "./capture/check.ts";
import { sourceIdOf } from "./capture/wal/slot.ts";
import { WalSource } from "./capture/wal/source.ts";
import type { Clock } from "./clock.ts";
import { delayOf, faultDelaysMs } from "./delay-of.ts";
import { DeletionWatch, deletionsAcknowledged } from "./deletion-watch.ts";
import { Dispatcher } from "./deliver/dispatcher.ts";
import { newDelivery } from "./deliver/delivery.ts";
import { createSender, type Sender } from "./deliver/send.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import { Journal } from "./journal/journal.ts";
import { fanOutUnsettled } from "./journal/restart.ts";
import type { Logger } from "./log.ts";
import { formatLsn, parseLsn } from "./lsn.ts";
import type { CheckedOptions } from "./options.ts";
import type { PayloadDeps } from "./payload/build.ts";
import { isPassingFault } from "./payload/fault.ts";
import { Pipeline } from "./pipeline.ts";
import { atMost, pause } from "./pause.ts";
import { computeResumePosition } from "./resume-position.ts";
import { readEpoch, type BatchRow } from "./store/batches.ts";
import { readGapFrom } from "./store/gaps.ts";
import { readUnsettled } from "./store/resume.ts";
import { readLastRevision } from "./store/revisions.ts";
import { readLiveSubscriptions, readSubscription, type SubscriptionRow } from "./store/subscriptions.ts";
import type { ValueTypes } from "./store/types.ts";
import { holdSubscription, openSubscription } from "./subscription/open.ts";
import { createRegistry, type Registry, type Subscription } from "./subscription/registry.ts";
import type { SecretKey } from "./subscription/secret.ts";
import type { TestSignal } from "./test-signal.ts";
import { version } from "./version.ts";

export interface EngineOptions {
  readonly database: string;
  readonly options: CheckedOptions;
  readonly secretKey: SecretKey;
  readonly catalogue: Catalogue;
  readonly types: ValueTypes;
  readonly payload: PayloadDeps;
  /** What capture reads with: subscriptions, and what must hold before a start. */
  readonly db: pg.Pool;
  /** What delivery reads the journal with, and nobody else. */
  readonly deliveryDb: pg.Pool;
  readonly onTrigger: (id: string, came: TriggerCame) => void;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal?: TestSignal | undefined;
}

/**
 * - `starting`, then `standby` while another process leads, or `leading`.
 * - `failed`: it could not start, was superseded, or met a fault of its own.
 */
export type EngineState = "starting" | "standby" | "leading" | "stopped" | "failed";

const graceMs = 10_000;
const connectionsPerOrigin = 256;

/** What a process runs while it leads: one source, one journal, one dispatcher, and the loop between them. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #registry: Registry = createRegistry();
  /** Written by `#open`. */
  readonly #unopened = new Map<string, unknown>();
  #state: EngineState = "starting";
  #journal: Journal | undefined;
  #source: WalSource | undefined;
  #sender: Sender | undefined;
  #dispatcher: Dispatcher | undefined;
  #pipeline: Pipeline | undefined;
  #backlog: Backlog | undefined;
  #deletions: DeletionWatch | undefined;
  #leading: Promise<void> | undefined;
  /** Why a standby could not take over. */
  #failure: unknown;
  /** What `start` does, and what it returns: that waits for the sessions to end where the first failed. */
  #started: Promise<void> | undefined;
  #starting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  /** The loop has begun. */
  #isRunning = false;
  readonly #stopping = new AbortController();

  constructor(options: EngineOptions) {
    this.#options = options;
  }

  get state(): EngineState {
    return this.#state;
  }

  get journal(): Journal | undefined {
    return this.#journal;
  }

  get dispatcher(): Dispatcher | undefined {
    return this.#dispatcher;
  }

  get pipeline(): Pipeline | undefined {
    return this.#pipeline;
  }

  /** Why capture ended; undefined while it has not. */
  get failure(): unknown {
    return this.#pipeline?.captureFailure ?? this.#failure;
  }

  /** Why subscriptions do not open here, by id: their deliveries wait until a start with the key that sealed them. */
  get unopened(): ReadonlyMap<string, unknown> {
    return this.#unopened;
  }

  /** Logical messages with our prefix that were not ours: unsigned, forged, or not transactional. */
  get ignoredMarks(): number {
    return this.#source?.ignoredMarks ?? 0;
  }

  get registry(): Registry {
    return this.#registry;
  }

  /**
   * Resolves when capture streams, or when this process waits as a standby. One that fails leaves no session open.
   *
   * @throws AncrageError
   */
  start(): Promise<void> {
    if (this.#starting === undefined) {
      this.#started = this.#start();
      this.#starting = this.#started.catch(async (error: unknown) => {
        this.#state = "failed";
        await this.#close();
        throw error;
      });
    }
    return this.#starting;
  }

  async #start(): Promise<void> {
    const { database, log, signal, db, catalogue, options } = this.#options;
    const { systemIdentifier, databaseOid } = await checkDatabase(db, { catalogue, environment: options.environment });
    if (this.#isStopping) throw stoppedMeanwhile();
    const sourceId = sourceIdOf(systemIdentifier, databaseOid);
    const journal = new Journal({ connectionString: database, sourceId, processName: `${hostname()}:${process.pid}`, log, signal });
    this.#journal = journal;
    await new Promise<void>((resolve, reject) => {
      this.#leading = this.#lead(journal, sourceId, () => {
        this.#state = "standby";
        log.info("another process leads; this one waits as its standby");
        resolve();
      });
      this.#leading.then(resolve, (error: unknown) => {
        reject(error instanceof Error ? error : new Error(String(error)));
        if (this.#state !== "standby") return;
        this.#state = "failed";
        this.#failure = error;
        log.fatal({ err: error }, "this standby could not take over");
        void this.#close();
      });
    });
    if (this.#isStopping) throw this.#pipeline?.failure ?? stoppedMeanwhile();
  }

  /**
   * A subscription was changed by this process's API. A deletion counts at once here; where another process leads, this waits until
   * that one heeds it, at most 5 s.
   */
  async subscriptionChanged(row: SubscriptionRow): Promise<void> {
    if (row.state !== "deleted") return;
    this.#remove(row);
    if (this.#state === "leading") return;
    try {
      await deletionsAcknowledged(this.#options.deliveryDb, this.#stopping.signal);
    } catch (error) {
      this.#options.log.warn({ err: error, subscription: row.id }, "could not ask whether the process that leads heeds a deletion");
    }
  }

  #remove({ id, revision }: Pick<SubscriptionRow, "id" | "revision">): void {
    const wasThere = this.#registry.get(id) !== undefined;
    this.#registry.remove(id, revision);
    this.#unopened.delete(id);
    if (!wasThere) return;
    this.#dispatcher?.changed(id);
    // Not waited for: a journal that refuses must not hold the answer up, and the loop itself may be the caller, when it comes to a
    // deletion in the log.
    this.#backlog?.cancel(id);
  }

  /** Reads no more, finishes what is in flight, journals it, confirms it. Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#close();
    if (this.#state !== "failed") this.#state = "stopped";
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  #close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    this.#stopping.abort();
    if (!this.#isRunning) {
      // A standby is waiting in `lead`, or a start for the slot; that ends with the sessions.
      await this.#journal?.stop();
      await this.#source?.stop();
    }
    await this.#started?.catch(() => undefined);
    await this.#leading?.catch(() => undefined);
    await this.#dispatcher?.stop(graceMs);
    const ended = this.#pipeline?.stop();
    // A journal that refuses would hold the end up for as long as it does. What it did not take is sent again after a restart.
    await atMost(graceMs, ended);
    await this.#journal?.stop();
    await ended;
    await this.#backlog?.stop();
    await this.#deletions?.stop();
    await this.#source?.stop();
    await this.#sender?.close();
  }

  async #lead(journal: Journal, sourceId: string, onStandby: () => void): Promise<void> {
    const { clock, log, catalogue, payload, options, signal, onTrigger, db, deliveryDb } = this.#options;
    const last = await journal.lead(onStandby);
    if (last === "stopped" || this.#isStopping) return;
    // Asked once more: while this process waited, the one before it went on.
    const { checked, epoch, endLsn, revision } = await this.#patiently(async () => {
      const found = await checkDatabase(db, { catalogue, environment: options.environment });
      const begun = {
        checked: found,
        epoch: await readEpoch(db, sourceId),
        endLsn: await this.#resumeAt(last, found),
        revision: await readLastRevision(db),
      };
      await this.#loadSubscriptions();
      return begun;
    });
    journal.begin(endLsn);

    const source = this.#createSource(sourceId, checked);
    this.#source = source;
    const sender = createSender({
      allowNetworks: options.allowNetworks,
      timeoutMs: options.delivery.timeoutMs,
      connectionsPerOrigin,
      version,
      clock,
    });
    this.#sender = sender;
    const dispatcher = new Dispatcher({
      sender,
      subscription: (id) => this.#registry.get(id),
      retry: { scheduleS: options.retry.schedule, jitter: options.retry.jitter },
      record: (update) => pipeline.record(update),
      refill: (lane, limit, isInMemory) => backlog.refill(lane, limit, isInMemory),
      // What could not be journaled any more is for whoever leads now.
      maySend: () => journal.state.kind === "ok" && !pipeline.hasEnded,
      clock,
      log,
      signal,
    });
    this.#dispatcher = dispatcher;
    const pipeline = new Pipeline({
      source,
      catalogue,
      payload,
      journal,
      registry: this.#registry,
      dispatcher,
      readSubscription: (id, startLsn) => this.#readSubscription(id, startLsn),
      onTrigger,
      onFailure: () => {
        this.#state = "failed";
        void this.#close();
      },
      maxOccurrences: options.batch.maxOccurrences,
      clock,
      log,
      signal,
    });
    this.#pipeline = pipeline;
    const backlog = new Backlog({ db: deliveryDb, registry: this.#registry, dispatcher, flushed: () => pipeline.flushed(), log });
    this.#backlog = backlog;

    await this.#patiently(() => source.start({ endLsn, journaled: journal.journaled }));
    dispatcher.start();
    if (last !== undefined) {
      const batch = await fanOutUnsettled({
        readPage: (page) => this.#patiently(() => readUnsettled(deliveryDb, page)),
        last,
        registry: this.#registry,
        deliver: (message, subscription, waiting) => dispatcher.add(newDelivery(message, subscription, waiting)),
      });
      if (batch !== undefined) journal.track(batch);
    }
    pipeline.start(endLsn);
    this.#isRunning = true;
    backlog.start();
    this.#deletions = new DeletionWatch({
      db: deliveryDb,
      source: sourceId,
      epoch,
      from: revision,
      onDeleted: (deleted) => this.#remove(deleted),
      log,
    });
    this.#deletions.start();
    if (this.#isStopping) return;
    this.#state = "leading";
    log.info({ from: formatLsn(endLsn), subscriptions: this.#registry.size, events: catalogue.events.size }, "capture streams");
  }

  /** A standby takes over at the very moment that the database fails over: it waits out what passes by itself. A first start says it. */
  async #patiently<Result>(work: () => Promise<Result>): Promise<Result> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (this.#state !== "standby" || this.#isStopping || !isPassingFault(error)) throw error;
        this.#options.log.warn({ err: error }, "this standby could not take over yet; trying again");
        await pause(delayOf(faultDelaysMs, attempt), this.#stopping.signal);
      }
    }
  }

  async #resumeAt(last: BatchRow | undefined, checked: CheckedDatabase): Promise<bigint> {
    const confirmedLsn = parseLsn(checked.confirmedLsn);
    const gap =
      last !== undefined && confirmedLsn > last.endLsn ? await readGapFrom(this.#options.db, last.source, last.endLsn) : undefined;
    const { endLsn, isAfterGap } = computeResumePosition({
      slot: checked.names.slot,
      journalEndLsn: last?.endLsn,
      confirmedLsn,
      flushLsn: parseLsn(checked.flushLsn),
      gapEndLsn: gap?.toLsn,
    });
    if (isAfterGap) {
      this.#options.log.warn(
        { from: formatLsn(last?.endLsn ?? 0n), to: formatLsn(endLsn), since: gap?.fromAt },
        "a gap: changes between the journal's end and the new slot were not seen",
      );
    }
    return endLsn;
  }

  #createSource(sourceId: string, checked: CheckedDatabase): WalSource {
    const { database, options, catalogue, types, clock, log } = this.#options;
    return new WalSource({
      connectionString: database,
      replicationUrl: options.replicationUrl ?? database,
      slot: checked.names.slot,
      publications: [checked.names.publication, checked.names.insertPublication],
      sourceId,
      tables: catalogue.allTables,
      types,
      triggerKey: checked.settings.triggerKey,
      clock,
      log,
    });
  }

  /** @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID` where no subscription opens at all: then it is the key that is wrong */
  async #loadSubscriptions(): Promise<void> {
    const rows = await readLiveSubscriptions(this.#options.db);
    for (const row of rows) {
      const subscription = this.#open(row, row.startLsn ?? 0n);
      // One that the stream has not come to yet is put in when it does.
      if (row.startLsn !== null) this.#registry.put(subscription);
    }
    const [failure] = this.#unopened.values();
    if (failure !== undefined && this.#unopened.size === rows.length) throw failure;
  }

  /** One that does not open must not end capture and delivery for all others: it is kept, with nothing sent, and named. */
  #open(row: SubscriptionRow, startLsn: bigint): Subscription {
    try {
      const subscription = openSubscription(this.#options.secretKey, row, startLsn, new Date(this.#options.clock.nowMs()));
      this.#unopened.delete(row.id);
      return subscription;
    } catch (error) {
      if (!this.#unopened.has(row.id)) {
        this.#options.log.error({ err: error, subscription: row.id }, "a subscription does not open; its deliveries wait in the journal");
      }
      this.#unopened.set(row.id, error);
      return holdSubscription(row, startLsn);
    }
  }

  async #readSubscription(id: string, startLsn: bigint): Promise<Subscription | undefined> {
    const row = await readSubscription(this.#options.db, id);
    if (row === undefined || row.state === "deleted") {
      if (row !== undefined) this.#remove(row);
      // Also one that this process never knew: it may have been deleted while nobody led.
      this.#backlog?.cancel(id);
      return undefined;
    }
    return this.#open(row, row.startLsn ?? startLsn);
  }
}

const stoppedMeanwhile = (): AncrageError => new AncrageError("ANCRAGE_COMMAND_FAILED", "this instance was stopped while it was starting.");
