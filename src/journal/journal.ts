import type pg from "pg";
import { comparePositions, startOfLog, type Position } from "../capture/change.ts";
import { AncrageError, sqlStateOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { AttemptRow, BatchInFlight, DeliveryUpdate, Message, Rejection } from "../message.ts";
import {
  beginBatch,
  commitBatch,
  deleteOldBatches,
  ensurePartitions,
  raiseEpoch,
  readLastBatch,
  tryLeadershipLock,
  type BatchRow,
} from "../store/batches.ts";
import { connectClient } from "../store/database.ts";
import { insertAttempts, insertDeliveries, insertMessages, insertRejections, updateDeliveries } from "../store/journal-rows.ts";
import { placeSubscription } from "../store/subscription-starts.ts";
import type { TestSignal } from "../test-signal.ts";
import { dayOfMessage, formatDay, rejectionIdOf } from "./id.ts";
import { BatchRefused, classifyRefusal } from "./refusal.ts";
import { computeSettled } from "./settled.ts";

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

/** The durable record. One process appends to it at a time, one batch after another. */
export class Journal {
  readonly #options: JournalOptions;
  /** Undefined while there is no session; it then is made anew by `#session`. */
  #client: pg.Client | undefined;
  #epoch = 0n;
  /** The number of the last batch that is in. */
  #number = 0n;
  #journaled: Position = startOfLog;
  #endLsn = 0n;
  /** Journaled batches with deliveries that have no row yet, in order. */
  readonly #inFlight: BatchInFlight[] = [];
  readonly #ensuredDays = new Set<number>();
  #state: JournalState = { kind: "ok" };
  #isStopped = false;

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
   * @param onStandby called once if another process does
   * @returns where the last one stopped; `"stopped"` if `stop` was called meanwhile
   */
  async lead(onStandby: () => void): Promise<LastBatch | "stopped"> {
    const { sourceId, processName } = this.#options;
    this.#client = await this.#connect();
    for (let turn = 0; !(await tryLeadershipLock(this.#client, sourceId)); turn++) {
      if (turn === 0) onStandby();
      await pause(standbyPollMs);
      if (this.#isStopped) return "stopped";
    }
    this.#epoch = await raiseEpoch(this.#client, sourceId, processName);
    const last = await readLastBatch(this.#client, sourceId);
    if (last !== undefined) {
      this.#number = last.number;
      this.#journaled = last.journaled;
      this.#endLsn = last.endLsn;
    }
    return last;
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
   * @returns the messages that are in, and those that were refused instead
   * @throws AncrageError `ANCRAGE_SUPERSEDED`
   */
  async commit(batch: Batch): Promise<readonly Message[]> {
    try {
      await this.#commitWhole(batch);
      return batch.messages;
    } catch (error) {
      if (!(error instanceof BatchRefused)) throw error;
      return this.#commitHalves(batch, error);
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#client?.end().catch(() => undefined);
    this.#client = undefined;
  }

  async #commitWhole(batch: Batch): Promise<void> {
    const number = this.#number + 1n;
    // Each first row that this batch writes settles a delivery, in the same transaction.
    for (const { batch: waiting, from } of batch.updates) if (waiting !== undefined && from === undefined) waiting.open--;
    const settled = computeSettled(this.#inFlight, this.#journaled, { position: batch.journaled, leastId: leastIdOf(batch.messages) });
    const row: BatchRow = {
      source: this.#options.sourceId,
      number,
      epoch: this.#epoch,
      journaled: batch.journaled,
      settled: settled.position,
      unsettledFrom: settled.unsettledFrom,
      endLsn: batch.endLsn,
    };
    for (let attempt = 0; ; attempt++) {
      try {
        const client = await this.#session(number);
        if (client === "landed") break;
        await this.#ensureDays(client, batch);
        await this.#options.signal?.("journaling", batch);
        await this.#write(client, row, batch);
        break;
      } catch (error) {
        const refusal = await this.#refused(error);
        if (refusal === "data") {
          // What was counted as settled above has no row yet after all.
          for (const { batch: waiting, from } of batch.updates) if (waiting !== undefined && from === undefined) waiting.open++;
          throw new BatchRefused(error);
        }
        if (refusal === "superseded" && (await this.#landed(number)) !== true) throw superseded();
        if (refusal === "superseded") break;
        await pause(retryDelaysMs[Math.min(attempt, retryDelaysMs.length - 1)] ?? 0);
        if (this.#isStopped) throw superseded();
      }
    }
    if (this.#state.kind === "refusing") this.#options.log.info({ since: this.#state.since }, "the journal takes batches again");
    this.#state = { kind: "ok" };
    this.#number = number;
    this.#journaled = batch.journaled;
    this.#endLsn = batch.endLsn;
    if (number % keptBatches === 0n && this.#client !== undefined) {
      await deleteOldBatches(this.#client, this.#options.sourceId, number - keptBatches);
    }
  }

  async #write(client: pg.Client, row: BatchRow, batch: Batch): Promise<void> {
    await beginBatch(client, row);
    if (batch.messages.length > 0) await insertMessages(client, batch.messages);
    if (batch.rejections.length > 0) await insertRejections(client, batch.rejections);
    const first = batch.updates.filter((update) => update.from === undefined);
    if (first.length > 0)
      await insertDeliveries(
        client,
        first.map((update) => update.row),
      );
    for (const [day, updates] of groupByDay(batch.updates.filter((update) => update.from !== undefined))) {
      await updateDeliveries(client, `deliveries_${formatDay(day).replaceAll("-", "")}`, updates);
    }
    const attempts = batch.updates.flatMap((update): readonly AttemptRow[] => (update.attempt === undefined ? [] : [update.attempt]));
    if (attempts.length > 0) await insertAttempts(client, attempts);
    for (const start of batch.starts) await placeSubscription(client, start);
    await commitBatch(client);
  }

  /** A session that leads. After a lost one: whether its last commit had landed all the same. */
  async #session(number: bigint): Promise<pg.Client | "landed"> {
    if (this.#client !== undefined) return this.#client;
    const client = await this.#connect();
    try {
      if (!(await tryLeadershipLock(client, this.#options.sourceId))) {
        // The server may not have noticed yet that the old session is gone; if somebody else leads, the epoch tells.
        const last = await readLastBatch(client, this.#options.sourceId);
        if (last !== undefined && last.epoch > this.#epoch) throw superseded();
        throw new Error("the journal's lock is still held by a session of before");
      }
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
    this.#client = client;
    return (await this.#landed(number)) === true ? "landed" : client;
  }

  /** Whether this number is in, and ours: a commit whose answer was lost. */
  async #landed(number: bigint): Promise<boolean> {
    if (this.#client === undefined) return false;
    const last = await readLastBatch(this.#client, this.#options.sourceId);
    if (last === undefined || last.number < number) return false;
    if (last.epoch !== this.#epoch) throw superseded();
    return last.number === number;
  }

  async #refused(error: unknown): Promise<ReturnType<typeof classifyRefusal>> {
    if (error instanceof AncrageError && error.code === "ANCRAGE_SUPERSEDED") throw error;
    const refusal = classifyRefusal(error);
    const client = this.#client;
    if (sqlStateOf(error) === undefined || !(await isUsable(client))) {
      this.#client = undefined;
      await client?.end().catch(() => undefined);
    }
    if (refusal === "unable") {
      const because = error instanceof Error ? error.message : String(error);
      if (this.#state.kind === "ok") {
        this.#state = { kind: "refusing", since: new Date(), because };
        this.#options.log.error(
          { because, sqlState: sqlStateOf(error) },
          "the journal refuses batches: nothing is read or sent until it takes them",
        );
      } else this.#state = { ...this.#state, because };
    }
    return refusal;
  }

  /**
   * Halves a refused batch until the row stands alone, which becomes a rejection.
   *
   * Cuts are between changes: two messages of one change share their position, and a start after a crash skips by position.
   */
  async #commitHalves(batch: Batch, refused: BatchRefused): Promise<readonly Message[]> {
    const position = { journaled: this.#journaled, endLsn: this.#endLsn };
    if (batch.updates.length > 0 && batch.messages.length + batch.rejections.length + batch.starts.length > 0) {
      await this.commit({ ...batch, ...position, messages: [], rejections: [], starts: [] });
      return this.commit({ ...batch, updates: [] });
    }
    if (batch.updates.length > 1) {
      const middle = batch.updates.length >> 1;
      await this.commit({ ...batch, ...position, updates: batch.updates.slice(0, middle) });
      return this.commit({ ...batch, updates: batch.updates.slice(middle) });
    }
    const groups = groupByPosition(batch.messages);
    if (groups.length > 1) {
      const middle = groups.length >> 1;
      const [left, right] = [groups.slice(0, middle).flat(), groups.slice(middle).flat()];
      const cut = left.at(-1)?.position ?? batch.journaled;
      const isLeft = (rejection: Rejection): boolean => !isAfter(rejection.position, cut);
      const taken = await this.commit({
        ...batch,
        messages: left,
        rejections: batch.rejections.filter(isLeft),
        starts: [],
        journaled: cut,
        endLsn: this.#endLsn,
      });
      return [...taken, ...(await this.commit({ ...batch, messages: right, rejections: batch.rejections.filter((one) => !isLeft(one)) }))];
    }
    if (batch.messages.length === 0) {
      // Nothing of it can be given up: an outcome is repeated after a restart, a rejection's words are ours to shorten.
      this.#options.log.error({ because: refused.message, batch }, "the journal refused an outcome or a rejection; it is left out");
      await this.#commitWhole({ ...batch, rejections: [], updates: [] });
      return [];
    }
    return this.#commitAlone(batch, refused);
  }

  /** The messages of one change: those that PostgreSQL refuses become rejections, the others are taken. */
  async #commitAlone(batch: Batch, refused: BatchRefused): Promise<readonly Message[]> {
    const messages: Message[] = [];
    const rejections = [...batch.rejections];
    for (const message of batch.messages) {
      const error = batch.messages.length === 1 ? refused : await this.#tryMessage(message);
      if (error === undefined) messages.push(message);
      else rejections.push(rejectionOf(message, error));
    }
    await this.#commitWhole({ ...batch, messages, rejections });
    return messages;
  }

  async #tryMessage(message: Message): Promise<unknown> {
    const client = this.#client;
    if (client === undefined) return undefined;
    try {
      await client.query("begin");
      await insertMessages(client, [message]);
      return undefined;
    } catch (error) {
      return error;
    } finally {
      await client.query("rollback").catch(() => undefined);
    }
  }

  async #ensureDays(client: pg.Client, batch: Batch): Promise<void> {
    const days = new Set([...batch.messages, ...batch.rejections].map(({ id }) => dayOfMessage(id)));
    for (const day of days) {
      if (this.#ensuredDays.has(day)) continue;
      await ensurePartitions(client, formatDay(day));
      this.#ensuredDays.add(day);
    }
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
    return client;
  }
}

function superseded(): AncrageError {
  return new AncrageError("ANCRAGE_SUPERSEDED", "another process appends to the journal now; this one has stopped capturing and sending.", {
    hint: "Nothing is lost: the other one goes on from the last batch. Restart this process to make it a standby.",
  });
}

/** After an error inside a transaction the session must be brought back; one that cannot be is closed. */
async function isUsable(client: pg.Client | undefined): Promise<boolean> {
  if (client === undefined) return false;
  return client.query("rollback").then(
    () => true,
    () => false,
  );
}

function rejectionOf(message: Message, error: unknown): Rejection {
  return {
    id: rejectionIdOf(message.id),
    project: message.project,
    event: message.event,
    // The key itself may be what was refused.
    key: message.key.replaceAll("\0", "\uFFFD"),
    position: message.position,
    committedAtUs: message.committedAtUs,
    reason: "journal-refused",
    error: error instanceof Error ? error.message : String(error),
    occurrence: Buffer.from(JSON.stringify({ kind: "message", key: message.key, body: message.body.toString("base64") })),
  };
}

function groupByPosition(messages: readonly Message[]): readonly (readonly Message[])[] {
  const groups: Message[][] = [];
  for (const message of messages) {
    const last = groups.at(-1);
    if (last?.[0] !== undefined && !isAfter(message.position, last[0].position)) last.push(message);
    else groups.push([message]);
  }
  return groups;
}

const isAfter = (a: Position, b: Position): boolean => comparePositions(a, b) > 0;

function groupByDay(updates: readonly DeliveryUpdate[]): ReadonlyMap<number, readonly DeliveryUpdate[]> {
  return Map.groupBy(updates, ({ row }) => dayOfMessage(row.messageId));
}

function leastIdOf(messages: readonly Message[]): string | undefined {
  let least: string | undefined;
  for (const { id } of messages) if (least === undefined || id < least) least = id;
  return least;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
