import { formatLsn, parseLsn } from "../lsn.ts";
import type { Queryable } from "./database.ts";

/** A stretch of the log that was lost before it was read. */
export interface Gap {
  readonly fromLsn: bigint;
  readonly toLsn: bigint;
  /** When the journal last got anything, and when the new slot was made. */
  readonly fromAt: Date;
  readonly toAt: Date;
  readonly reason: string;
}

/** Notes that everything between the journal's end and the new slot was not seen. */
export async function insertGap(
  db: Queryable,
  source: string,
  gap: { readonly fromLsn: bigint; readonly toLsn: bigint; readonly reason: string },
): Promise<void> {
  await db.query(
    `insert into ancrage.gaps (source, from_lsn, to_lsn, reason, to_at, from_at)
     select $1, $2, $3, $4, now(), (select max(at) from ancrage.batches where source = $1)`,
    [source, formatLsn(gap.fromLsn), formatLsn(gap.toLsn), gap.reason],
  );
}

/** The gap that begins where the journal ends: noted by whoever made the slot anew, and so taken knowingly. */
export async function readGapFrom(db: Queryable, source: string, fromLsn: bigint): Promise<Gap | undefined> {
  return (await readGaps(db, `source = $1 and from_lsn = $2`, [source, formatLsn(fromLsn)])).at(-1);
}

/** Those that nobody has said to be dealt with. */
export async function readOpenGaps(db: Queryable): Promise<readonly Gap[]> {
  return readGaps(db, `resolved_at is null`, []);
}

async function readGaps(db: Queryable, where: string, values: readonly string[]): Promise<readonly Gap[]> {
  const { rows } = await db.query<{
    from_lsn: string;
    to_lsn: string;
    from_at: Date | null;
    to_at: Date | null;
    noted_at: Date;
    reason: string;
  }>(
    `select from_lsn::text, coalesce(to_lsn, from_lsn)::text as to_lsn, from_at, to_at, noted_at, reason from ancrage.gaps where ${where} order by id`,
    [...values],
  );
  return rows.map((row) => ({
    fromLsn: parseLsn(row.from_lsn),
    toLsn: parseLsn(row.to_lsn),
    fromAt: row.from_at ?? row.noted_at,
    toAt: row.to_at ?? row.noted_at,
    reason: row.reason,
  }));
}
