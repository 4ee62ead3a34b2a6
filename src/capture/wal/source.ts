import type pg from "pg";
import type { Clock } from "../../clock.ts";
import { AncrageError, sqlStateOf } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { connectClient } from "../../store/database.ts";
import type { TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import {
  comparePositions,
  type Captured,
  type Change,
  type ChangeSource,
  type Position,
  type ResumePoint,
  type Transaction,
} from "../change.ts";
import { readMark } from "../marks.ts";
import { isVisible, parseSnapshot } from "../visibility.ts";
import { idlePosition, initialAckState, nextAckState, type AckEvent, type AckState } from "./acker.ts";
import { formatLsn } from "../../lsn.ts";
import { decode, type PgOutputMessage } from "./pgoutput.ts";
import { compileRelation, type Relation } from "./relation.ts";
import { ReplicationStream } from "./stream.ts";

export interface WalSourceOptions {
  readonly connectionString: string;
  readonly replicationUrl: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly sourceId: string;
  /** By the name that users give them. */
  readonly tables: ReadonlyMap<string, TableInfo>;
  readonly types: ValueTypes;
  readonly triggerKey: Buffer;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Reading stops above this many bytes of undelivered changes, and goes on below half of it. */
const maxQueuedBytes = 16 * 1024 * 1024;
const reconnectDelaysMs = [100, 250, 500, 1_000, 2_000, 5_000];
/** How soon a transaction that is committed but not yet visible is looked at again. */
const visibilityDelaysMs = [1, 1, 2, 5, 10, 25, 50];

/** A transaction as it is being read. Its items leave once it is visible, before it is whole if it is large. */
interface Segment {
  readonly transaction: Transaction;
  readonly items: Captured[];
  isVisible: boolean;
  isWhole: boolean;
}

/** Changes out of the write-ahead log, over one replication session. */
export class WalSource implements ChangeSource {
  readonly sourceId: string;
  readonly #options: WalSourceOptions;
  readonly #relations = new Map<number, Relation>();
  /** In commit order. Filled by `#receive`, emptied by `take`. */
  readonly #segments: Segment[] = [];
  /** What `#segments` holds, in bytes of the log. */
  #queuedBytes = 0;
  #ack: AckState = initialAckState(0n);
  /** The last position that was put into `#segments`: what the log sends again after a reconnect is dropped up to here. */
  #seen: Position = { commitLsn: 0n, changeLsn: 0n, ordinal: 0 };
  /** The transaction that the log is in; undefined between two. Written by `#receive`. */
  #open: Segment | undefined;
  #lastChangeLsn = 0n;
  #ordinal = 0;
  #stream: ReplicationStream | undefined;
  /** Asks for snapshots. Undefined while it is not connected. */
  #reader: pg.Client | undefined;
  /** What cannot be mended by connecting again; thrown by the next `take`. */
  #failure: unknown;
  #listener: (() => void) | undefined;
  #isStopped = false;
  /** The first transaction was not visible yet; a timer looks again. */
  #isGateShut = false;
  #gateAttempts = 0;
  #ignoredMarks = 0;

  constructor(options: WalSourceOptions) {
    this.#options = options;
    this.sourceId = options.sourceId;
  }

  async start(resume: ResumePoint): Promise<void> {
    this.#seen = resume.journaled;
    this.#ack = initialAckState(resume.endLsn);
    await this.#connect();
  }

  hasWork(): boolean {
    return this.#failure !== undefined || (!this.#isGateShut && (this.#segments[0]?.items.length ?? 0) > 0);
  }

  onWork(listener: () => void): void {
    this.#listener = listener;
  }

  async take(limit: number): Promise<readonly Captured[]> {
    if (this.#failure !== undefined) throw this.#failure;
    await this.#openGate();
    const taken: Captured[] = [];
    for (let segment = this.#segments[0]; segment?.isVisible === true && taken.length < limit; segment = this.#segments[0]) {
      const room = limit - taken.length;
      const isEmptied = segment.items.length <= room;
      for (const item of isEmptied ? segment.items.splice(0) : segment.items.splice(0, room)) taken.push(item);
      if (!isEmptied || !segment.isWhole) break;
      this.#segments.shift();
    }
    if (this.#segments.every((segment) => segment.items.length === 0)) this.#queuedBytes = 0;
    else if (taken.length > 0) this.#queuedBytes = Math.max(0, this.#queuedBytes - this.#bytesOf(taken.length));
    if (this.#queuedBytes < maxQueuedBytes / 2) this.#stream?.resume();
    return taken;
  }

  confirm(lsn: bigint): void {
    this.#step({ kind: "journaled", lsn });
    // Not a status for each batch: half a timeout later one goes out anyway, and the server asks before it waits for us.
  }

  idleLsn(): bigint | undefined {
    return idlePosition(this.#ack);
  }

  /** Marks of ours that were unsigned, forged or not transactional. */
  get ignoredMarks(): number {
    return this.#ignoredMarks;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#stream?.stop();
    await this.#reader?.end().catch(() => undefined);
    this.#reader = undefined;
  }

  // --- reading ---------------------------------------------------------------------------------------------------------------

  async #connect(): Promise<void> {
    const { replicationUrl, slot, publications, clock } = this.#options;
    const stream = new ReplicationStream(
      { connectionString: replicationUrl, slot, publications, startLsn: this.#ack.receivedLsn, clock },
      {
        onData: (lsn, data) => this.#receive(lsn, data),
        onKeepalive: (lsn) => {
          this.#step({ kind: "keepalive", lsn });
          this.#wake();
        },
        onEnd: (error) => void this.#reconnect(error),
        confirmedLsn: () => this.#ack.journaledLsn,
      },
    );
    this.#stream = stream;
    try {
      await stream.start();
    } catch (error) {
      this.#stream = undefined;
      await stream.stop();
      throw explainStartFailure(error, slot);
    }
  }

  async #reconnect(error: Error): Promise<void> {
    // A start that fails reports to its caller; only a stream that ran is opened again.
    if (this.#isStopped || this.#stream === undefined) return;
    this.#stream = undefined;
    this.#step({ kind: "disconnected" });
    this.#open = undefined;
    this.#relations.clear();
    this.#options.log.warn({ error: error.message }, "the replication stream ended; connecting again");
    for (let attempt = 0; !this.#isStopped; attempt++) {
      await pause(reconnectDelaysMs[Math.min(attempt, reconnectDelaysMs.length - 1)] ?? 0);
      if (this.#isStopped) return;
      try {
        await this.#connect();
        this.#options.log.info({ from: formatLsn(this.#ack.receivedLsn) }, "the replication stream is back");
        return;
      } catch (failure) {
        if (failure instanceof AncrageError && failure.code === "ANCRAGE_SLOT_LOST") {
          this.#failure = failure;
          this.#wake();
          return;
        }
        this.#options.log.warn({ error: String(failure) }, "could not connect the replication stream");
      }
    }
  }

  #receive(lsn: bigint, data: Buffer): void {
    try {
      this.#handle(lsn, decode(data), data.length);
    } catch (error) {
      this.#failure = error;
      this.#wake();
    }
  }

  #handle(lsn: bigint, message: PgOutputMessage, bytes: number): void {
    switch (message.kind) {
      case "begin":
        return this.#begin({ xid: message.xid, commitLsn: message.commitLsn, committedAtUs: message.committedAtUs });
      case "relation":
        return this.#relate(message);
      case "insert": {
        const relation = this.#relation(message.relationOid);
        const after = relation.toRow(message.newTuple, undefined);
        return this.#add(lsn, bytes, {
          table: relation.table,
          action: "insert",
          key: relation.toKey(message.newTuple),
          before: undefined,
          after,
        });
      }
      case "update": {
        const relation = this.#relation(message.relationOid);
        const after = relation.toRow(message.newTuple, message.oldTuple);
        const before = message.oldTuple === undefined ? undefined : relation.toRow(message.oldTuple, undefined);
        return this.#add(lsn, bytes, { table: relation.table, action: "update", key: relation.toKey(message.newTuple), before, after });
      }
      case "delete": {
        const relation = this.#relation(message.relationOid);
        const old = message.oldTuple ?? message.oldKey ?? [];
        const before = message.oldTuple === undefined ? relation.toKeyRow(old) : relation.toRow(old, undefined);
        return this.#add(lsn, bytes, { table: relation.table, action: "delete", key: relation.toKey(old), before, after: undefined });
      }
      case "message":
        return this.#mark(message, bytes);
      case "truncate":
        return this.#options.log.warn(
          { tables: message.relationOids.map((oid) => this.#relations.get(oid)?.table ?? String(oid)) },
          "a table was truncated: that makes no events",
        );
      case "commit":
        return this.#commit(message.endLsn);
      case "origin":
      case "type":
        return undefined;
      default:
        return message satisfies never;
    }
  }

  #begin(transaction: Transaction): void {
    this.#step({ kind: "begin" });
    this.#lastChangeLsn = 0n;
    this.#ordinal = 0;
    // After a reconnect the log begins a transaction again of which a part is queued, or was taken, already.
    const last = this.#segments.at(-1);
    if (last !== undefined && last.transaction.commitLsn === transaction.commitLsn) this.#open = last;
    else {
      this.#open = { transaction, items: [], isVisible: false, isWhole: false };
      this.#segments.push(this.#open);
    }
  }

  #relate(message: Extract<PgOutputMessage, { kind: "relation" }>): void {
    const name = message.schema === "public" ? message.table : `${message.schema}.${message.table}`;
    this.#relations.set(message.oid, compileRelation(message, this.#options.tables.get(name), this.#options.types));
  }

  #relation(oid: number): Relation {
    const relation = this.#relations.get(oid);
    if (relation === undefined)
      throw new AncrageError("ANCRAGE_PROTOCOL", `a change names relation ${oid}, which the log has not described.`);
    return relation;
  }

  #add(lsn: bigint, bytes: number, change: Omit<Change, "kind" | "transaction" | "position">): void {
    const segment = this.#current();
    const position = this.#place(lsn, segment.transaction);
    if (this.#isSeen(position)) return;
    this.#push(segment, { kind: "change", transaction: segment.transaction, position, ...change }, bytes);
  }

  #mark(message: Extract<PgOutputMessage, { kind: "message" }>, bytes: number): void {
    const segment = this.#open;
    const transaction = segment?.transaction;
    const position = transaction === undefined ? this.#seen : this.#place(message.lsn, transaction);
    // `content` is a view of the socket's chunk: what is kept of it is copied by the JSON parser and by `toString`.
    const mark = readMark({ ...message, transaction, position, triggerKey: this.#options.triggerKey });
    if (mark === undefined) return;
    if (mark === "ignored") {
      this.#ignoredMarks++;
      this.#options.log.warn({ prefix: message.prefix }, "a logical message was ignored: it is not signed, or not transactional");
    } else if (segment !== undefined && !this.#isSeen(position)) this.#push(segment, mark, bytes);
  }

  #commit(endLsn: bigint): void {
    const segment = this.#current();
    segment.isWhole = true;
    this.#open = undefined;
    segment.items.push({ kind: "commit", transaction: segment.transaction, endLsn });
    this.#step({ kind: "commit", endLsn });
    this.#wake();
  }

  #current(): Segment {
    if (this.#open === undefined) throw new AncrageError("ANCRAGE_PROTOCOL", "the log sent a change outside of a transaction.");
    return this.#open;
  }

  /** The rows of one COPY multi-insert share their LSN; `ordinal` tells them apart. */
  #place(lsn: bigint, { commitLsn }: Transaction): Position {
    this.#ordinal = lsn === this.#lastChangeLsn ? this.#ordinal + 1 : 0;
    this.#lastChangeLsn = lsn;
    return { commitLsn, changeLsn: lsn, ordinal: this.#ordinal };
  }

  #isSeen(position: Position): boolean {
    if (comparePositions(position, this.#seen) <= 0) return true;
    this.#seen = position;
    return false;
  }

  #push(segment: Segment, item: Captured, bytes: number): void {
    segment.items.push(item);
    this.#queuedBytes += bytes;
    if (this.#queuedBytes > maxQueuedBytes) this.#stream?.pause();
    // A large transaction is handed over while it is still being read; a small one whole, at its commit.
    if (segment.items.length === 256 || this.#queuedBytes > maxQueuedBytes) this.#wake();
  }

  /** An estimate is enough: it only decides when to read on. */
  #bytesOf(taken: number): number {
    const left = this.#segments.reduce((sum, segment) => sum + segment.items.length, 0);
    return (this.#queuedBytes * taken) / (left + taken);
  }

  // --- the gate --------------------------------------------------------------------------------------------------------------

  /** Marks the leading segments that are visible to other sessions now: one snapshot for all of them. */
  async #openGate(): Promise<void> {
    const first = this.#segments[0];
    if (first === undefined || first.isVisible) return;
    const snapshot = await this.#readSnapshot();
    for (const segment of this.#segments) {
      if (!segment.isVisible && !isVisible(segment.transaction.xid, snapshot)) break;
      segment.isVisible = true;
    }
    if (first.isVisible) this.#gateAttempts = 0;
    else this.#shutGate();
  }

  /** Nothing is work until the timer has run: outcomes are journaled meanwhile. */
  #shutGate(): void {
    this.#isGateShut = true;
    const delayMs = visibilityDelaysMs[Math.min(this.#gateAttempts++, visibilityDelaysMs.length - 1)] ?? 0;
    setTimeout(() => {
      this.#isGateShut = false;
      this.#wake();
    }, delayMs).unref();
  }

  async #readSnapshot(): Promise<ReturnType<typeof parseSnapshot>> {
    this.#reader ??= await this.#connectReader();
    const { rows } = await this.#reader.query<{ snapshot: string }>({
      name: "snapshot",
      text: "select pg_current_snapshot()::text as snapshot",
    });
    return parseSnapshot(rows[0]?.snapshot ?? "");
  }

  async #connectReader(): Promise<pg.Client> {
    const reader = await connectClient({ connectionString: this.#options.connectionString, applicationName: "ancrage snapshots" });
    reader.on("error", () => (this.#reader = undefined));
    return reader;
  }

  #step(event: AckEvent): void {
    this.#ack = nextAckState(this.#ack, event);
  }

  #wake(): void {
    const listener = this.#listener;
    this.#listener = undefined;
    listener?.();
  }
}

/** What START_REPLICATION answered, in words: decided on the SQLSTATE, never on the text. */
function explainStartFailure(error: unknown, slot: string): unknown {
  const because = error instanceof Error ? error.message : String(error);
  switch (sqlStateOf(error)) {
    case "55006":
      return new AncrageError("ANCRAGE_SLOT_BUSY", `replication slot "${slot}" is in use: ${because}.`, {
        hint: "Another process reads it. Stop that one, or let this one wait as its standby.",
        cause: error,
      });
    case "42704":
      return new AncrageError("ANCRAGE_NOT_MIGRATED", `replication slot "${slot}" does not exist: ${because}.`, {
        hint: 'Run "ancrage migrate <folder>".',
        cause: error,
      });
    case "55000":
      return new AncrageError("ANCRAGE_SLOT_LOST", `replication slot "${slot}" can no longer be read: ${because}.`, {
        hint: "Changes since the last journaled position were not seen. Raise max_slot_wal_keep_size before making a new slot.",
        cause: error,
      });
    default:
      return error;
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
