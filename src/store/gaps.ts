import { formatLsn, parseLsn } from "../lsn.ts";
import type { Queryable } from "./database.ts";

/** Why a stretch of the log was not read. */
export type GapReason =
  | "slot-dropped"
  | "slot-invalidated"
  | "slot-moved"
  | "slot-foreign"
  | "slot-recreated"
  | "log-went-back"
  | "capture-altered"
  | "database-adopted";

/** A stretch of the log that was lost before it was read. */
export interface Gap {
  readonly id: string;
  readonly source: string;
  readonly fromLsn: bigint;
  /** Undefined while nothing is captured again. */
  readonly toLsn: bigint | undefined;
  /** Changes committed before were journaled. */
  readonly fromAt: Date;
  /** Changes committed after are captured. */
  readonly toAt: Date | undefined;
  readonly reason: GapReason;
  readonly resolvedAt: Date | undefined;
}

/**
 * Notes that from `fromLsn` on nothing was seen; a second time it changes nothing.
 *
 * @param gap.fromAt default: when the journal last got anything
 */
export async function openGap(
  db: Queryable,
  source: string,
  gap: { readonly fromLsn: bigint; readonly fromAt?: Date | undefined; readonly reason: GapReason },
): Promise<void> {
  await db.query(
    `insert into ancrage.gaps (source, from_lsn, reason, from_at)
     select $1, $2, $3, coalesce($4, (select max(at) from ancrage.batches where source = $1))
     where not exists (select from ancrage.gaps where source = $1 and to_lsn is null)
     on conflict do nothing`,
    [source, formatLsn(gap.fromLsn), gap.reason, gap.fromAt ?? null],
  );
}

/** Where the journal stood at its end, or some seconds before it: a start knows no better when something was last seen to be right. */
export async function readJournalEnd(
  db: Queryable,
  source: string,
  secondsBefore = 0,
): Promise<{ readonly lsn: bigint; readonly at: Date } | undefined> {
  const { rows } = await db.query<{ lsn: string; at: Date }>(
    // Of those that are old enough the newest; where none is, the oldest there is.
    `select end_lsn::text as lsn, at from ancrage.batches b,
       (select max(at) - make_interval(secs => $2) as before from ancrage.batches where source = $1) as cut
     where source = $1 order by at > before, case when at > before then b.number else -b.number end limit 1`,
    [source, secondsBefore],
  );
  const [row] = rows;
  return row && { lsn: parseLsn(row.lsn), at: row.at };
}

/** From `toLsn` on changes are captured again. */
export async function endGap(db: Queryable, source: string, toLsn: bigint): Promise<Gap | undefined> {
  const { rows } = await db.query<{ id: string }>(
    `update ancrage.gaps set to_lsn = $2, to_at = now() where source = $1 and to_lsn is null returning id::text`,
    [source, formatLsn(toLsn)],
  );
  const [row] = rows;
  return row && (await readGap(db, row.id));
}

/** The one that nothing has ended yet. */
export async function readEndlessGap(db: Queryable, source: string): Promise<Gap | undefined> {
  return (await readGaps(db, `source = $1 and to_lsn is null`, [source])).at(-1);
}

/** The gap that ends exactly here: whoever made the slot stand here noted what was lost, and so took it knowingly. */
export async function readGapEndingAt(db: Queryable, source: string, toLsn: bigint): Promise<Gap | undefined> {
  return (await readGaps(db, `source = $1 and to_lsn = $2`, [source, formatLsn(toLsn)])).at(-1);
}

/** The one that begins exactly here, ended or not. */
export async function readGapFrom(db: Queryable, source: string, fromLsn: bigint): Promise<Gap | undefined> {
  return (await readGaps(db, `source = $1 and from_lsn = $2`, [source, formatLsn(fromLsn)])).at(-1);
}

async function readGap(db: Queryable, id: string): Promise<Gap | undefined> {
  return (await readGaps(db, `id = $1::bigint`, [id])).at(-1);
}

/** Those that nobody has said to be dealt with. */
export async function readOpenGaps(db: Queryable): Promise<readonly Gap[]> {
  return readGaps(db, `resolved_at is null`, []);
}

export async function readAllGaps(db: Queryable): Promise<readonly Gap[]> {
  return readGaps(db, `true`, []);
}

/**
 * Says that what was missed is dealt with. One that has not ended goes on: it cannot be resolved yet.
 *
 * @param ids undefined: all that have ended
 */
export async function resolveGaps(db: Queryable, ids: readonly string[] | undefined): Promise<readonly string[]> {
  const { rows } = await db.query<{ id: string }>(
    `update ancrage.gaps set resolved_at = now()
     where resolved_at is null and to_lsn is not null and ($1::bigint[] is null or id = any($1::bigint[])) returning id::text`,
    [ids ?? null],
  );
  return rows.map(({ id }) => id);
}

async function readGaps(db: Queryable, where: string, values: readonly string[]): Promise<readonly Gap[]> {
  const { rows } = await db.query<{
    id: string;
    source: string;
    from_lsn: string;
    to_lsn: string | null;
    from_at: Date;
    to_at: Date | null;
    reason: GapReason;
    resolved_at: Date | null;
  }>(
    `select id::text, source, from_lsn::text, to_lsn::text, coalesce(from_at, noted_at) as from_at, to_at, reason, resolved_at
     from ancrage.gaps g where ${where} order by g.id`,
    [...values],
  );
  return rows.map((row) => ({
    id: row.id,
    source: row.source,
    fromLsn: parseLsn(row.from_lsn),
    toLsn: row.to_lsn === null ? undefined : parseLsn(row.to_lsn),
    fromAt: row.from_at,
    toAt: row.to_at ?? undefined,
    reason: row.reason,
    resolvedAt: row.resolved_at ?? undefined,
  }));
}
