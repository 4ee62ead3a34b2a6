import type pg from "pg";
import { startOfLog, type Position } from "../capture/change.ts";
import { delayOf } from "../delay-of.ts";
import { AncrageError, sqlStateOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { BatchInFlight, DeliveryUpdate, Message, Rejection } from "../message.ts";
import { pause } from "../pause.ts";
import {
  deleteOldBatches,
  ensurePartitions,
  raiseEpoch,
  readEpoch,
  readLastBatch,
  tryLeadershipLock,
  type BatchRow,
} from "../store/batches.ts";
import { connectClient } from "../store/database.ts";
import { insertMessages, insertRejections } from "../store/journal-rows.ts";
import type { TestSignal } from "../test-signal.ts";
import { dayOfMessage, formatDay, leastIdOf } from "../message-id.ts";
import { BatchRefused, classifyRefusal, rejectionOf, stoppedWhileRefusing, superseded } from "./refusal.ts";
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
  readonly signal?: TestSignal | undefined;
}

/**
 * - `ok`: the last batch was taken.
 * - `refusing`: the database takes no batch now; nothing new is read or sent until it does. `/readyz` says so.
 */
export type JournalState = { readonly kind: "ok" } | { readonly kind: "refusing"; readonly since: Date; readonly because: string };

const retryDelaysMs = [50, 100, 250, 500, 1_000, 2_000];
const standbyPollMs = 500;
/** Batches below this many are history. */
const keptBatches = 10_000n;

/**
 * The durable record. One process appends to it at a time, one batch after another.
 *
 * Who may is decided by an advisory lock on this session, and made certain by the database: each leader has an epoch, and a batch's
 * number can be inserted once.
 */
export class Journal {
  readonly #options: JournalOptions;
  /** The session that holds the lock. Undefined while there is none; the next commit makes it anew. */
  #client: pg.Client | undefined;
  #epoch = 0n;
  /** The number of the last batch that is in. */
  #number = 0n;
  #journaled: Position = startOfLog;
  #endLsn = 0n;
  /** Journaled batches with deliveries that have no row yet, in order. Filled by `track`; done ones leave when a commit has passed. */
  readonly #inFlight: BatchInFlight[] = [];
  readonly #ensuredDays = new Set<number>();
  #state: JournalState = { kind: "ok" };
  readonly #stopping = new AbortController();

  constructor(options: JournalOptions) {
    this.#options = options;
  }

  get state(): JournalState {
    return this.#state;
  }

