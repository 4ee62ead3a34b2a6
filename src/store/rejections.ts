import type pg from "pg";
import type { Position } from "../capture/change.ts";
import { parseLsn } from "../lsn.ts";
import type { DayRange } from "./messages.ts";
import type { Queryable } from "./database.ts";
import { lookedOf, type LookBounds, type Looked, type LookedRow } from "./looked.ts";

/** An occurrence that could not become a message, with the reason. */
export interface RejectionRow {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly committedAt: Date;
  readonly reason: string;
  /** Words of the definition's own code, as bytes: they may hold a NUL. */
  readonly error: Buffer;
}

interface StoredRejection {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly committed_at: Date;
  readonly reason: string;
  readonly error: Buffer;
}

export interface RejectionFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly range: DayRange;
  /** The id that the last page ended with. */
  readonly after?: string | undefined;
}

/** Newest first. */
export async function listRejections(db: Queryable, filter: RejectionFilter, bounds: LookBounds): Promise<Looked<RejectionRow, string>> {
  const { rows } = await db.query<StoredRejection & LookedRow>(
    `with looked as materialized (
       select id, project, event from ancrage.rejections
       where id >= 'rej_' || ancrage.base32($1, 10) and id < 'rej_' || ancrage.base32($2, 10) and ($5::text is null or id < $5)
       order by id desc
       limit $7
     ), found as materialized (
       select * from (
         select id, (select count(*) from looked)::integer as looked,
           ($3::text is null or project = $3) and ($4::text is null or event = $4) as is_meant
         from looked
       ) as one
       where is_meant or id = (select min(id) from looked)
       order by id desc
       limit $6
     )
     select r.id, r.project, r.event, r.key, r.committed_at, r.reason, r.error, f.is_meant, f.looked
     from found f join ancrage.rejections r on r.id = f.id and r.id >= 'rej_' || ancrage.base32($1, 10) and r.id < 'rej_' || ancrage.base32($2, 10)
     order by f.id desc`,
    [filter.range.fromMs, filter.range.toMs, filter.project, filter.event, filter.after, bounds.limit, bounds.most],
  );
  return lookedOf(rows, bounds, {
    row: ({ id, project, event, key, committed_at, reason, error }) => ({
      id,
      project,
      event,
      key,
      committedAt: committed_at,
      reason,
      error,
    }),
    place: ({ id }) => id,
  });
}

/** A rejection with all that a retry needs. */
export interface WholeRejection extends Omit<RejectionRow, "committedAt"> {
  readonly position: Position;
  /** Microseconds since the Unix epoch. */
  readonly committedAtUs: bigint;
  readonly occurrence: Buffer;
}

interface StoredWholeRejection extends Omit<StoredRejection, "committed_at"> {
  readonly commit_lsn: string;
  readonly change_lsn: string;
  readonly ordinal: number;
  readonly committed_at_us: string;
  readonly occurrence: Buffer;
}

const wholeColumns = `id, project, event, key, commit_lsn::text, change_lsn::text, ordinal,
  (extract(epoch from committed_at) * 1000000)::bigint::text as committed_at_us, reason, error, occurrence`;

export async function readRejection(db: Queryable, id: string, project: string | undefined): Promise<WholeRejection | undefined> {
  const { rows } = await db.query<StoredWholeRejection>(
    `select ${wholeColumns} from ancrage.rejections where id = $1 and ($2::text is null or project = $2)`,
    [id, project],
  );
  return rows[0] === undefined ? undefined : fromWhole(rows[0]);
}

export interface RejectionRange {
  readonly project: string | undefined;
  readonly event: string | undefined;
  readonly fromId: string;
  readonly toId: string;
}

/** Oldest first: the next `limit` of a range. */
export async function readRejections(
  db: Queryable,
  range: RejectionRange,
  page: { readonly after: string; readonly limit: number },
): Promise<readonly WholeRejection[]> {
  const { rows } = await db.query<StoredWholeRejection>(
    `select ${wholeColumns} from ancrage.rejections
     where id >= $1 and id > $2 and id < $3 and ($4::text is null or project = $4) and ($5::text is null or event = $5)
     order by id limit $6`,
    [range.fromId, page.after, range.toId, range.project, range.event, page.limit],
  );
  return rows.map(fromWhole);
}

/** How many of a range there are, counted no further than `limit`. */
export async function countRejections(db: Queryable, range: RejectionRange, limit: number): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*)::integer as count from (
       select from ancrage.rejections
       where id >= $1 and id < $2 and ($3::text is null or project = $3) and ($4::text is null or event = $4) limit $5) as meant`,
    [range.fromId, range.toId, range.project, range.event, limit],
  );
  return rows[0]?.count ?? 0;
}

/** @returns whether it was there: two that retry it at once do not make two of it */
export async function deleteRejection(client: pg.ClientBase, id: string): Promise<boolean> {
  const { rowCount } = await client.query(`delete from ancrage.rejections where id = $1`, [id]);
  return rowCount === 1;
}

/** It was rejected again, perhaps for another reason. */
export async function updateRejection(
  client: pg.ClientBase,
  id: string,
  why: { readonly reason: string; readonly error: string },
): Promise<void> {
  await client.query(`update ancrage.rejections set reason = $2, error = $3 where id = $1`, [
    id,
    why.reason,
    Buffer.from(why.error, "utf8"),
  ]);
}

function fromWhole({ commit_lsn, change_lsn, ordinal, committed_at_us, ...row }: StoredWholeRejection): WholeRejection {
  return {
    ...row,
    position: { commitLsn: parseLsn(commit_lsn), changeLsn: parseLsn(change_lsn), ordinal },
    committedAtUs: BigInt(committed_at_us),
  };
}
