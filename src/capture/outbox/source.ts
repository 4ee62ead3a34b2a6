import type pg from "pg";
import type { Clock } from "../../clock.ts";
import { delayOf, silenceDelaysMs } from "../../delay-of.ts";
import type { Logger } from "../../log.ts";
import { parseLsn } from "../../lsn.ts";
import { AncrageError } from "../../errors.ts";
import { KeptSession } from "../../store/kept-session.ts";
import { lookAtOutbox, readOutboxPage, readOutboxRows, type OutboxLook, type OutboxRow } from "../../store/outbox.ts";
import type { TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { Captured, ChangeSource, Commit, Origin, Position, ResumePoint, Transaction } from "../change.ts";
import { readMark } from "../marks.ts";
import {
  computeOutboxResume,
  endOfTransaction,
  formatCursor,
  indexOf,
  parseCursor,
  startOfOutbox,
  type OutboxCursor,
  type PollPoint,
} from "./cursor.ts";
import { endOf, lastLsnOf, nextLsn, planRead, type Stretch } from "./stretch.ts";
import { createRowReader, type RowReader } from "./to-captured.ts";
import { OutboxTurns } from "./turns.ts";

export interface OutboxSourceOptions {
  readonly connectionString: string;
  readonly sourceId: string;
  /** By the name that users give them. */
  readonly tables: ReadonlyMap<string, TableInfo>;
  readonly types: ValueTypes;
  readonly triggerKey: Buffer;
  /** Throws where the database is not the one of before, or has not what the journal of this process had. */
  readonly assertWhole: (client: pg.Client) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  /** Transactions that are listed at once. Default: 20,000. */
  readonly maxListed?: number;
}

const defaultMaxListed = 20_000;
/** A look at a large outbox takes seconds; a network that has swallowed the answer would take a quarter of an hour. */
const answerWithinMs = 60_000;
/** Rows are read about so many bytes at a time. */
const pageBytes = 8 * 1024 * 1024;
/**
 * How soon it is looked again while there was nothing. Not woken by NOTIFY: each transaction of the application would pay for it, and
 * those that notify commit one after another.
 */
const lookDelaysMs = [1, 1, 2, 2, 5, 5, 5, 10, 10, 10, 20];

/** Rows of one transaction, in order. */
interface Piece {
  readonly xid: string;
  readonly rows: readonly OutboxRow[];
  /** Whether the transaction ends with them. */
  readonly isEnd: boolean;
}

/**
 * Changes out of the outbox that triggers write, where the log cannot be read.
 *
 * Each look takes a snapshot: what is visible in it and was not in the one before is new, whichever number it has. So nothing waits for
 * a transaction that stays open, and none is passed over.
 */
export class OutboxSource implements ChangeSource {
  readonly sourceId: string;
  readonly #options: OutboxSourceOptions;
  readonly #reader: RowReader;
  readonly #turns: OutboxTurns;
  readonly #session: KeptSession;
  /** Everything that is visible in it was handed over. */
  #from: PollPoint = startOfOutbox(0n);
  #stretch: Stretch | undefined;
  /** What the transaction that is read has said of itself so far. */
  #origin: Origin | undefined;
  /** Of the transaction in which a start goes on: its rows up to here are in the journal. What it says of itself still holds. */
  #passedId = 0n;
  /** Of what was taken last. */
  #cursor: OutboxCursor = { from: this.#from };
  /** Stretches that were handed over and are not confirmed yet, in order. */
  readonly #unconfirmed: PollPoint[] = [];
  /** Set once the transaction that switched to the log was taken. */
  #switched: Commit | undefined;
  #emptyLooks = 0;
  #faults = 0;
  /** Runs between two looks, and while the database does not answer: nothing is work until then. */
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  /** What no waiting mends; thrown by `take`. */
  #failure: unknown;
  /** About what a row takes, as the last ones did. */
  #rowBytes = 1_000;
  #listener: (() => void) | undefined;
  #isStopped = false;
  #ignoredMarks = 0;

  constructor(options: OutboxSourceOptions) {
    this.#options = options;
    this.sourceId = options.sourceId;
    this.#reader = createRowReader(options.tables, options.types);
    // A snapshot says nothing of a database that was promoted, or put back, meanwhile: numbers of transactions are used again there, and
    // what has them would be passed over, or emptied out unread.
    const { connectionString, log, assertWhole: check } = options;
    this.#turns = new OutboxTurns({ connectionString, check, log });
    this.#session = new KeptSession({ connectionString, applicationName: "ancrage outbox", answerWithinMs, check });
  }

  async start({ endLsn, journaled, cursor }: ResumePoint): Promise<void> {
    const begin = endLsn > journaled.commitLsn ? endLsn : journaled.commitLsn;
    const { from, begun } = cursor === undefined ? { from: startOfOutbox(begin) } : computeOutboxResume(parseCursor(cursor), journaled);
    this.#from = from;
    this.#cursor = { from };
    await this.#session.get();
    if (begun === undefined) await this.#look();
    else {
      const isPassed = begun.at.changeLsn === endOfTransaction;
      await this.#list(begun.to, indexOf(from, begun.at) + (isPassed ? 1 : 0));
      if (!isPassed) this.#passedId = begun.at.changeLsn;
    }
    this.#turns.start();
    this.#lookLater(0);
  }

  hasWork(): boolean {
    return this.#failure !== undefined || (this.#stretch !== undefined && this.#timer === undefined);
  }

  onWork(listener: () => void): void {
    this.#listener = listener;
  }

  async take(limit: number): Promise<readonly Captured[]> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#stretch === undefined || this.#timer !== undefined) return [];
    const pageSize = Math.max(1, Math.min(limit, Math.floor(pageBytes / this.#rowBytes)));
    let pieces: readonly Piece[];
    try {
      pieces = await this.#read(this.#stretch, pageSize);
      this.#faults = 0;
    } catch (error) {
      await this.#afterFault(error);
      return [];
    }
    const items: Captured[] = [];
    try {
      for (const piece of pieces) this.#handOver(piece, items);
    } catch (error) {
      // What was committed before is sent first: the same row stands in the way again after each start, and would hold it back.
      this.#failure = error;
      if (items.length === 0) throw error;
    }
    this.#cursor = {
      from: this.#from,
      to: endOf(this.#stretch),
      lastLsn: lastLsnOf(this.#stretch),
      isSwitched: this.#switched !== undefined,
    };
    if (this.#failure === undefined && planRead(this.#stretch, 1).kind === "over") this.#finish(this.#stretch);
    return items;
  }

  confirm(lsn: bigint): void {
    let consumed: PollPoint | undefined;
    while (this.#unconfirmed[0] !== undefined && this.#unconfirmed[0].endLsn <= lsn) consumed = this.#unconfirmed.shift();
    if (consumed !== undefined) this.#turns.consumed(consumed.snapshot);
  }

  /** The last look that found nothing. A start would do without; whoever asks how far the journal is complete would not. */
  idleLsn(): bigint | undefined {
    return this.#isIdle ? this.#from.endLsn : undefined;
  }

  cursor(): string {
    return formatCursor(this.#isIdle ? { from: this.#from } : this.#cursor);
  }

  /** The end of the transaction that switched to the log; undefined while it was not taken. */
  get switched(): Commit | undefined {
    return this.#switched;
  }

  /** Behind all that was handed over. */
  get endPosition(): Position {
    return { commitLsn: this.#cursor.lastLsn ?? this.#from.endLsn, changeLsn: endOfTransaction, ordinal: 0 };
  }

  get #isIdle(): boolean {
    return this.#stretch === undefined && this.#unconfirmed.length === 0 && this.#switched === undefined;
  }

  get ignoredMarks(): number {
    return this.#ignoredMarks;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await Promise.all([this.#turns.stop(), this.#session.end()]);
    await this.#looking;
    await this.#session.end();
  }

  // --- looking -------------------------------------------------------------------------------------------------------------------

  #lookLater(ms: number): void {
    if (this.#isStopped || this.#stretch !== undefined || this.#switched !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#looking = this.#lookAgain();
    }, ms).unref();
  }

  async #lookAgain(): Promise<void> {
    try {
      await this.#look();
      this.#faults = 0;
    } catch (error) {
      await this.#afterFault(error);
      return;
    }
    if (this.#stretch === undefined) this.#lookLater(delayOf(lookDelaysMs, this.#emptyLooks++));
    else {
      this.#emptyLooks = 0;
      this.#wake();
    }
  }

  async #look(): Promise<void> {
    const stretch = { from: this.#from.snapshot, to: undefined };
    const look = await lookAtOutbox(await this.#session.get(), stretch, { skip: 0, limit: this.#maxListed + 1 });
    const lsn = parseLsn(look.lsn);
    const endLsn = lsn > this.#from.endLsn ? lsn : this.#from.endLsn;
    const to = { snapshot: look.snapshot, endLsn, atUs: BigInt(look.atUs) };
    if (isBefore(to.snapshot, this.#from.snapshot)) {
      throw wentBack(`the outbox was read up to the transactions of ${this.#from.snapshot}, and the server is at ${to.snapshot}.`);
    }
    if (look.transactions.length === 0) this.#from = to;
    else this.#begin(to, 0, look);
  }

  /** The transactions of a stretch that was looked at before, from one of them on. */
  async #list(to: PollPoint, skip: number): Promise<void> {
    const stretch = { from: this.#from.snapshot, to: to.snapshot };
    this.#begin(to, skip, await lookAtOutbox(await this.#session.get(), stretch, { skip, limit: this.#maxListed + 1 }));
  }

  #begin(to: PollPoint, offset: number, { transactions }: OutboxLook): void {
    // One more than is taken says that there are more.
    const isListed = transactions.length <= this.#maxListed;
    const listed = isListed ? transactions : transactions.slice(0, this.#maxListed);
    this.#stretch = { from: this.#from, to, transactions: listed, offset, isListed, next: 0, after: "0", open: undefined };
  }

  get #maxListed(): number {
    return this.#options.maxListed ?? defaultMaxListed;
  }

  // --- taking --------------------------------------------------------------------------------------------------------------------

  /** Changes nothing here but the list of transactions: a read that fails is read again. */
  async #read(stretch: Stretch, limit: number): Promise<readonly Piece[]> {
    const next = planRead(stretch, limit);
    switch (next.kind) {
      case "over":
        return [];
      case "list":
        await this.#list(stretch.to, next.skip);
        return [];
      case "page": {
        const rows = await readOutboxPage(await this.#session.get(), { ...next, limit });
        this.#noteBytes(rows);
        // Fewer than were asked for: it has no more.
        return [{ xid: next.xid, rows, isEnd: rows.length < limit }];
      }
      case "whole": {
        const rows = await readOutboxRows(await this.#session.get(), next.xids);
        this.#noteBytes(rows);
        const byXid = Map.groupBy(rows, (row) => row.xid);
        return next.xids.map((xid) => ({ xid, rows: (byXid.get(xid) ?? []).toSorted(compareRows), isEnd: true }));
      }
      default:
        return next satisfies never;
    }
  }

  #handOver({ xid, rows, isEnd }: Piece, items: Captured[]): void {
    const stretch = this.#stretch as Stretch;
    const transaction = stretch.open ?? this.#transactionOf(xid, rows[0], stretch);
    const commit = { kind: "commit", transaction, endLsn: transaction.commitLsn + 1n } as const;
    for (const row of rows) {
      const item = this.#toCaptured(row, transaction, commit);
      if (item !== undefined) items.push(item);
    }
    if (!isEnd) {
      this.#stretch = { ...stretch, after: rows.at(-1)?.id ?? stretch.after, open: transaction };
      return;
    }
    this.#stretch = { ...stretch, next: stretch.next + 1, after: "0", open: undefined };
    this.#origin = undefined;
    this.#passedId = 0n;
    const isLast = planRead(this.#stretch, 1).kind === "over" && this.#switched === undefined;
    items.push(isLast ? { ...commit, endLsn: endOf(this.#stretch).endLsn } : commit);
  }

  #transactionOf(xid: string, first: OutboxRow | undefined, stretch: Stretch): Transaction {
    const beganAtUs = BigInt(first?.at_us ?? 0);
    return {
      // As the log has it.
      xid: Number(BigInt(xid) & 0xffff_ffffn),
      commitLsn: nextLsn(stretch),
      // It began then, and was not committed yet when it was looked before.
      committedAtUs: beganAtUs > stretch.from.atUs ? beganAtUs : stretch.from.atUs,
    };
  }

  #toCaptured(row: OutboxRow, transaction: Transaction, commit: Commit): Captured | undefined {
    const position = { commitLsn: transaction.commitLsn, changeLsn: BigInt(row.id), ordinal: 0 };
    const isPassed = position.changeLsn <= this.#passedId;
    switch (row.kind) {
      case "i":
      case "u":
      case "d":
        return isPassed ? undefined : { ...this.#reader.toChange(row, transaction, position), origin: this.#origin };
      case "t":
        this.#options.log.warn({ tables: [this.#reader.tableName(row.root)] }, "a table was truncated: that makes no events");
        return undefined;
      case "m":
        return this.#toMark(row, { position, isPassed, commit });
      default:
        return row.kind satisfies never;
    }
  }

  #toMark(
    { prefix, content }: OutboxRow,
    at: { readonly position: Position; readonly isPassed: boolean; readonly commit: Commit },
  ): Captured | undefined {
    const { triggerKey, log } = this.#options;
    const { position, isPassed, commit } = at;
    const { transaction } = commit;
    const mark = readMark({
      prefix: prefix ?? "",
      content: content ?? Buffer.alloc(0),
      isTransactional: true,
      transaction,
      position,
      triggerKey,
    });
    if (mark === undefined) return undefined;
    if (mark === "ignored") {
      this.#ignoredMarks++;
      log.warn({ prefix }, "a mark was ignored: it is not signed");
      return undefined;
    }
    if (mark.kind === "origin") {
      this.#origin = { ...this.#origin, ...mark.origin };
      return undefined;
    }
    if (mark.kind === "switch") {
      this.#switched = commit;
      return undefined;
    }
    if (isPassed) return undefined;
    return mark.kind === "trigger" ? { ...mark, origin: this.#origin } : mark;
  }

  #finish(stretch: Stretch): void {
    const end = endOf(stretch);
    this.#stretch = undefined;
    this.#from = end;
    this.#unconfirmed.push(end);
    // While what was taken is journaled, the next look is under way.
    this.#lookLater(0);
  }

  #noteBytes(rows: readonly OutboxRow[]): void {
    if (rows.length === 0) return;
    const sum = rows.reduce((sum, row) => sum + (row.new_row?.length ?? 0) + (row.old_row?.length ?? 0) + (row.columns?.length ?? 0), 0);
    this.#rowBytes = Math.max(100, sum / rows.length);
  }

  /** A database that restarts is waited for; what cannot be read at all ends capture. */
  async #afterFault(error: unknown): Promise<void> {
    if (this.#isStopped) return;
    if (error instanceof AncrageError && (error.code === "ANCRAGE_PROTOCOL" || error.code === "ANCRAGE_JOURNAL_WENT_BACK")) {
      this.#failure = error;
      this.#wake();
      return;
    }
    this.#options.log.warn({ err: error }, "the outbox could not be read; trying again");
    await this.#session.end();
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        if (this.#stretch === undefined) this.#looking = this.#lookAgain();
        else this.#wake();
      },
      delayOf(silenceDelaysMs, this.#faults++),
    ).unref();
  }

  #wake(): void {
    const listener = this.#listener;
    this.#listener = undefined;
    listener?.();
  }
}

/** Whether transactions that had ended by then have not begun here. */
function isBefore(snapshot: string, earlier: string): boolean {
  const endOfSnapshot = (text: string): bigint => BigInt(text.split(":")[1] ?? 0);
  return endOfSnapshot(snapshot) < endOfSnapshot(earlier);
}

const wentBack = (what: string): AncrageError =>
  new AncrageError("ANCRAGE_JOURNAL_WENT_BACK", what, {
    hint: "Start again: it goes on from what the journal of this database says, and nothing that is written here is missed.",
  });

function compareRows(a: OutboxRow, b: OutboxRow): number {
  return a.id.length - b.id.length || (a.id < b.id ? -1 : 1);
}
