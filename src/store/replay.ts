import type pg from "pg";
import type { Position } from "../capture/change.ts";
import { formatLsn } from "../lsn.ts";
import type { DeliveryState, Message, MessageOrigin } from "../message.ts";
import type { Queryable } from "./database.ts";

/** What recover and replay read and write: messages of the past for one subscription. */

export interface ReplayRange {
  readonly subscriptionId: string;
  readonly project: string;
  readonly events: readonly string[];
  /** Message ids from this one on, and before the other. */
  readonly fromId: string;
  readonly toId: string;
  /** Whether messages that it never had are meant; those that a backfill made for one subscription are not. */
  readonly withMissing: boolean;
  /** Which of those that it had are meant too. */
  readonly states: readonly DeliveryState[];
}

/** The least id that a message of this time can have, in ms since the epoch. */
export async function readLeastId(db: Queryable, ms: number): Promise<string> {
  const { rows } = await db.query<{ id: string }>(`select 'msg_' || ancrage.base32($1::bigint, 10) as id`, [Math.max(0, Math.floor(ms))]);
  return rows[0]?.id ?? "";
}

/**
 * The commit time of the newest message, in ms since the epoch; 0 where there is none. What a backfill made has the job's time, which
 * says nothing of the log; where the newest are all its own, the answer is 0 as well.
 */
export async function readNewestCommitMs(db: Queryable): Promise<number> {
  const { rows } = await db.query<{ ms: number }>(
    `select coalesce(floor(extract(epoch from max(committed_at)) * 1000), 0)::float8 as ms
     from (select commit_lsn, committed_at from ancrage.messages order by id desc limit 1000) as newest where commit_lsn > '0/0'`,
  );
  return rows[0]?.ms ?? 0;
}

/** All but the range of ids. */
const isMeant = (range: string, message: string): string => `
  ${message}.project = ${range}2 and ${message}.event = any (${range}3::text[])
  and (d.message_id is null and ${range}4::boolean and ${message}.commit_lsn > '0/0'
    or d.state = any (${range}5::ancrage.delivery_state[]))`;

const rangeValues = (range: ReplayRange): readonly unknown[] => [
  range.subscriptionId,
  range.project,
  range.events,
  range.withMissing,
  range.states,
];

export interface ReplayScan {
  /** The last message that was looked at; undefined where the range has no more. */
  readonly lastId: string | undefined;
  /** Those that are meant, by id. */
  readonly found: readonly FoundMessage[];
}

export interface FoundMessage {
  readonly messageId: string;
  /** The subscription never had it. */
  readonly isMissing: boolean;
  /** Who made it, as far as the application said; undefined where nobody did. */
  readonly origin: MessageOrigin | undefined;
}

/**
 * Looks at the next `limit` messages of a range. Limited by what is looked at and not by what is found: a rare event would else have
 * one statement read the whole journal.
 *
 * What is not settled is passed over: its delivery may be in memory, without a row, and would be made twice.
 */
export async function scanMessages(
  db: Queryable,
  range: ReplayRange,
  page: { readonly after: string; readonly limit: number; readonly settled: Position },
): Promise<ReplayScan> {
  const { rows } = await db.query<{
    last_id: string | null;
    found: { id: string; missing: boolean; actor: string | null; caused_by: string | null; depth: number }[];
  }>(
    `with scanned as materialized (
       select m.id, m.project, m.event, m.commit_lsn, m.change_lsn, m.ordinal, m.actor, m.caused_by, m.depth from ancrage.messages m
       where m.id >= $6 and m.id > $8 and m.id < $7 order by m.id limit $9
     )
     select (select max(id) from scanned) as last_id,
       coalesce(json_agg(json_build_object('id', s.id, 'missing', d.message_id is null, 'actor', s.actor, 'caused_by', s.caused_by,
         'depth', s.depth) order by s.id), '[]') as found
     from scanned s
     left join ancrage.deliveries d on d.message_id = s.id and d.subscription_id = $1 and d.message_id >= $6 and d.message_id < $7
     where (s.commit_lsn, s.change_lsn, s.ordinal) <= ($10::pg_lsn, $11::pg_lsn, $12::integer) and ${isMeant("$", "s")}`,
    [
      ...rangeValues(range),
      range.fromId,
      range.toId,
      page.after,
      page.limit,
      formatLsn(page.settled.commitLsn),
      formatLsn(page.settled.changeLsn),
      page.settled.ordinal,
    ],
  );
  const [row] = rows;
  return {
    lastId: row?.last_id ?? undefined,
    found: (row?.found ?? []).map(({ id, missing, actor, caused_by: causedBy, depth }) => ({
      messageId: id,
      isMissing: missing,
      origin:
        actor === null && causedBy === null && depth === 0
          ? undefined
          : { actor: actor ?? undefined, causedBy: causedBy ?? undefined, depth },
    })),
  };
}

