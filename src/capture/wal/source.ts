import type { Clock } from "../../clock.ts";
import { delayOf, silenceDelaysMs } from "../../delay-of.ts";
import { AncrageError, sqlStateOf } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { formatLsn } from "../../lsn.ts";
import { pause } from "../../pause.ts";
import { nameTable, type TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { TestSignal } from "../../test-signal.ts";
import {
  comparePositions,
  startOfLog,
  type Captured,
  type ChangeSource,
  type Commit,
  type Origin,
  type Position,
  type ResumePoint,
  type Transaction,
} from "../change.ts";
import { readMark } from "../marks.ts";
import { idlePosition, initialAckState, nextAckState, type AckEvent, type AckState } from "./acker.ts";
import { Gate } from "./gate.ts";
import { decode, type PgOutputMessage, type RelationMessage } from "./pgoutput.ts";
import { createTransactionQueue, type Segment } from "./queue.ts";
import { compileRelation, type Relation } from "./relation.ts";
import { SnapshotReader } from "./snapshot-reader.ts";
import { explainStartFailure, publicationMissing } from "./start-failure.ts";
import { ReplicationStream } from "./stream.ts";
import { toChange, type RowChange } from "./to-change.ts";

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
  /** Ends the session that has the slot, of a process that led before. Without it that is waited for. */
  readonly endHolder?: () => Promise<void>;
  /** `wal_sender_timeout` of the replication session. Default: 10 s. */
  readonly senderTimeoutMs?: number;
  readonly signal?: TestSignal | undefined;
  /** Asked before a connection is made anew. Throws `ANCRAGE_JOURNAL_WENT_BACK` where that would skip what this database has. */
  readonly assertWhole?: () => Promise<void>;
  /** All before the mark that switched to the log was in the outbox: nothing of it is handed over. */
  readonly isFromSwitch?: boolean;
}

/** The server's own default is 60 s; with 10 s a stale holder of the slot goes soon after its host died. */
const defaultSenderTimeoutMs = 10_000;
/** Reading stops above this much of the log that was not taken, and goes on below half of it. */
const maxQueuedBytes = 16 * 1024 * 1024;
/** A large transaction is handed over while it is still being read, this many changes at a time; a small one at its commit. */
const handOverCount = 256;
const pausedLookMs = 2_000;

/**
 * Changes out of the write-ahead log, over one replication session.
 *
 * `#receive` fills the queue, `take` empties it, and both stand still for nothing but memory and visibility: a connection that ends is
 * opened again, from the end of the last transaction that was received whole.
 */
export class WalSource implements ChangeSource {
  readonly sourceId: string;
  readonly #options: WalSourceOptions;
  readonly #senderTimeoutMs: number;
  /** By their oids, which stay through renames. */
  readonly #tableOf: ReadonlyMap<number, TableInfo>;
  readonly #relations = new Map<number, Relation>();
  /** Relations that were described since the last change: a partition's comes right after its root's, before the first change of it. */
  #described: RelationMessage[] = [];
  /** By the oid of a root with `replica identity full`: its partitions that were seen without. */
  readonly #partial = new Map<number, Set<number>>();
  readonly #queue = createTransactionQueue();
  readonly #snapshots: SnapshotReader;
  readonly #gate: Gate;
  #ack: AckState = initialAckState(0n);
  /** The last position that was queued: what the log sends again after a reconnection is dropped up to here. */
  #seen: Position = startOfLog;
  /** The transaction that the log is in; undefined between two. Written by `#receive`. */
  #open: Segment | undefined;
  /** What the open transaction has said of itself so far. Written by `#mark`. */
  #origin: Origin | undefined;
  /** No mark of a switch to the log has come yet, and it is waited for. */
  #isBeforeSwitch: boolean;
  /** The open transaction switches: to the log, which begins with its end; or to the outbox, where the log's part ends. */
  #switchesTo: "wal" | "outbox" | undefined;
  /** The end of the transaction after which the outbox is read. */
  #switched: Commit | undefined;
  #lastChangeLsn = 0n;
  #ordinal = 0;
  /** Changes of the open transaction since it was last handed over. */
  #unannounced = 0;
  /** Undefined while it is not connected. */
  #stream: ReplicationStream | undefined;
  /** Connections that brought no whole transaction, in a row. */
  #vainConnections = 0;
  /** Ends when reading goes on, or with `stop`. */
  #pausing: Promise<void> | undefined;
  /** Ends with `stop`, or with a connection. */
  #reconnecting: Promise<void> | undefined;
  /** What cannot be mended by connecting again; thrown by `take` once all that came before was taken. */
  #failure: unknown;
  #listener: (() => void) | undefined;
  readonly #stopping = new AbortController();
  #ignoredMarks = 0;

