import type { Cause } from "../cause.ts";

/**
 * What later steps know of capture: changes and explicit triggers, in commit order, each with its position.
 *
 * Whether they came out of the write-ahead log or of an outbox stays in here.
 */

/** A value of a record, as `store/types.ts` fixes it for the log, `load`, `sql` and samples alike. */
export type Value = unknown;

/**
 * A row as user functions see it: column name to value. A column that was not logged throws when it is read; one of a new row is then read
 * of the row as it is now, and whoever asked is run again (`lacking.ts`).
 */
export type Row = Readonly<Record<string, Value>>;

/**
 * A place in the log. Positions are compared field by field, in this order.
 *
 * `ordinal` counts the changes that share one LSN: the rows of a COPY multi-insert do.
 */
export interface Position {
  readonly commitLsn: bigint;
  readonly changeLsn: bigint;
  readonly ordinal: number;
}

export type Action = "insert" | "update" | "delete";

/** The transaction that a change was committed in. One object is shared by all of its changes. */
export interface Transaction {
  /** As the log has it: 32 bits, unsigned, without its epoch. */
  readonly xid: number;
  readonly commitLsn: bigint;
  /** Microseconds since the Unix epoch. Commit times may go backwards in commit order. */
  readonly committedAtUs: bigint;
}

/** What a transaction said of itself (`ancrage.actor`, `caused_by`, `mute`) before a change. Shared by the changes that follow. */
export interface Origin {
  /** Who makes the changes, as the application says. */
  readonly actor?: string;
  /** The delivery that made the application write. */
  readonly cause?: Cause;
  /** Not tracked at all. */
  readonly isMuted?: boolean;
}

/** One row insert, update or delete, as committed. */
export interface Change {
  readonly kind: "change";
  readonly transaction: Transaction;
  readonly position: Position;
  /** As users name it: `deal`, or `sales.deal` outside the schema `public`. */
  readonly table: string;
  readonly action: Action;
  /** The primary key as text; a JSON array of texts where it has several columns. */
  readonly key: string;
  /** The old row, where the log carried one (replica identity full). */
  readonly before: Row | undefined;
  /** The new row; `undefined` for a delete. */
  readonly after: Row | undefined;
  readonly origin?: Origin | undefined;
}

/** `ancrage.trigger(…)`, as it was committed. */
export interface TriggerMark {
  readonly kind: "trigger";
  readonly transaction: Transaction;
  readonly position: Position;
  /** The UUID that `ancrage.trigger` returned to its caller. */
  readonly id: string;
  readonly event: string;
  readonly key: string;
  readonly data: unknown;
  readonly origin?: Origin | undefined;
}

/** A subscription was created, changed or deleted at this place of the log. */
export interface SubscriptionMark {
  readonly kind: "subscription";
  readonly transaction: Transaction;
  readonly position: Position;
  readonly subscriptionId: string;
  readonly revision: bigint;
}

/** The end of a transaction: from here on all of it may count as read. */
export interface Commit {
  readonly kind: "commit";
  readonly transaction: Transaction;
  /** Just past the commit record: what may be confirmed once the transaction is journaled. */
  readonly endLsn: bigint;
}

export type Captured = Change | TriggerMark | SubscriptionMark | Commit;

/** Where changes come from: `wal/source.ts`, or an outbox. */
export interface ChangeSource {
  /** Part of every message id, so that ids of two databases, or of one after a restore, never meet. */
  readonly sourceId: string;
  /**
   * Begins to read after `position`, skipping what was journaled before.
   *
   * @throws AncrageError `ANCRAGE_SLOT_LOST`, `ANCRAGE_SLOT_BUSY`, `ANCRAGE_NOT_MIGRATED`
   */
  start(resume: ResumePoint): Promise<void>;
  /** What is committed and visible now, in commit order, at most about `limit` items; empty if nothing is. */
  take(limit: number): Promise<readonly Captured[]>;
  /** Whether `take` may return something. */
  hasWork(): boolean;
  /** Called once, soon after `hasWork()` turns true or the source failed. */
  onWork(listener: () => void): void;
  /** All up to this LSN is in the journal; the source may forget it. */
  confirm(lsn: bigint): void;
  /** All that was committed before this place of the log is in the journal, although nothing came that says so; for idle positions. */
  idleLsn(): bigint | undefined;
  /** What `start` needs beside a position that was taken, or an idle one: journaled with it. A source that has none needs nothing more. */
  cursor?(): string | undefined;
  /** Where it reads now, where it may change. */
  readonly reads?: "log" | "outbox";
  /** Marks with our prefix that were not ours: unsigned, forged, or not transactional. */
  readonly ignoredMarks: number;
  stop(): Promise<void>;
}

/** From where to read: everything up to `journaled` is in the journal already. */
export interface ResumePoint {
  /** Where the log is asked from: the end of the last transaction that was journaled whole. */
  readonly endLsn: bigint;
  /** Inside a large transaction: its changes up to here are skipped, its marks and relations still applied. */
  readonly journaled: Position;
  /** What the source said of it. */
  readonly cursor?: string | undefined;
}

export const startOfLog: Position = { commitLsn: 0n, changeLsn: 0n, ordinal: 0 };

/** Negative where `a` comes first. */
export function comparePositions(a: Position, b: Position): number {
  if (a.commitLsn !== b.commitLsn) return a.commitLsn < b.commitLsn ? -1 : 1;
  if (a.changeLsn !== b.changeLsn) return a.changeLsn < b.changeLsn ? -1 : 1;
  return a.ordinal - b.ordinal;
}
