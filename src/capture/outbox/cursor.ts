import { formatLsn, parseLsn } from "../../lsn.ts";
import type { Position } from "../change.ts";

/** A moment at which the outbox was looked at. */
export interface PollPoint {
  /** What was visible then: `795:799:795,797`. */
  readonly snapshot: string;
  /** No position that was given until then comes after it. */
  readonly endLsn: bigint;
  /** By the database's clock, in microseconds since the Unix epoch: what is newly visible at the next look was committed after it. */
  readonly atUs: bigint;
}

/**
 * What a start needs beside a position. It holds for every position of the stretch between the two looks, and for where that begins.
 */
export interface OutboxCursor {
  /** Everything that was visible here is in the journal. */
  readonly from: PollPoint;
  /** The stretch that is being handed over: what is visible here and was not at `from`. Undefined before the first. */
  readonly to?: PollPoint | undefined;
  /** The commit position of its last transaction; undefined while it is not known. */
  readonly lastLsn?: bigint | undefined;
  /** After that transaction the log is read, from its mark of the switch on. */
  readonly isSwitched?: boolean | undefined;
}

/** Before all rows: nothing is visible in it. */
export const startOfOutbox = (endLsn: bigint): PollPoint => ({ snapshot: "1:1:", endLsn, atUs: 0n });

/** Larger than any number of a row: the end of a transaction. */
export const endOfTransaction = 0xffff_ffff_ffff_ffffn;

/** Where to go on. */
export interface OutboxResume {
  readonly from: PollPoint;
  /** A stretch that was begun, and its last transaction of which something is in the journal. */
  readonly begun?: { readonly to: PollPoint; readonly at: Position } | undefined;
  /** Nothing more comes here: the log is read. */
  readonly isSwitched?: boolean | undefined;
}

export function computeOutboxResume({ from, to, lastLsn, isSwitched }: OutboxCursor, journaled: Position): OutboxResume {
  if (to === undefined || journaled.commitLsn <= from.endLsn) return { from };
  // Whole: what is left of its rows may be truncated by now, and cannot be counted any more.
  const isWhole = lastLsn !== undefined && journaled.commitLsn >= lastLsn && journaled.changeLsn === endOfTransaction;
  return isWhole ? { from: to, isSwitched } : { from, begun: { to, at: journaled } };
}

/**
 * Positions in the outbox: the commit LSN counts the transactions of a stretch, on from where the last one ended, the change LSN is
 * the row's own number. Ids are made of both, and so come out the same when a stretch is read again.
 */
export const commitLsnOf = (from: PollPoint, index: number): bigint => from.endLsn + 1n + BigInt(index);

/** How many transactions of a stretch stand before the one of this position. */
export const indexOf = (from: PollPoint, { commitLsn }: Position): number => Number(commitLsn - from.endLsn - 1n);

export function formatCursor({ from, to, lastLsn, isSwitched }: OutboxCursor): string {
  return JSON.stringify({
    from: formatPoint(from),
    ...(to === undefined ? {} : { to: formatPoint(to) }),
    ...(lastLsn === undefined ? {} : { lastLsn: formatLsn(lastLsn) }),
    ...(isSwitched === true ? { isSwitched } : {}),
  });
}

export function parseCursor(text: string): OutboxCursor {
  const { from, to, lastLsn, isSwitched } = JSON.parse(text) as { from: PointText; to?: PointText; lastLsn?: string; isSwitched?: boolean };
  return {
    from: parsePoint(from),
    to: to === undefined ? undefined : parsePoint(to),
    lastLsn: lastLsn === undefined ? undefined : parseLsn(lastLsn),
    isSwitched,
  };
}

interface PointText {
  readonly snapshot: string;
  readonly endLsn: string;
  readonly atUs: string;
}

const formatPoint = ({ snapshot, endLsn, atUs }: PollPoint): PointText => ({ snapshot, endLsn: formatLsn(endLsn), atUs: String(atUs) });
const parsePoint = ({ snapshot, endLsn, atUs }: PointText): PollPoint => ({ snapshot, endLsn: parseLsn(endLsn), atUs: BigInt(atUs) });
