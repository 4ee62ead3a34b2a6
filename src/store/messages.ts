import { parseLsn } from "../lsn.ts";
import { lookedOf, type LookBounds, type Looked, type LookedRow } from "./looked.ts";
import type { Queryable } from "./database.ts";

/** An occurrence with its payload and its id, journaled. */
export interface MessageRow {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly committedAt: Date;
  /** The payload as JSON; its bytes never change. */
  readonly body: Buffer;
}

const columns = "m.id, m.project, m.event, m.key, m.committed_at, m.body";

interface StoredMessage {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly committed_at: Date;
  readonly body: Buffer;
}

/** The range of days that a list reads: `fromMs` included, `toMs` not, in ms since the epoch. */
export interface DayRange {
  readonly fromMs: number;
  readonly toMs: number;
}

export interface MessageFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly key?: string | undefined;
  readonly range: DayRange;
  /** The id that the last page ended with. */
  readonly after?: string | undefined;
}

/** Newest first, by id: ids begin with the commit time, so that the range names partitions. */
export async function listMessages(db: Queryable, filter: MessageFilter, bounds: LookBounds): Promise<Looked<MessageRow, string>> {
  const { rows } = await db.query<StoredMessage & LookedRow>(
    `with looked as materialized (
       select id, project, event, key from ancrage.messages
       where id >= 'msg_' || ancrage.base32($1, 10) and id < 'msg_' || ancrage.base32($2, 10) and ($6::text is null or id < $6)
       order by id desc
       limit $8
     ), ${pickedSql("min")}
     select ${columns}, f.is_meant, f.looked
     from found f join ancrage.messages m on m.id = f.id and m.id >= 'msg_' || ancrage.base32($1, 10) and m.id < 'msg_' || ancrage.base32($2, 10)
     order by f.id desc`,
    [filter.range.fromMs, filter.range.toMs, filter.project, filter.event, filter.key, filter.after, bounds.limit, bounds.most],
  );
  return lookedOf(rows, bounds, { row: fromStored, place: ({ id }) => id });
}

export interface FeedFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly key?: string | undefined;
  /** The id that was read last. Where it is given, `range.fromMs` counts for nothing: a reader who was away must not skip. */
  readonly after?: string | undefined;
  readonly range: DayRange;
}

/** Oldest first, for those who pull: those that were committed before `beforeMs` (ms since the epoch). */
export async function readFeed(
  db: Queryable,
  filter: FeedFilter & { readonly beforeMs: number },
  bounds: LookBounds,
): Promise<Looked<MessageRow, string>> {
  const toMs = Math.max(0, Math.min(filter.range.toMs, filter.beforeMs));
  const { rows } = await db.query<StoredMessage & LookedRow>(
    `with looked as materialized (
       select id, project, event, key from ancrage.messages
       where id > coalesce($6, 'msg_' || ancrage.base32($1, 10)) and id < 'msg_' || ancrage.base32($2, 10)
         -- What a backfill made is for one subscription, and comes in behind the place that a reader has come to.
         and commit_lsn > '0/0'
       order by id
       limit $8
     ), ${pickedSql("max")}
     select ${columns}, f.is_meant, f.looked
     from found f join ancrage.messages m
       on m.id = f.id and m.id >= coalesce($6, 'msg_' || ancrage.base32($1, 10)) and m.id < 'msg_' || ancrage.base32($2, 10)
     order by f.id`,
    [filter.range.fromMs, Math.floor(toMs), filter.project, filter.event, filter.key, filter.after, bounds.limit, bounds.most],
  );
  return lookedOf(rows, bounds, { row: fromStored, place: ({ id }) => id });
}

/**
 * Of what was looked at: what is meant, and the last one. First their ids alone, as bodies are large.
 *
 * @param last `min` where the newest come first, `max` where the oldest do
 */
const pickedSql = (last: "min" | "max"): string => `found as materialized (
       select * from (
         select id, (select count(*) from looked)::integer as looked,
           ($3::text is null or project = $3) and ($4::text is null or event = $4) and ($5::text is null or key = $5) as is_meant
         from looked
       ) as one
       where is_meant or id = (select ${last}(id) from looked)
       order by id ${last === "min" ? "desc" : ""}
       limit $7
     )`;

/** How far the journal has come, and the log itself. */
export interface Reach {
  /** Where the journal's last batch ends; 0 before the first. */
  readonly journaledLsn: bigint;
  /** The end of the log now: whatever was committed before `nowMs` stands before it. */
  readonly logLsn: bigint;
  /** The server's clock, as commit times are. */
  readonly nowMs: number;
  /** The commit time of the newest message; 0 where there is none, or where all of the newest are a backfill's. */
  readonly newestCommitMs: number;
}

export async function readReach(db: Queryable): Promise<Reach> {
  const { rows } = await db.query<{ journaled: string | null; log: string; now_ms: string; newest: Date | null }>(
    `select pg_current_wal_insert_lsn()::text as log,
       floor(extract(epoch from clock_timestamp()) * 1000)::bigint::text as now_ms,
       (select max(committed_at) from (select commit_lsn, committed_at from ancrage.messages order by id desc limit 1000) as newest
        -- What a backfill made has the job's time, which says nothing of the log.
        where commit_lsn > '0/0') as newest,
       (select last.end_lsn::text from ancrage.leaders l
          cross join lateral (select end_lsn, at from ancrage.batches b where b.source = l.source order by b.number desc limit 1) last
        order by last.at desc limit 1) as journaled`,
  );
  const [row] = rows;
  return {
    journaledLsn: parseLsn(row?.journaled ?? "0/0"),
    logLsn: parseLsn(row?.log ?? "0/0"),
    nowMs: Number(row?.now_ms ?? 0),
    newestCommitMs: row?.newest?.getTime() ?? 0,
  };
}

export async function readMessage(db: Queryable, id: string, project: string | undefined): Promise<MessageRow | undefined> {
  const { rows } = await db.query<StoredMessage>(
    `select id, project, event, key, committed_at, body from ancrage.messages
     where id = $1 and ($2::text is null or project = $2)`,
    [id, project],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

function fromStored({ id, project, event, key, committed_at, body }: StoredMessage): MessageRow {
  return { id, project, event, key, committedAt: committed_at, body };
}