/** How many messages are meant, counted no further than `limit`. */
export async function countMeant(db: Queryable, range: ReplayRange, limit: number): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*)::integer as count from (
       select from ancrage.messages m
       left join ancrage.deliveries d on d.message_id = m.id and d.subscription_id = $1 and d.message_id >= $6 and d.message_id < $7
       where m.id >= $6 and m.id < $7 and ${isMeant("$", "m")} limit $8) as meant`,
    [...rangeValues(range), range.fromId, range.toId, limit],
  );
  return rows[0]?.count ?? 0;
}

/** Whether a message before an id was journaled whose deliveries are not all rows yet. */
export async function hasUnsettled(
  db: Queryable,
  { fromId, toId, settled }: { readonly fromId: string; readonly toId: string; readonly settled: Position },
): Promise<boolean> {
  const { rows } = await db.query<{ there: boolean }>(
    `select exists (
       select from ancrage.messages m
       where m.id >= $1 and m.id < $2 and (m.commit_lsn, m.change_lsn, m.ordinal) > ($3::pg_lsn, $4::pg_lsn, $5::integer)) as there`,
    [fromId, toId, formatLsn(settled.commitLsn), formatLsn(settled.changeLsn), settled.ordinal],
  );
  return rows[0]?.there === true;
}

/** The first deliveries of messages to a subscription, pending. @returns how many were made: one that is there already stands */
export async function insertPendingDeliveries(
  client: pg.ClientBase,
  to: { readonly subscriptionId: string; readonly project: string; readonly jobId: string | undefined },
  messageIds: readonly string[],
): Promise<number> {
  const { rowCount } = await client.query(
    `insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, updated_at, job_id)
     select id, $2, $3, 'pending', 1, 0, now(), $4 from unnest($1::text[]) as id
     on conflict do nothing`,
    [messageIds, to.subscriptionId, to.project, to.jobId],
  );
  return rowCount ?? 0;
}

/** A delivery whose round is over, as it ended. */
export interface EndedDelivery {
  readonly messageId: string;
  readonly state: DeliveryState;
  readonly round: number;
  readonly attempts: number;
  readonly lastStatus: number | null;
  readonly durationMs: number | null;
  readonly updatedAt: Date;
}

/** Deliveries of one subscription that are in one of these states; until the transaction ends they stay so. */
export async function lockEndedDeliveries(
  client: pg.ClientBase,
  of: { readonly subscriptionId: string; readonly states: readonly DeliveryState[] },
  messageIds: readonly string[],
): Promise<readonly EndedDelivery[]> {
  const { rows } = await client.query<{
    message_id: string;
    state: DeliveryState;
    round: number;
    attempts: number;
    last_status: number | null;
    duration_ms: number | null;
    updated_at: Date;
  }>(
    `select message_id, state, round, attempts, last_status, duration_ms, updated_at from ancrage.deliveries
     where message_id = any ($1::text[]) and subscription_id = $2 and state = any ($3::ancrage.delivery_state[])
     order by message_id for update`,
    [messageIds, of.subscriptionId, of.states],
  );
  return rows.map((row) => ({
    messageId: row.message_id,
    state: row.state,
    round: row.round,
    attempts: row.attempts,
    lastStatus: row.last_status,
    durationMs: row.duration_ms,
    updatedAt: row.updated_at,
  }));
}

/**
 * Begins another round of deliveries: pending, no attempt made. What still comes in of the round before finds another number, and is
 * kept as late.
 */
export async function beginRound(
  client: pg.ClientBase,
  of: { readonly subscriptionId: string; readonly jobId: string | undefined },
  messageIds: readonly string[],
): Promise<number> {
  const { rowCount } = await client.query(
    `update ancrage.deliveries set state = 'pending', round = round + 1, attempts = 0, next_attempt_at = null, last_status = null,
       last_reason = null, duration_ms = null, job_id = $3, updated_at = now()
     where message_id = any ($1::text[]) and subscription_id = $2`,
    [messageIds, of.subscriptionId, of.jobId],
  );
  return rowCount ?? 0;
}

/** Messages of the past. One that is there already stands. @returns the ids of those that were not */
export async function insertMissingMessages(client: pg.ClientBase, messages: readonly Message[]): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ id: string }>(
    `insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body, actor, caused_by, depth)
     select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::pg_lsn[], $6::pg_lsn[], $7::integer[], $8::timestamptz[],
       $9::bytea[], $10::text[], $11::text[], $12::integer[])
     on conflict do nothing
     returning id`,
    [
      messages.map(({ id }) => id),
      messages.map(({ project }) => project),
      messages.map(({ event }) => event),
      messages.map(({ key }) => key),
      messages.map(({ position }) => formatLsn(position.commitLsn)),
      messages.map(({ position }) => formatLsn(position.changeLsn)),
      messages.map(({ position }) => position.ordinal),
      messages.map(({ committedAtUs }) => formatTimestamp(committedAtUs)),
      messages.map(({ body }) => body),
      messages.map(({ origin }) => origin?.actor ?? null),
      messages.map(({ origin }) => origin?.causedBy ?? null),
      messages.map(({ origin }) => origin?.depth ?? 0),
    ],
  );
  return new Set(rows.map(({ id }) => id));
}

/** With its microseconds, which a `Date` has not. */
function formatTimestamp(us: bigint): string {
  const ms = us / 1000n;
  return `${new Date(Number(ms)).toISOString().slice(0, -1)}${String(us - ms * 1000n).padStart(3, "0")}Z`;
}
