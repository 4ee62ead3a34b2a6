import { hostname } from "node:os";
import type pg from "pg";
import type { TriggerCame } from "./build-messages.ts";
import { beginCapture, beginOutbox, loseCapture } from "./begin-capture.ts";
import { checkDatabase, type CheckedDatabase } from "./capture/check.ts";
import { createUnavailableSource } from "./capture/unavailable-source.ts";
import type { Reads } from "./capture/footing.ts";
import type { HealthLimits, HealthProblem, SlotHealth } from "./capture/health.ts";
import { LossError } from "./capture/loss.ts";
import { CaptureWatch } from "./capture/capture-watch.ts";
import type { Clock } from "./clock.ts";
import { createSource } from "./create-source.ts";
import { delayOf, faultDelaysMs } from "./delay-of.ts";
import type { Dispatcher } from "./deliver/dispatcher.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import type { JobRunner } from "./job/runner.ts";
import { defaultLeaseMs, Journal } from "./journal/journal.ts";
import { Leader, type Begun } from "./leader.ts";
import type { Logger } from "./log.ts";
import { formatLsn, parseLsn } from "./lsn.ts";
import type { CheckedOptions } from "./options.ts";
import { pause } from "./pause.ts";
import type { PayloadDeps } from "./payload/build.ts";
import { isPassingFault } from "./payload/fault.ts";
import type { Pipeline } from "./pipeline.ts";
import { refuseUrlElsewhere } from "./replication-place.ts";
import { readEpoch, type BatchRow } from "./store/batches.ts";
import { readLastRevision } from "./store/revisions.ts";
import type { SubscriptionRow } from "./store/subscriptions.ts";
import { changesAcknowledged } from "./subscription-watch.ts";
import type { ValueTypes } from "./store/types.ts";
import { LiveSubscriptions } from "./subscription/live.ts";
import type { Registry } from "./subscription/registry.ts";
import type { SecretKey } from "./subscription/secret.ts";
import type { TestSignal } from "./test-signal.ts";

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
  readonly leaseMs?: number | undefined;
  readonly signal?: TestSignal | undefined;
  /** How often what capture stands on is looked at. Default: 10 s. */
  readonly captureWatchMs?: number | undefined;
  /** From where on the state of the slot is a problem. Default: the usual limits. */
  readonly healthLimits?: Partial<HealthLimits> | undefined;
  /** How long reads of payloads that run out of time are waited for. Default: two minutes. */
  readonly readPatienceMs?: number | undefined;
  /** How often subscriptions whose time is over are looked for. Default: 5 s. */
  readonly subscriptionSweepMs?: number | undefined;
}

/**
 * - `starting`, then `standby` while another process leads, or `leading`.
 * - `failed`: it could not start, was superseded, or met a fault of its own.
 */
export type EngineState = "starting" | "standby" | "leading" | "stopped" | "failed";

