import type pg from "pg";
import type { DeliveryState } from "../message.ts";
import type { Queryable } from "./database.ts";
import type { DeliveryKey } from "./deliveries.ts";

/** Deliveries that are not over: how many a job has, and those that are to be ended by hand. */

const isUnfinished = `d.state in ('pending', 'retrying')`;
/** As the index `deliveries_unfinished` has them. */
const jobOf = `coalesce(d.job_id, '')`;
const placeOf = `substr(d.message_id, 15)`;

/** How many deliveries of a job are pending, and how many wait for a retry; each counted no further than `limit`. */
export async function countUnfinished(
  db: Queryable,
  lane: { readonly subscriptionId: string; readonly jobId: string },
  limit: number,
): Promise<{ readonly pending: number; readonly retrying: number }> {
  const { rows } = await db.query<{ state: DeliveryState; count: number }>(
    `select state, count(*)::integer as count from (
       select d.state from ancrage.deliveries d where d.subscription_id = $1 and ${jobOf} = $2 and ${isUnfinished} limit $3) as lane
     group by state`,
    [lane.subscriptionId, lane.jobId, limit],
  );
  const countOf = (state: DeliveryState): number => rows.find((row) => row.state === state)?.count ?? 0;
  return { pending: countOf("pending"), retrying: countOf("retrying") };
}

/** Jobs that have failed or were canceled, and of which a delivery is not over. */
export async function readLeftLanes(db: Queryable): Promise<readonly { readonly subscriptionId: string; readonly jobId: string }[]> {
  const { rows } = await db.query<{ id: string; subscription_id: string }>(
    `select j.id, j.subscription_id from ancrage.jobs j
     where j.state in ('failed', 'canceled') and j.kind in ('recover', 'replay', 'backfill')
       and exists (select from ancrage.deliveries d where d.subscription_id = j.subscription_id and ${jobOf} = j.id and ${isUnfinished})`,
  );
  return rows.map((row) => ({ subscriptionId: row.subscription_id, jobId: row.id }));
}

/** How many deliveries of a job no receiver took. */
export async function countExhausted(db: Queryable, jobId: string): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*)::integer as count from ancrage.deliveries where job_id = $1 and state = 'exhausted'`,
    [jobId],
  );
  return rows[0]?.count ?? 0;
}

/**
 * At most `limit` unfinished deliveries of a job; until the transaction ends they stay so.
 *
 * Rows that somebody else has are passed over: a statement that waited for the journal would hold what the journal then waits for.
 */
export async function lockLane(
  client: pg.ClientBase,
  lane: { readonly subscriptionId: string; readonly jobId: string },
  limit: number,
): Promise<readonly string[]> {
  const { rows } = await client.query<{ message_id: string }>(
    `select d.message_id from ancrage.deliveries d where d.subscription_id = $1 and ${jobOf} = $2 and ${isUnfinished}
     limit $3 for update skip locked`,
    [lane.subscriptionId, lane.jobId, limit],
  );
  return rows.map((row) => row.message_id);
}

/** Those of some deliveries of a subscription that are unfinished, as `lockLane` takes them. */
export async function lockUnfinished(
  client: pg.ClientBase,
  subscriptionId: string,
  messageIds: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await client.query<{ message_id: string }>(
    `select d.message_id from ancrage.deliveries d
     where d.subscription_id = $1 and d.message_id = any ($2::text[]) and ${isUnfinished}
     for update skip locked`,
    [subscriptionId, messageIds],
  );
  return rows.map((row) => row.message_id);
}

/** Ends deliveries that are locked. By the ids themselves: joined to what locked them, it would look through every partition. */
export async function cancelLocked(
  client: pg.ClientBase,
  subscriptionId: string,
  messageIds: readonly string[],
  reason?: "expired",
): Promise<void> {
  await client.query(
    `update ancrage.deliveries
     set state = 'canceled', next_attempt_at = null, last_reason = coalesce($3, last_reason), updated_at = now()
     where subscription_id = $1 and message_id = any ($2::text[])`,
    [subscriptionId, messageIds, reason],
  );
}

/** Which unfinished deliveries are to be ended. */
export interface CancelRange {
  readonly project: string | undefined;
  readonly subscriptionId: string | undefined;
  readonly event: string | undefined;
  readonly fromId: string;
  readonly toId: string;
}

/** How many unfinished deliveries are meant, counted no further than `limit`. */
export async function countUnfinishedIn(db: Queryable, range: CancelRange, limit: number): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    `select count(*)::integer as count from (
       select from ancrage.deliveries d left join ancrage.messages m on m.id = d.message_id and m.id >= $1 and m.id < $2
       where ${isUnfinished} and d.message_id >= $1 and d.message_id < $2
         and ($3::text is null or d.subscription_id = $3)
         and ($4::text is null or d.project = $4) and ($5::text is null or m.event = $5)
       limit $6) as meant`,
    [range.fromId, range.toId, range.subscriptionId, range.project, range.event, limit],
  );
  return rows[0]?.count ?? 0;
}

/** Where a page of unfinished deliveries ended, in the order of their lanes. */
export interface UnfinishedPlace {
  readonly subscriptionId: string;
  readonly jobId: string;
  readonly place: string;
}

export interface UnfinishedPage {
  /** Undefined where there are no more. */
  readonly last: UnfinishedPlace | undefined;
  readonly found: readonly DeliveryKey[];
}

/** The next `limit` unfinished deliveries, and those of them that are meant. */
export async function scanUnfinished(
  db: Queryable,
  range: CancelRange,
  page: { readonly after: UnfinishedPlace; readonly limit: number },
): Promise<UnfinishedPage> {
  const { rows } = await db.query<{
    message_id: string;
    subscription_id: string;
    job_id: string;
    place: string;
    is_meant: boolean;
  }>(
    `with page as materialized (
       select d.message_id, d.subscription_id, d.project, ${jobOf} as job_id, ${placeOf} as place from ancrage.deliveries d
       where ${isUnfinished} and d.message_id >= $5 and d.message_id < $6
         and ${range.subscriptionId === undefined ? "$7::text is null" : "d.subscription_id = $7"}
         and (d.subscription_id, ${jobOf}, ${placeOf}) > ($1, $2, $3)
       order by d.subscription_id, ${jobOf}, ${placeOf} limit $4
     )
     select p.message_id, p.subscription_id, p.job_id, p.place,
       ($8::text is null or p.project = $8) and ($9::text is null or m.event = $9) as is_meant
     from page p left join ancrage.messages m on m.id = p.message_id and m.id >= $5 and m.id < $6
     order by p.subscription_id, p.job_id, p.place`,
    [
      page.after.subscriptionId,
      page.after.jobId,
      page.after.place,
      page.limit,
      range.fromId,
      range.toId,
      range.subscriptionId,
      range.project,
      range.event,
    ],
  );
  const last = rows.at(-1);
  return {
    last: last === undefined ? undefined : { subscriptionId: last.subscription_id, jobId: last.job_id, place: last.place },
    found: rows.filter((row) => row.is_meant).map((row) => ({ messageId: row.message_id, subscriptionId: row.subscription_id })),
  };
}