  constructor(options: WalSourceOptions) {
    this.#options = options;
    this.#senderTimeoutMs = options.senderTimeoutMs ?? defaultSenderTimeoutMs;
    this.#tableOf = new Map([...options.tables.values()].map((table) => [table.oid, table]));
    this.#snapshots = new SnapshotReader(options);
    this.#gate = new Gate({
      queue: this.#queue,
      snapshots: this.#snapshots,
      onSilence: () => this.#endPaused(),
      onTime: () => this.#wake(),
    });
    this.sourceId = options.sourceId;
    this.#isBeforeSwitch = options.isFromSwitch === true;
  }

  async start(resume: ResumePoint): Promise<void> {
    const { clock, log } = this.#options;
    this.#seen = resume.journaled;
    this.#ack = initialAckState(resume.endLsn);
    // Whoever starts this leads. A holder of the slot is then a session whose process is gone: the server ends it after its timeout.
    const deadlineMs = clock.monotonicMs() + 2 * this.#senderTimeoutMs;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#connect();
      } catch (error) {
        const isBusy = error instanceof AncrageError && error.code === "ANCRAGE_SLOT_BUSY";
        if (!isBusy || clock.monotonicMs() >= deadlineMs || this.#isStopped) throw error;
        if (attempt === 0) {
          log.warn({ err: error }, "the replication slot is in use; waiting for the session of before to end");
          await this.#options.endHolder?.().catch((cause: unknown) => {
            log.warn({ err: cause }, "the session that has the slot could not be ended; the server does once it is silent for long enough");
          });
        }
        await pause(delayOf(silenceDelaysMs, attempt), this.#stopping.signal);
        // Another process may lead by now, and read it.
        if (this.#isStopped) throw error;
      }
    }
  }

  hasWork(): boolean {
    if (this.#queue.hasItems) return !this.#gate.isShut;
    return this.#failure !== undefined;
  }

  onWork(listener: () => void): void {
    this.#listener = listener;
  }

  async take(limit: number): Promise<readonly Captured[]> {
    // What was committed before is sent first: the same change stands in the way again after each restart, and would hold it back.
    if (this.#failure !== undefined && !this.#queue.hasItems) throw this.#failure;
    if (this.#queue.hasItems && !this.#queue.isVisible) await this.#gate.look();
    const taken = this.#queue.take(limit);
    if (this.#queue.bytes < maxQueuedBytes / 2) this.#stream?.resume();
    return taken;
  }

  confirm(lsn: bigint): void {
    this.#step({ kind: "journaled", lsn });
    // Not a status for each batch: half a timeout later one goes out anyway, and the server asks before it waits for us.
  }

  idleLsn(): bigint | undefined {
    return idlePosition(this.#ack);
  }

  /** While it is true nothing was taken: what is journaled is the outbox's. */
  get isBeforeSwitch(): boolean {
    return this.#isBeforeSwitch;
  }

  /** What nothing comes after here: the end of a transaction that is not handed over. */
  get switched(): Commit | undefined {
    return this.#queue.hasItems ? undefined : this.#switched;
  }

  /** Marks of ours that were unsigned, forged or not transactional. */
  get ignoredMarks(): number {
    return this.#ignoredMarks;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#gate.stop();
    // Once for a connection that is being made, which ends it; once for one that was made meanwhile.
    await this.#stream?.stop();
    await this.#reconnecting;
    await this.#stream?.stop();
    await this.#snapshots.stop();
    await this.#pausing;
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  // --- the connection ----------------------------------------------------------------------------------------------------------

  async #connect(): Promise<void> {
    const { replicationUrl, slot, publications, clock } = this.#options;
    const startLsn = this.#ack.receivedLsn;
    const stream: ReplicationStream = new ReplicationStream(
      { connectionString: replicationUrl, slot, publications, startLsn, senderTimeoutMs: this.#senderTimeoutMs, clock },
      {
        onData: (lsn, data) => this.#receive(lsn, data),
        // It wakes nobody: a busy server sends a thousand a second, and whoever waits looks at the idle position by its own timer, which
        // each wake would put off.
        onKeepalive: (lsn) => this.#step({ kind: "keepalive", lsn }),
        onEnd: (error) => {
          this.#reconnecting = this.#reconnect(error);
        },
        confirmedLsn: () => this.#ack.journaledLsn,
      },
    );
    // Before it begins: the first frames may come, and ask for a pause, before `start` is back here.
    this.#stream = stream;
    try {
      await stream.start();
    } catch (error) {
      if (this.#stream === stream) this.#stream = undefined;
      await stream.stop();
      throw explainStartFailure(error, slot);
    }
  }

  async #reconnect(error: Error): Promise<void> {
    const { log } = this.#options;
    this.#stream = undefined;
    // Before PostgreSQL 18: the log is decoded as of the time of each change, and at that time the publication was not there. It will
    // not be there the next time either.
    if (sqlStateOf(error) === "42704") return this.#fail(publicationMissing(error));
    this.#step({ kind: "disconnected" });
    this.#open = undefined;
    // The new session describes its relations anew.
    this.#relations.clear();
    this.#described = [];
    this.#partial.clear();
    log.warn({ error: error.message }, "the replication stream ended; connecting again");
    for (;;) {
      await pause(delayOf(silenceDelaysMs, this.#vainConnections++), this.#stopping.signal);
      if (this.#isStopped) return;
      try {
        await this.#options.assertWhole?.();
        // `stop` ends a connection that is being made, and waits for one that was asked for after it.
        if (this.#isStopped) return;
        await this.#connect();
        log.info({ from: formatLsn(this.#ack.receivedLsn) }, "the replication stream is back");
        return;
      } catch (failure) {
        if (failure instanceof AncrageError && isFinal(failure)) return this.#fail(failure);
        log.warn({ err: failure }, "could not connect the replication stream");
      }
    }
  }

  /** Reads no more: what came after could not be told apart from what was lost. */
  #fail(error: unknown): void {
    this.#failure ??= error;
    void this.#stream?.stop();
    this.#wake();
  }

  // --- reading ---------------------------------------------------------------------------------------------------------------

  #receive(lsn: bigint, data: Buffer): void {
    try {
      this.#handle(lsn, decode(data), data.length);
    } catch (error) {
      this.#fail(error);
    }
  }

  #handle(lsn: bigint, message: PgOutputMessage, bytes: number): void {
    if (this.#switched !== undefined) return undefined;
    switch (message.kind) {
      case "begin":
        return this.#begin({ xid: message.xid, commitLsn: message.commitLsn, committedAtUs: message.committedAtUs });
      case "relation":
        return this.#relate(message);
      case "insert":
      case "update":
      case "delete":
        if (this.#described.length > 0) this.#notePartition(message.relationOid);
        return this.#add(lsn, bytes, toChange(message, this.#relation(message.relationOid)));
      case "message":
        return this.#mark(message, bytes);
      case "truncate":
        this.#described = [];
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
    this.#origin = undefined;
    this.#lastChangeLsn = 0n;
    this.#ordinal = 0;
    this.#unannounced = 0;
    this.#switchesTo = undefined;
    this.#open = this.#isBeforeSwitch ? { transaction } : this.#queue.begin(transaction);
  }

  #relate(message: RelationMessage): void {
    this.#described.push(message);
    const { tables, types } = this.#options;
    const isOldPartial = (this.#partial.get(message.oid)?.size ?? 0) > 0;
    // The log has the name of that time. Of one that was made anew since, what the former one of its name had is read all the same.
    const table = this.#tableOf.get(message.oid) ?? tables.get(nameTable(message.schema, message.table));
    this.#relations.set(message.oid, compileRelation(message, table, types, isOldPartial));
  }

  /**
   * PostgreSQL says of an old row that it is whole where the root's identity is full. One of a partition with another has null for all
   * that is not of its key: taken for values, a rule that compares would decide by them.
   */
  #notePartition(oid: number): void {
    const [root, leaf] = this.#described;
    this.#described = [];
    if (root?.oid !== oid || root.replicaIdentity !== "f" || leaf === undefined) return;
    const partial = this.#partial.get(oid) ?? new Set();
    this.#partial.set(oid, partial);
    if (leaf.replicaIdentity === "f") partial.delete(leaf.oid);
    else partial.add(leaf.oid);
    this.#relate(root);
    this.#described = [];
  }

  #relation(oid: number): Relation {
    const relation = this.#relations.get(oid);
    if (relation === undefined)
      throw new AncrageError("ANCRAGE_PROTOCOL", `a change names relation ${oid}, which the log has not described.`);
    return relation;
  }

  #add(lsn: bigint, bytes: number, change: RowChange): void {
    const { transaction } = this.#current();
    const position = this.#place(lsn, transaction);
    if (this.#isBeforeSwitch || this.#isSeen(position)) return;
    this.#push({ kind: "change", transaction, position, ...change, origin: this.#origin }, bytes);
  }

  #mark(message: Extract<PgOutputMessage, { kind: "message" }>, bytes: number): void {
    const transaction = this.#open?.transaction;
    const position = transaction === undefined ? this.#seen : this.#place(message.lsn, transaction);
    // `content` is a view of the socket's chunk: what is kept of it is copied by the JSON parser and by `toString`.
    const mark = readMark({ ...message, transaction, position, triggerKey: this.#options.triggerKey });
    if (mark === undefined) return;
    if (mark === "ignored") {
      this.#ignoredMarks++;
      this.#options.log.warn({ prefix: message.prefix }, "a logical message was ignored: it is not signed, or not transactional");
    } else if (mark.kind === "origin") {
      // Also where it was seen before: what follows it in a large transaction may not have been.
      this.#origin = { ...this.#origin, ...mark.origin };
    } else if (mark.kind === "switch") {
      // Before the one that is waited for there may be those of earlier times.
      if (mark.to === "wal" || !this.#isBeforeSwitch) this.#switchesTo = mark.to;
    } else if (!this.#isBeforeSwitch && !this.#isSeen(position))
      this.#push(mark.kind === "trigger" ? { ...mark, origin: this.#origin } : mark, bytes);
  }

  #commit(endLsn: bigint): void {
    const { transaction } = this.#current();
    void this.#options.signal?.("received", transaction.xid);
    this.#open = undefined;
    this.#vainConnections = 0;
    if (this.#switchesTo === "outbox") this.#leave({ kind: "commit", transaction, endLsn });
    else {
      if (this.#isBeforeSwitch && this.#switchesTo === "wal") {
        this.#isBeforeSwitch = false;
        this.#queue.begin(transaction);
      }
      if (!this.#isBeforeSwitch) this.#queue.end(endLsn);
      this.#step({ kind: "commit", endLsn });
    }
    this.#wake();
  }

  /** What comes after is in the outbox too, and is read there. */
  #leave(switched: Commit): void {
    this.#switched = switched;
    void this.#stream?.stop();
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

  #push(item: Exclude<Captured, { kind: "commit" }>, bytes: number): void {
    this.#queue.push(item, bytes);
    const isFull = this.#queue.bytes > maxQueuedBytes;
    if (isFull) this.#pauseReading();
    if (++this.#unannounced < handOverCount && !isFull) return;
    this.#unannounced = 0;
    this.#wake();
  }

  /**
   * A server that shuts down waits until all of its log was read here, which stands still. Whoever would take from the queue may wait for
   * the database itself, so that is asked from time to time whether it is there.
   */
  #pauseReading(): void {
    this.#stream?.pause();
    this.#pausing ??= this.#watchPaused().finally(() => (this.#pausing = undefined));
  }

  async #watchPaused(): Promise<void> {
    for (;;) {
      await pause(pausedLookMs, this.#stopping.signal);
      if (this.#isStopped || this.#stream?.isPaused !== true) return;
      if ((await this.#snapshots.read()) === undefined) this.#endPaused();
    }
  }

  #endPaused(): void {
    if (this.#stream?.isPaused === true) this.#stream.interrupt("the database does not answer while reading stands still");
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

/** Connecting again does not mend it. */
const isFinal = ({ code }: AncrageError): boolean => code === "ANCRAGE_SLOT_LOST" || code === "ANCRAGE_JOURNAL_WENT_BACK";