/** One process: it leads, or waits as the standby of the one that does. */
export class Engine {
  readonly #options: EngineOptions;
  readonly #subscriptions: LiveSubscriptions;
  #state: EngineState = "starting";
  #journal: Journal | undefined;
  /** Undefined while another process leads. */
  #leader: Leader | undefined;
  /** Looks at the slot while this process leads. */
  #watch: CaptureWatch | undefined;
  /** What was lost, once it is noted as a gap. */
  #loss: AncrageError | undefined;
  /** Notes a gap; awaited by `stop`, whose caller ends the pools. */
  #losing: Promise<void> | undefined;
  #leading: Promise<void> | undefined;
  /** Why a standby could not take over. */
  #failure: unknown;
  /** What `start` does, and what it returns: that waits for the sessions to end where the first failed. */
  #started: Promise<void> | undefined;
  #starting: Promise<void> | undefined;
  #closing: Promise<void> | undefined;
  readonly #stopping = new AbortController();
  readonly #ended = Promise.withResolvers<unknown>();

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#subscriptions = new LiveSubscriptions(options);
  }

  get state(): EngineState {
    return this.#state;
  }

  get journal(): Journal | undefined {
    return this.#journal;
  }

  get dispatcher(): Dispatcher | undefined {
    return this.#leader?.dispatcher;
  }

  get jobs(): JobRunner | undefined {
    return this.#leader?.jobs;
  }

  get pipeline(): Pipeline | undefined {
    return this.#leader?.pipeline;
  }

  /** Why capture ended; undefined while it has not. */
  get failure(): unknown {
    return this.#loss ?? this.#leader?.pipeline.captureFailure ?? this.#failure;
  }

  /** Resolves with why, once all is over without having been asked to: this process was superseded, or met a fault. */
  get ended(): Promise<unknown> {
    return this.#ended.promise;
  }

  /** How the log is doing; undefined where another process leads, or before the first look. */
  get slotHealth(): SlotHealth | undefined {
    return this.#watch?.health;
  }

  get slotProblems(): readonly HealthProblem[] {
    return this.#watch?.problems ?? [];
  }

  /** Why subscriptions do not open here, by id: their deliveries wait until a start with the key that sealed them. */
  get unopened(): ReadonlyMap<string, unknown> {
    return this.#subscriptions.unopened;
  }

  /** Marks with our prefix that were not ours: unsigned, forged, or not transactional. */
  get ignoredMarks(): number {
    return this.#leader?.ignoredMarks ?? 0;
  }

  get registry(): Registry {
    return this.#subscriptions.registry;
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
    const { database, log, signal, db, catalogue, options, clock, leaseMs } = this.#options;
    const { sourceId } = await checkDatabase(db, { catalogue, environment: options.environment, capture: options.capture });
    if (this.#isStopping) throw stoppedMeanwhile();
    const journal = new Journal({
      connectionString: database,
      sourceId,
      processName: `${hostname()}:${process.pid}`,
      leaseMs,
      // What was held up while the lease had run out goes on.
      onRenewed: () => this.#leader?.dispatcher.journaled([]),
      clock,
      log,
      signal,
    });
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
        this.#failure = error;
        log.fatal({ err: error }, "this standby could not take over");
        this.#fail(error);
      });
    });
    if (this.#isStopping) throw this.#leader?.pipeline.failure ?? stoppedMeanwhile();
  }

  /**
   * A subscription was changed by this process's API. Here that counts at once; where another process leads, this waits until that one
   * heeds it, at most 5 s. What was just made needs no wait: where it begins is for the log to say.
   *
   * @throws AncrageError `ANCRAGE_CHANGE_UNHEEDED`
   */
  async subscriptionChanged(row: SubscriptionRow): Promise<void> {
    this.#leader?.changed(row);
    const wasMade = row.revision === row.startRevision && row.former.length === 0;
    // One whose lease has run out may not lead any more: whoever does is asked.
    if ((this.#leader !== undefined && this.#journal?.isLeased === true) || wasMade) return;
    const { deliveryDb, clock, log, leaseMs = defaultLeaseMs } = this.#options;
    let cause: unknown;
    try {
      if (await changesAcknowledged(deliveryDb, { leaseMs, clock, stopping: this.#stopping.signal })) return;
    } catch (error) {
      log.warn({ err: error, subscription: row.id }, "could not ask whether the process that leads heeds a change");
      cause = error;
    }
    throw new AncrageError(
      "ANCRAGE_CHANGE_UNHEEDED",
      `the change of ${row.id} is made, but the process that leads has not said that it heeds it: it may still send as before.`,
      { hint: "Send the request again: it is answered once that process heeds it, or nobody leads any more.", cause },
    );
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

  #fail(error: unknown): void {
    this.#state = "failed";
    void this.#close().finally(() => this.#ended.resolve(error));
  }

  #close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  async #closeAll(): Promise<void> {
    this.#stopping.abort();
    // A standby is waiting in `lead`, or a start for the slot; that ends with the sessions.
    await (this.#leader === undefined ? this.#journal?.stop() : this.#leader.interrupt());
    await this.#started?.catch(() => undefined);
    await this.#leading?.catch(() => undefined);
    // What it looks at may have no answer for half a minute: the lead is not kept for that.
    const watched = this.#watch?.stop();
    await this.#losing;
    await (this.#leader === undefined ? this.#journal?.stop() : this.#leader.stop());
    await watched;
  }

  async #lead(journal: Journal, sourceId: string, onStandby: () => void): Promise<void> {
    const { log, catalogue } = this.#options;
    const last = await journal.lead(onStandby);
    if (last === "stopped" || this.#isStopping) return;
    const { checked, begun, captureFailure } = await this.#patiently(() => this.#begin(sourceId, last));
    journal.begin(begun.endLsn);
    const source =
      captureFailure === undefined ? createSource(journal, checked, this.#options) : createUnavailableSource(sourceId, captureFailure);
    this.#loss = captureFailure;
    this.#leader = new Leader({
      ...this.#options,
      source,
      journal,
      subscriptions: this.#subscriptions,
      begun,
      patiently: (work) => this.#patiently(work),
      onFailure: () => this.#fail(this.#leader?.pipeline.failure),
      onCaptureFailure: (error) => {
        this.#losing ??= this.#lose(checked, error);
      },
    });
    try {
      await this.#leader.start();
    } catch (error) {
      // What was asked to end may break off in any way.
      if (!this.#isStopping) throw error;
    }
    if (this.#isStopping) return;
    this.#state = "leading";
    await this.#options.signal?.("leading", this.#leader);
    this.#watch = this.#createWatch(checked, { pipeline: this.#leader.pipeline, reads: () => source.reads ?? readsOf(checked) });
    this.#watch.start();
    if ((captureFailure ?? this.#leader.pipeline.captureFailure) !== undefined) return;
    log.info({ from: formatLsn(begun.endLsn), subscriptions: this.registry.size, events: catalogue.events.size }, "capture streams");
  }

  /** Asked when the lead is taken, and not before: while this process waited, the one before it went on. */
  async #begin(sourceId: string, last: BatchRow | undefined): Promise<BegunLead> {
    const { db, catalogue, options, log } = this.#options;
    const checked = await checkDatabase(db, { catalogue, environment: options.environment, capture: options.capture });
    const epoch = await readEpoch(db, sourceId);
    const revision = await readLastRevision(db);
    const { endLsn, failure } =
      readsOf(checked) === "log"
        ? await beginCapture(db, checked, catalogue, log)
        : await beginOutbox(db, { checked, catalogue, log, last });
    // Where nothing is to be read, delivery goes on whatever that URL leads to.
    if (readsOf(checked) === "log" && failure === undefined && options.replicationUrl !== undefined)
      await refuseUrlElsewhere(db, options.replicationUrl);
    await this.#subscriptions.load();
    const markKey = checked.settings.triggerKey;
    return { checked, begun: { last, epoch, endLsn, revision, markKey }, captureFailure: failure };
  }

  #createWatch(
    { names, server }: CheckedDatabase,
    { pipeline, reads }: { readonly pipeline: Pipeline; readonly reads: () => Reads },
  ): CaptureWatch {
    const { db, catalogue, clock, log, signal, captureWatchMs = 10_000, healthLimits } = this.#options;
    return new CaptureWatch({
      db,
      names,
      catalogue,
      reads,
      seenRight: { lsn: parseLsn(server.flushLsn), at: new Date(clock.nowMs()) },
      isCapturing: () => pipeline.captureFailure === undefined,
      onAltered: (what, { lsn, at }) => pipeline.stopCapture(new LossError({ reason: "capture-altered", what, fromLsn: lsn, fromAt: at })),
      onLook: () => signal?.("watched"),
      intervalMs: captureWatchMs,
      limits: healthLimits,
      clock,
      log,
    });
  }

  /** Notes what was lost as a gap: by it the next start, whoever makes it, knows where nothing was seen. */
  async #lose(checked: CheckedDatabase, error: unknown): Promise<void> {
    if (!(error instanceof AncrageError) || !lossCodes.has(error.code)) return;
    for (let attempt = 0; !this.#isStopping; attempt++) {
      try {
        this.#loss = await loseCapture(this.#options.db, checked, error);
        return;
      } catch (fault) {
        this.#options.log.warn({ err: fault }, "the gap could not be noted; trying again");
        await pause(delayOf(faultDelaysMs, attempt), this.#stopping.signal);
      }
    }
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
}

const readsOf = ({ reads }: CheckedDatabase): Reads => (reads === "log" || reads === "log-until-switch" ? "log" : "outbox");

interface BegunLead {
  readonly checked: CheckedDatabase;
  readonly begun: Begun;
  /** Why nothing can be captured. */
  readonly captureFailure: AncrageError | undefined;
}

/** Capture ended with changes that were not seen, and not with a fault of this process. */
const lossCodes: ReadonlySet<string> = new Set(["ANCRAGE_SLOT_LOST", "ANCRAGE_CAPTURE_ALTERED"]);

const stoppedMeanwhile = (): AncrageError => new AncrageError("ANCRAGE_COMMAND_FAILED", "this instance was stopped while it was starting.");
