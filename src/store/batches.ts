import pg from "pg";
import { formatLsn, parseLsn } from "../lsn.ts";
import type { Position } from "../capture/change.ts";
import type { Queryable } from "./database.ts";

/** One row of `ancrage.batches`: where capture and delivery stand after it. */
export interface BatchRow {
  readonly source: string;
  readonly number: bigint;
  readonly epoch: bigint;
  /** Messages are complete up to here. */
  readonly journaled: Position;
  /** Every delivery of every message up to here is a row. */
  readonly settled: Position;
  /** The least id of the messages after `settled`. */
  readonly unsettledFrom: string | undefined;
  /** Where the log is asked from after a restart. */
  readonly endLsn: bigint;
  /** Where the outbox is read from after a restart; undefined where the log is. */
  readonly cursor?: string | undefined;
}

/**
 * Appends the row of a batch.
 *
 * The primary key (source, number) is the fence: a process that was superseded cannot insert the next number.
 */
export function insertBatchSql(row: BatchRow): string {
  const place = (position: Position): string =>
    `'${formatLsn(position.commitLsn)}', '${formatLsn(position.changeLsn)}', ${position.ordinal}`;
  return `insert into ancrage.batches (source, number, epoch, journaled_commit_lsn, journaled_change_lsn, journaled_ordinal,
       settled_commit_lsn, settled_change_lsn, settled_ordinal, unsettled_from, end_lsn, cursor)
     values (${pg.escapeLiteral(row.source)}, ${row.number}, ${row.epoch}, ${place(row.journaled)}, ${place(row.settled)},
       ${textOrNull(row.unsettledFrom)}, '${formatLsn(row.endLsn)}', ${textOrNull(row.cursor)})`;
}

const textOrNull = (text: string | undefined): string => (text === undefined ? "null" : pg.escapeLiteral(text));

/** @throws where the server answers anything but COMMIT: a transaction that had failed is rolled back without an error */
export async function commitBatch(client: pg.ClientBase): Promise<void> {
  const { command } = await client.query("commit");
  if (command !== "COMMIT") throw new Error(`the journal's commit was answered with ${command}`);
}

// `order by number` would name the text that is selected, and "9" comes after "10".
export async function readLastBatch(db: Queryable, source: string): Promise<BatchRow | undefined> {
  const { rows } = await db.query<{
    number: string;
    epoch: string;
    journaled_commit_lsn: string;
    journaled_change_lsn: string;
    journaled_ordinal: number;
    settled_commit_lsn: string;
    settled_change_lsn: string;
    settled_ordinal: number;
    unsettled_from: string | null;
    end_lsn: string;
    cursor: string | null;
  }>(
    `select number::text, epoch::text, journaled_commit_lsn::text, journaled_change_lsn::text, journaled_ordinal,
       settled_commit_lsn::text, settled_change_lsn::text, settled_ordinal, unsettled_from, end_lsn::text, cursor
     from ancrage.batches b where source = $1 order by b.number desc limit 1`,
    [source],
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  const place = (commit: string, change: string, ordinal: number): Position => ({
    commitLsn: parseLsn(commit),
    changeLsn: parseLsn(change),
    ordinal,
  });
  return {
    source,
    number: BigInt(row.number),
    epoch: BigInt(row.epoch),
    journaled: place(row.journaled_commit_lsn, row.journaled_change_lsn, row.journaled_ordinal),
    settled: place(row.settled_commit_lsn, row.settled_change_lsn, row.settled_ordinal),
    unsettledFrom: row.unsettled_from ?? undefined,
    endLsn: parseLsn(row.end_lsn),
    cursor: row.cursor ?? undefined,
  };
}

/** Batches are history once they have successors; the newest are kept to read what happened. */
export async function deleteOldBatches(db: Queryable, source: string, belowNumber: bigint): Promise<void> {
  await db.query(`delete from ancrage.batches where source = $1 and number < $2`, [source, belowNumber]);
}

/** That of the present leader; 0 before the first. */
export async function readEpoch(db: Queryable, source: string): Promise<bigint> {
  const { rows } = await db.query<{ epoch: string }>(`select epoch::text from ancrage.leaders where source = $1`, [source]);
  return BigInt(rows[0]?.epoch ?? 0);
}

/** @param day `2026-11-24` */
export async function ensurePartitions(db: Queryable, day: string): Promise<void> {
  await db.query(`select ancrage.ensure_partitions($1::date)`, [day]);
}
