import type pg from "pg";
import { startOfLog, type Position } from "../capture/change.ts";
import { systemClock, type Clock } from "../clock.ts";
import { delayOf, journalDelaysMs } from "../delay-of.ts";
import { sqlStateOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { BatchInFlight, DeliveryUpdate, Message, Rejection } from "../message.ts";
import { pause } from "../pause.ts";
import { deleteOldBatches, ensurePartitions, readLastBatch, type BatchRow } from "../store/batches.ts";
import { readTimeline } from "../store/capture-state.ts";
import type { Queryable } from "../store/database.ts";
import { journalLock, rowsLock } from "../store/leaders.ts";
import type { TestSignal } from "../test-signal.ts";
import { dayOfMessage, formatDay, leastIdOf } from "../message-id.ts";
import { commitAlone } from "./commit-alone.ts";
import { Lease } from "./lease.ts";
import { BatchRefused, classifyRefusal, isOver, journalWentBack, stoppedWhileRefusing, superseded, timelineChanged } from "./refusal.ts";
import { RowWriter } from "./row-writer.ts";
import { JournalSession } from "./session.ts";
import { computeSettled } from "./settled.ts";
import { splitBatch } from "./split.ts";
import { writeBatch } from "./write-batch.ts";

/** What is journaled in one transaction. Messages and rejections are in the order of their positions. */
export interface Batch {
  readonly messages: readonly Message[];
  readonly rejections: readonly Rejection[];
  readonly updates: readonly DeliveryUpdate[];
  /** Subscriptions whose place in the log was passed. */
  readonly starts: readonly SubscriptionStart[];
  /** Everything up to here is in the journal once this batch is. */
  readonly journaled: Position;
  readonly endLsn: bigint;
  /** What the source needs beside `journaled` to go on from there. */
  readonly cursor?: string | undefined;
}

export interface SubscriptionStart {
  readonly id: string;
  readonly revision: bigint;
  readonly lsn: bigint;
}

/** Where an earlier process stopped; `undefined` where none ever journaled anything. */
export type LastBatch = BatchRow | undefined;

export interface JournalOptions {
  readonly connectionString: string;
  readonly sourceId: string;
  /** Who leads, for people: host and process id. */
  readonly processName: string;
  readonly log: Logger;
  /** For how long one answer of the database lets this process send and commit. @default 3500 */
  readonly leaseMs?: number | undefined;
  /** The lease holds again, after a renewal: what waited for it may go on. */
  readonly onRenewed?: () => void;
  readonly clock?: Clock;
  readonly signal?: TestSignal | undefined;
}

/**
 * - `ok`: the last batch was taken.
 * - `refusing`: the database takes no batch now; nothing new is read or sent until it does. `/readyz` says so.
 */
export type JournalState = { readonly kind: "ok" } | { readonly kind: "refusing"; readonly since: Date; readonly because: string };

/**
 * A standby takes over once it has run out, and is to lead within 5 s of a death. Shorter would pause on each hiccup of the database.
 */
export const defaultLeaseMs = 3_500;
/** Batches below this many are history. */
const keptBatches = 10_000n;

/**
 * The durable record. One process appends to it at a time, one batch after another.
 *
 * Who may is decided by the lease, and made certain by the database: the session that writes holds a lock, each leader has an epoch, and
 * a batch's number can be inserted once.
 */
export class Journal {
  readonly #options: JournalOptions;
  readonly #lease: Lease;
  readonly #session: JournalSession;
  readonly #rows: RowWriter;
  /** The number of the last batch that is in. */
  #number = 0n;
  #journaled: Position = startOfLog;
  #cursor: string | undefined;
  #endLsn = 0n;
  /** Journaled batches with deliveries that have no row yet, in order. Filled by `track`; done ones leave when a commit has passed. */
  readonly #inFlight: BatchInFlight[] = [];
  readonly #ensuredDays = new Set<number>();
  #state: JournalState = { kind: "ok" };
  /** Of the server, when the lead was taken. Undefined before. */
  #timeline: number | undefined;
  readonly #stopping = new AbortController();

  constructor(options: JournalOptions) {
    this.#options = options;
    const { leaseMs = defaultLeaseMs, clock = systemClock, onRenewed } = options;
    this.#lease = new Lease({
      ...options,
      leaseMs,
      clock,
      onRenewed: () => onRenewed?.(),
      // A commit that waits for the database must not wait for ever.
      onSuperseded: () => {
        void this.#session.drop();
        void this.#rows.drop();
      },
    });
    const session = (lock: string, applicationName: string): JournalSession =>
      new JournalSession({
        ...options,
        lock,
        applicationName,
        leaseMs,
        lease: this.#lease,
        assertWhole: (client) => this.assertWhole(client),
      });
    this.#session = session(journalLock(options.sourceId), "ancrage journal");
    this.#rows = new RowWriter(session(rowsLock(options.sourceId), "ancrage rows"), this.#lease);
  }

  get state(): JournalState {
    // Another process has the journal: what that takes is not for this one to say.
    if (this.#lease.isSuperseded) return { kind: "ok" };
    if (this.#state.kind === "refusing" || this.#isStopped || this.#lease.epoch === 0n || this.#lease.isHeld) return this.#state;
    return { kind: "refusing", since: new Date(Date.now() - this.#lease.silentMs), because: leaseRanOut };
  }

  /** Asked before each send: the lease holds, and the journal takes what comes of it. */
  get maySend(): boolean {
    return this.#state.kind === "ok" && this.#lease.isHeld;
  }

  /** Asked again when a connection for it is there: a request that has begun to wait for one may go on while the journal refuses. */
  get isLeased(): boolean {
    return this.#lease.isHeld;
  }

  /** Another process leads: the next `commit` throws. */
  get isSuperseded(): boolean {
    return this.#lease.isSuperseded;
  }

  /** The database's clock: what the times of retries are compared with there. */
  get databaseNowMs(): number {
    return this.#lease.serverNowMs;
  }

  get journaled(): Position {
    return this.#journaled;
  }

  /** What the source needs beside `journaled`. */
  get cursor(): string | undefined {
    return this.#cursor;
  }

  get endLsn(): bigint {
    return this.#endLsn;
  }

  /**
   * Waits until no other process leads, then leads.
   *
   * @param onStandby called once if another process does; from then on it outlives restarts of the database
   * @returns where the last one stopped; `"stopped"` if `stop` was called meanwhile
   */
  async lead(onStandby: () => void): Promise<LastBatch | "stopped"> {
    if ((await this.#lease.acquire(onStandby)) === "stopped") return "stopped";
    for (let attempt = 0; !this.#isStopped; attempt++) {
      try {
        await this.#lease.held();
        if (this.#isStopped) break;
        // Both are ours before anything is read: a former leader writes nothing any more.
        await this.#rows.open();
        return this.#goOnFrom(await readLastBatch(await this.#session.open(), this.#options.sourceId));
      } catch (error) {
        if (this.#isStopped) break;
        await this.#session.drop();
        await this.#rows.drop();
        // Rights that are missing, say: no waiting mends that.
        if (isOver(error) || sqlStateOf(error)?.startsWith("42") === true) throw error;
        this.#options.log.warn({ err: error }, "the journal cannot be taken over yet; trying again");
      }
      await pause(delayOf(takeOverDelaysMs, attempt), this.#stopping.signal);
    }
    return "stopped";
  }

  /** The first position of a source that has no batch yet. */
  begin(endLsn: bigint): void {
    this.#endLsn = endLsn;
  }

  /**
   * Asked of each database that this process comes back to.
   *
   * @throws AncrageError `ANCRAGE_JOURNAL_WENT_BACK`
   */
  async assertWhole(db: Queryable): Promise<void> {
    // What is committed while the answer is under way it need not have.
    const known = this.#number;
    const last = await readLastBatch(db, this.#options.sourceId);
    const number = last?.number ?? 0n;
    if (number < known) throw journalWentBack(number, known);
    // It may have all that was journaled, and not what was read beyond that.
    const timeline = await readTimeline(db);
    if (timeline === 0) throw new Error("the server is a replica, which nobody has promoted yet");
    this.#timeline ??= timeline;
    if (timeline !== this.#timeline) throw timelineChanged(timeline, this.#timeline);
  }

  /** Deliveries of journaled messages that have no row yet; `settled` stays before them. */
  track(batch: BatchInFlight): void {
    if (batch.open > 0) this.#inFlight.push(batch);
  }

  /**
   * Commits a batch, however long the database takes. A row that it refuses becomes a rejection; the rest is taken.
   *
   * @returns the messages that are in; the others were refused
   * @throws AncrageError `ANCRAGE_SUPERSEDED`, `ANCRAGE_JOURNAL_WENT_BACK`; `ANCRAGE_JOURNAL_REFUSED` if `stop` was called while the database took nothing
   */
  async commit(batch: Batch): Promise<readonly Message[]> {
    let refused: BatchRefused;
    try {
      await this.#commitWhole(batch);
      return batch.messages;
    } catch (error) {
      if (!(error instanceof BatchRefused)) throw error;
      refused = error;
    }
    const halves = splitBatch(batch, this);
    if (halves === undefined) {
      return await commitAlone(batch, refused.cause, {
        commitWhole: (whole) => this.#commitWhole(whole),
        attempt: (insert) => this.#try(insert),
        log: this.#options.log,
      });
    }
    // Messages of the first half are in before they are handed to delivery: until `track` hears of them the mark must stay before.
    const waiting = { before: this.#journaled, leastId: leastIdOf(batch.messages) ?? "", open: batch.messages.length };
    this.track(waiting);
    try {
      const taken = await this.commit(halves[0]);
      return [...taken, ...(await this.commit(halves[1]))];
    } finally {
      waiting.open = 0;
    }
  }

  /** Writes first rows beside the batches: see `RowWriter`. */
  async writeRows(updates: readonly DeliveryUpdate[]): Promise<void> {
    await this.#rows.write(updates);
  }

  /** Gives the lead back. Nothing may be sent after, and a commit that waits for the database ends with an error. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#session.stop();
    await this.#rows.stop();
    await this.#lease.stop();
  }

  #goOnFrom(last: LastBatch): LastBatch {
    if (last !== undefined) {
      this.#number = last.number;
      this.#journaled = last.journaled;
      this.#cursor = last.cursor;
      this.#endLsn = last.endLsn;
    }
    return last;
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  // --- one batch ---------------------------------------------------------------------------------------------------------------

  async #commitWhole(batch: Batch): Promise<void> {
    // Each first row that this batch writes settles a delivery, in the same transaction.
    const settling = batch.updates.flatMap((update) => (update.batch !== undefined && update.from === undefined ? [update.batch] : []));
    for (const waiting of settling) waiting.open--;
    const settled = computeSettled(this.#inFlight, this.#journaled, { position: batch.journaled, leastId: leastIdOf(batch.messages) });
    const row: BatchRow = {
      source: this.#options.sourceId,
      number: this.#number + 1n,
      epoch: this.#lease.epoch,
      journaled: batch.journaled,
      settled: settled.position,
      unsettledFrom: settled.unsettledFrom,
      endLsn: batch.endLsn,
      cursor: batch.cursor,
    };
    try {
      await this.#append(row, batch);
    } catch (error) {
      // They have no row after all.
      for (const waiting of settling) waiting.open++;
      throw error;
    }
    while (this.#inFlight[0]?.open === 0) this.#inFlight.shift();
    if (this.#state.kind === "refusing") this.#options.log.info({ since: this.#state.since }, "the journal takes batches again");
    this.#state = { kind: "ok" };
    this.#number = row.number;
    this.#journaled = batch.journaled;
    this.#cursor = batch.cursor;
    this.#endLsn = batch.endLsn;
    await this.#forgetOld();
  }

  /** @throws BatchRefused where a row is at fault; AncrageError `ANCRAGE_SUPERSEDED` */
  async #append(row: BatchRow, batch: Batch): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#untilLeased();
        if (this.#isStopped) throw stoppedWhileRefusing(this.#state.kind === "refusing" ? this.#state : undefined);
        const client = await this.#session.open();
        await this.#options.signal?.("journaling", batch);
        await this.#session.watched(client, () => this.#write(client, row, batch, attempt > 0));
        return;
      } catch (error) {
        await this.#afterRefusal(error);
        await pause(delayOf(journalDelaysMs, attempt), this.#stopping.signal);
      }
    }
  }

  async #write(client: pg.Client, row: BatchRow, batch: Batch, isRepeated: boolean): Promise<void> {
    // After a lost session: the commit may have landed, and only its answer not.
    if (isRepeated && (await this.#isIn(client, row))) return;
    await this.#ensureDays(client, batch);
    await writeBatch(client, row, batch, () => {
      if (!this.#lease.isHeld) throw new Error(leaseRanOut);
    });
  }

  /** A holder whose lease has run out commits nothing until it has renewed it. */
  async #untilLeased(): Promise<void> {
    if (!this.#lease.isHeld) this.#refuse(new Error(leaseRanOut));
    await this.#lease.held();
  }

  /** Returns where the database is waited for; throws what no waiting mends. */
  async #afterRefusal(thrown: unknown): Promise<void> {
    if (isOver(thrown)) throw thrown;
    if (this.#isStopped) throw stoppedWhileRefusing(this.#state.kind === "refusing" ? this.#state : undefined);
    // It may be for want of a partition that was dropped since.
    this.#ensuredDays.clear();
    const { client } = this.#session;
    const state = sqlStateOf(thrown);
    // A session that began read-only, on a standby or by a setting, stays so when the database is not any more.
    const isStuck = state === undefined || state === readOnlyTransaction;
    if (isStuck || client === undefined || !(await this.#session.watched(client, () => isUsable(client)))) await this.#session.drop();
    const refusal = classifyRefusal(thrown);
    if (refusal === "superseded") throw superseded();
    if (refusal === "data") throw new BatchRefused(thrown);
    this.#refuse(thrown);
  }

  #refuse(cause: unknown): void {
    const because = cause instanceof Error ? cause.message : String(cause);
    if (this.#state.kind === "ok") {
      this.#state = { kind: "refusing", since: new Date(), because };
      this.#options.log.error(
        { err: cause, sqlState: sqlStateOf(cause) },
        "the journal refuses batches: nothing is read or sent until it takes them",
      );
    } else this.#state = { ...this.#state, because };
  }

  /** @returns why a row cannot be stored; undefined where it can, or where it cannot be told now */
  async #try(insert: (client: pg.Client) => Promise<void>): Promise<unknown> {
    const { client } = this.#session;
    if (client === undefined) return undefined;
    try {
      await this.#session.watched(client, async () => {
        await client.query("begin");
        await insert(client);
      });
      return undefined;
    } catch (error) {
      return classifyRefusal(error) === "data" ? error : undefined;
    } finally {
      await this.#session.watched(client, () => isUsable(client));
    }
  }

  async #ensureDays(client: pg.Client, { messages, rejections, updates }: Batch): Promise<void> {
    const ids = [...messages, ...rejections].map(({ id }) => id);
    const days = new Set([...ids, ...updates.map(({ row }) => row.messageId)].map(dayOfMessage));
    for (const day of days) {
      // The next one is made ahead: at midnight no message waits for it.
      for (const needed of [day, day + 1]) {
        if (this.#ensuredDays.has(needed)) continue;
        await ensurePartitions(client, formatDay(needed));
        this.#ensuredDays.add(needed);
      }
    }
  }

  async #forgetOld(): Promise<void> {
    const { client } = this.#session;
    if (this.#number % keptBatches !== 0n || client === undefined) return;
    try {
      const below = this.#number - keptBatches;
      await this.#session.watched(client, () => deleteOldBatches(client, this.#options.sourceId, below));
    } catch (error) {
      // The batch is in; the next ten thousand bring another chance.
      this.#options.log.warn({ err: error }, "could not delete old batches");
    }
  }

  async #isIn(client: pg.Client, { number, epoch }: BatchRow): Promise<boolean> {
    const last = await readLastBatch(client, this.#options.sourceId);
    return last !== undefined && last.number === number && last.epoch === epoch;
  }
}

const leaseRanOut = "the lease has run out: the database has not answered for as long, or this process stood still";
const takeOverDelaysMs = [50, 100, 250];
const readOnlyTransaction = "25006";

/** After an error inside a transaction the session must be brought back; one that cannot be is closed. */
function isUsable(client: pg.Client): Promise<boolean> {
  return client.query("rollback").then(
    () => true,
    () => false,
  );
}
