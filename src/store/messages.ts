import type { Queryable } from "./subscriptions.ts";

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
  readonly limit: number;
}

/** Newest first, by id: ids begin with the commit time, so that the range names partitions. */
export async function listMessages(db: Queryable, filter: MessageFilter): Promise<readonly MessageRow[]> {
  const { rows } = await db.query<StoredMessage>(
    `select id, project, event, key, committed_at, body from ancrage.messages
     where id >= 'msg_' || ancrage.base32($1, 10)
       and id < 'msg_' || ancrage.base32($2, 10)
       and ($3::text is null or project = $3)
       and ($4::text is null or event = $4)
       and ($5::text is null or key = $5)
       and ($6::text is null or id < $6)
     order by id desc
     limit $7`,
    [filter.range.fromMs, filter.range.toMs, filter.project, filter.event, filter.key, filter.after, filter.limit],
  );
  return rows.map(fromStored);
}

export interface FeedFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly key?: string | undefined;
  /** The id that was read last. Where it is given, `range.fromMs` counts for nothing: a reader who was away must not skip. */
  readonly after?: string | undefined;
  readonly range: DayRange;
  readonly limit: number;
}

/**
 * Oldest first, for those who pull. The two youngest seconds are held back: commit times, which ids begin with, go backwards by
 * moments, and a message that came in behind the reader would never be read.
 */
export async function readFeed(db: Queryable, filter: FeedFilter): Promise<readonly MessageRow[]> {
  const { rows } = await db.query<StoredMessage>(
    `select id, project, event, key, committed_at, body from ancrage.messages
     where id > coalesce($6, 'msg_' || ancrage.base32($1, 10))
       and id < 'msg_' || ancrage.base32(least($2, floor(extract(epoch from now()) * 1000)::bigint - 2000), 10)
       and ($3::text is null or project = $3)
       and ($4::text is null or event = $4)
       and ($5::text is null or key = $5)
     order by id
     limit $7`,
    [filter.range.fromMs, filter.range.toMs, filter.project, filter.event, filter.key, filter.after, filter.limit],
  );
  return rows.map(fromStored);
}

export async function readMessage(db: Queryable, id: string, project: string | undefined): Promise<MessageRow | undefined> {
  const { rows } = await db.query<StoredMessage>(
    `select id, project, event, key, committed_at, body from ancrage.messages
     where id = $1 and ($2::text is null or project = $2)`,
    [id, project],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

function fromStored({ committed_at, ...row }: StoredMessage): MessageRow {
  return { ...row, committedAt: committed_at };
}