  get journaled(): Position {
    return this.#journaled;
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
    for (let isStandby = false; !this.#isStopped;) {
      try {
        this.#client ??= await this.#connect();
        if (await tryLeadershipLock(this.#client, this.#options.sourceId)) return await this.#takeOver(this.#client);
        if (!isStandby) onStandby();
        isStandby = true;
      } catch (error) {
        if (this.#isStopped) break;
        await this.#drop();
        if (!isStandby) throw error;
        this.#options.log.warn({ err: error }, "this standby could not ask for the lead; asking again");
      }
      await pause(standbyPollMs, this.#stopping.signal);
    }
    return "stopped";
  }

  /** The first position of a source that has no batch yet. */
  begin(endLsn: bigint): void {
    this.#endLsn = endLsn;
  }

  /** Deliveries of journaled messages that have no row yet; `settled` stays before them. */
  track(batch: BatchInFlight): void {
    if (batch.open > 0) this.#inFlight.push(batch);
  }

  /**
   * Commits a batch, however long the database takes. A row that it refuses becomes a rejection; the rest is taken.
   *
   * @returns the messages that are in; the others were refused
   * @throws AncrageError `ANCRAGE_SUPERSEDED`; `ANCRAGE_JOURNAL_REFUSED` if `stop` was called while the database took nothing
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
    if (halves === undefined) return this.#commitAlone(batch, refused.cause);
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

  /** Ends the session, and with it the lead. A commit that waits for the database ends with an error. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#drop();
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
      epoch: this.#epoch,
      journaled: batch.journaled,
      settled: settled.position,
      unsettledFrom: settled.unsettledFrom,
      endLsn: batch.endLsn,
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
    this.#endLsn = batch.endLsn;
    await this.#forgetOld();
  }

  /** @throws BatchRefused where a row is at fault; AncrageError `ANCRAGE_SUPERSEDED` */
  async #append(row: BatchRow, batch: Batch): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      if (this.#isStopped) throw stoppedWhileRefusing(this.#state.kind === "refusing" ? this.#state : undefined);
      try {
        this.#client ??= await this.#reconnect();
        // After a lost session: the commit may have landed, and only its answer not.
        if (attempt > 0 && (await this.#isIn(this.#client, row.number))) return;
        await this.#ensureDays(this.#client, batch);
        await this.#options.signal?.("journaling", batch);
        await writeBatch(this.#client, row, batch);
        return;
      } catch (error) {
        await this.#afterRefusal(error);
        await pause(delayOf(retryDelaysMs, attempt), this.#stopping.signal);
      }
    }
  }

  /** Returns where the database is waited for; throws what no waiting mends. */
  async #afterRefusal(thrown: unknown): Promise<void> {
    if (thrown instanceof AncrageError && thrown.code === "ANCRAGE_SUPERSEDED") throw thrown;
    // It may be for want of a partition that was dropped since.
    this.#ensuredDays.clear();
    if (sqlStateOf(thrown) === undefined || !(await isUsable(this.#client))) await this.#drop();
    const refusal = classifyRefusal(thrown);
    if (refusal === "superseded") throw superseded();
    if (refusal === "data") throw new BatchRefused(thrown);
    const because = thrown instanceof Error ? thrown.message : String(thrown);
    if (this.#state.kind === "ok") {
      this.#state = { kind: "refusing", since: new Date(), because };
      this.#options.log.error(
        { err: thrown, sqlState: sqlStateOf(thrown) },
        "the journal refuses batches: nothing is read or sent until it takes them",
      );
    } else this.#state = { ...this.#state, because };
  }

  /** What cannot be split: a single outcome, or the messages and rejections of one change. */
  async #commitAlone(batch: Batch, cause: unknown): Promise<readonly Message[]> {
    const [update] = batch.updates;
    if (update !== undefined) {
      this.#leaveOut(update, cause);
      await this.#commitWhole({ ...batch, updates: [] });
      return [];
    }
    const messages: Message[] = [];
    const rejections: Rejection[] = [];
    const isOnly = batch.messages.length + batch.rejections.length === 1;
    for (const message of batch.messages) {
      const error = isOnly ? cause : await this.#try((client) => insertMessages(client, [message]));
      if (error === undefined) messages.push(message);
      else rejections.push(rejectionOf(message, error));
    }
    for (const rejection of batch.rejections) {
      const error = isOnly ? cause : await this.#try((client) => insertRejections(client, [rejection]));
      if (error === undefined) rejections.push(rejection);
      else this.#options.log.error({ err: error, rejection }, "the journal refused a rejection; it is left out");
    }
    try {
      await this.#commitWhole({ ...batch, messages, rejections });
      return messages;
    } catch (error) {
      if (!(error instanceof BatchRefused)) throw error;
      // Each can be stored and not all of them, or it is the rejection that stands for a message.
      this.#options.log.error({ err: error.cause, batch }, "the journal refused messages of one change; they are left out");
      await this.#commitWhole({ ...batch, messages: [], rejections: [] });
      return [];
    }
  }

  /** An outcome that cannot be stored. Where its row is there already nothing is missing; else it is repeated after a restart. */
  #leaveOut(update: DeliveryUpdate, cause: unknown): void {
    this.#options.log.error({ err: cause, update }, "the journal refused an outcome; it is left out");
    const isThere = update.from === undefined && sqlStateOf(cause) === "23505";
    if (isThere && update.batch !== undefined) update.batch.open--;
  }

  /** @returns why a row cannot be stored; undefined where it can, or where it cannot be told now */
  async #try(insert: (client: pg.Client) => Promise<void>): Promise<unknown> {
    const client = this.#client;
    if (client === undefined) return undefined;
    try {
      await client.query("begin");
      await insert(client);
      return undefined;
    } catch (error) {
      return classifyRefusal(error) === "data" ? error : undefined;
    } finally {
      await client.query("rollback").catch(() => undefined);
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
    if (this.#number % keptBatches !== 0n || this.#client === undefined) return;
    try {
      await deleteOldBatches(this.#client, this.#options.sourceId, this.#number - keptBatches);
    } catch (error) {
      // The batch is in; the next ten thousand bring another chance.
      this.#options.log.warn({ err: error }, "could not delete old batches");
    }
  }

  // --- the session -------------------------------------------------------------------------------------------------------------

  async #takeOver(client: pg.Client): Promise<LastBatch> {
    const { sourceId, processName } = this.#options;
    this.#epoch = await raiseEpoch(client, sourceId, processName);
    const last = await readLastBatch(client, sourceId);
    if (last !== undefined) {
      this.#number = last.number;
      this.#journaled = last.journaled;
      this.#endLsn = last.endLsn;
    }
    return last;
  }

  /** A new session for the lead that the old one had, unless somebody took it meanwhile. */
  async #reconnect(): Promise<pg.Client> {
    const client = await this.#connect();
    try {
      const isLocked = await tryLeadershipLock(client, this.#options.sourceId);
      if ((await readEpoch(client, this.#options.sourceId)) !== this.#epoch) throw superseded();
      // The server has not noticed yet that the old session is gone; while that lives, its last commit may still land.
      if (!isLocked) throw new Error("the journal's lock is still held by the session of before");
      return client;
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
  }

  async #isIn(client: pg.Client, number: bigint): Promise<boolean> {
    const last = await readLastBatch(client, this.#options.sourceId);
    return last !== undefined && last.number === number && last.epoch === this.#epoch;
  }

  async #connect(): Promise<pg.Client> {
    const client = await connectClient({
      connectionString: this.#options.connectionString,
      applicationName: "ancrage journal",
      settings: {
        // Confirming to the log what is not on disk would lose it; and a timeout would end the wait for a synchronous standby by
        // calling the commit done. The joins of an update must go by the primary key, whatever the statistics say.
        synchronous_commit: "on",
        statement_timeout: "0",
        idle_in_transaction_session_timeout: "0",
        enable_hashjoin: "off",
        enable_mergejoin: "off",
      },
    });
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    if (!this.#isStopped) return client;
    await client.end();
    throw stoppedWhileRefusing(this.#state.kind === "refusing" ? this.#state : undefined);
  }

  async #drop(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }
}

/** After an error inside a transaction the session must be brought back; one that cannot be is closed. */
async function isUsable(client: pg.Client | undefined): Promise<boolean> {
  if (client === undefined) return false;
  return client.query("rollback").then(
    () => true,
    () => false,
  );
}
