import type { DeliveryState } from "../message.ts";
import type { DayRange } from "./messages.ts";
import type { Queryable } from "./database.ts";
import { lookedOf, type LookBounds, type Looked, type LookedRow } from "./looked.ts";

/** One message for one subscription, with the message's event and key. */
export interface FoundDelivery {
  readonly messageId: string;
  readonly subscriptionId: string;
  readonly project: string;
  /** Null where the message is no longer kept. */
  readonly event: string | null;
  readonly key: string | null;
  readonly state: DeliveryState;
  readonly round: number;
  /** How many there were in this round. */
  readonly attempts: number;
  readonly nextAttemptAt: Date | null;
  readonly lastStatus: number | null;
  readonly lastReason: string | null;
  readonly durationMs: number | null;
  readonly updatedAt: Date;
  /** The job that made it, or its present round. */
  readonly jobId: string | null;
}

/** A failed attempt, or one by hand. A first success has no row: the delivery's own holds it. */
export interface FoundAttempt {
  readonly messageId: string;
  readonly subscriptionId: string;
  readonly round: number;
  readonly number: number;
  readonly at: Date;
  readonly status: number | null;
  readonly reason: string;
  readonly durationMs: number;
  readonly isLate: boolean;
  /** The answer's first bytes. */
  readonly response: Buffer | null;
}

interface StoredDelivery {
  readonly message_id: string;
  readonly subscription_id: string;
  readonly project: string;
  readonly event: string | null;
  readonly key: string | null;
  readonly state: DeliveryState;
  readonly round: number;
  readonly attempts: number;
  readonly next_attempt_at: Date | null;
  readonly last_status: number | null;
  readonly last_reason: string | null;
  readonly duration_ms: number | null;
  readonly updated_at: Date;
  readonly job_id: string | null;
}

interface StoredAttempt {
  readonly message_id: string;
  readonly subscription_id: string;
  readonly round: number;
  readonly number: number;
  readonly at: Date;
  readonly status: number | null;
  readonly reason: string;
  readonly duration_ms: number;
  readonly is_late: boolean;
  readonly response: Buffer | null;
}

/** The primary key of a delivery. */
export interface DeliveryKey {
  readonly messageId: string;
  readonly subscriptionId: string;
}

export interface DeliveryFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly state?: DeliveryState | undefined;
  readonly messageId?: string | undefined;
  readonly subscriptionId?: string | undefined;
  readonly jobId?: string | undefined;
  readonly range: DayRange;
  /** The delivery that the last page ended with. */
  readonly after?: DeliveryKey | undefined;
}

const deliveryColumns = `
  d.message_id, d.subscription_id, d.project, m.event, m.key, d.state, d.round, d.attempts, d.next_attempt_at, d.last_status,
  d.last_reason, d.duration_ms, d.updated_at, d.job_id`;

/**
 * Those of the newest messages first. The message is in its delivery's day: the range is said of both, so that few partitions are read. A
 * message may be gone before its delivery.
 *
 * States other than delivered have indexes of their own, so that only what has one is looked at.
 */
export async function listDeliveries(
  db: Queryable,
  filter: DeliveryFilter,
  bounds: LookBounds,
): Promise<Looked<FoundDelivery, DeliveryKey>> {
  const { rows } = await db.query<StoredDelivery & LookedRow>(
    `with looked as materialized (
       select d.* from ancrage.deliveries d
       where d.message_id >= 'msg_' || ancrage.base32($1, 10) and d.message_id < 'msg_' || ancrage.base32($2, 10)
         and ($6::text is null or d.message_id = $6)
         and ($5::ancrage.delivery_state is null or $5 = 'delivered' or d.state = $5)
         and ($8::text is null or (d.message_id, d.subscription_id) < ($8, $9))
       order by d.message_id desc, d.subscription_id desc
       limit $12
     ), last as (
       select message_id, subscription_id from looked order by message_id, subscription_id limit 1
     ), d as materialized (
       select l.*, (select count(*) from looked)::integer as looked,
         ($3::text is null or l.project = $3) and ($5::ancrage.delivery_state is null or l.state = $5)
           and ($7::text is null or l.subscription_id = $7) and ($11::text is null or l.job_id = $11) as is_ours
       from looked l
     ), found as (
       select ${deliveryColumns}, d.looked, d.is_ours and ($4::text is null or m.event = $4) as is_meant
       from d
       -- One by one: joined as a whole, the planner reads all messages of the range. [M: 11.8 s for 16,000 of a million.]
       left join lateral (
         select one.event, one.key from ancrage.messages one
         where one.id = d.message_id and d.is_ours
           and one.id >= 'msg_' || ancrage.base32($1, 10) and one.id < 'msg_' || ancrage.base32($2, 10)
         limit 1
       ) m on true
       where d.is_ours or (d.message_id, d.subscription_id) = (select message_id, subscription_id from last)
     )
     select * from found
     where is_meant or (message_id, subscription_id) = (select message_id, subscription_id from last)
     order by message_id desc, subscription_id desc
     limit $10`,
    [
      filter.range.fromMs,
      filter.range.toMs,
      filter.project,
      filter.event,
      filter.state,
      filter.messageId,
      filter.subscriptionId,
      filter.after?.messageId,
      filter.after?.subscriptionId,
      bounds.limit,
      filter.jobId,
      bounds.most,
    ],
  );
  return lookedOf(rows, bounds, {
    row: deliveryFromStored,
    place: (row) => ({ messageId: row.message_id, subscriptionId: row.subscription_id }),
  });
}

export async function readDelivery(db: Queryable, key: DeliveryKey, project: string | undefined): Promise<FoundDelivery | undefined> {
  const { rows } = await db.query<StoredDelivery>(
    `select ${deliveryColumns}
     from ancrage.deliveries d left join ancrage.messages m on m.id = d.message_id and m.id = $1
     where d.message_id = $1 and d.subscription_id = $2 and ($3::text is null or d.project = $3)`,
    [key.messageId, key.subscriptionId, project],
  );
  return rows[0] === undefined ? undefined : deliveryFromStored(rows[0]);
}

/** The attempts of some deliveries, in the order they were made. Answers are read only where `withResponse`: each may be 16 KiB. */
export async function listAttempts(db: Queryable, keys: readonly DeliveryKey[], withResponse: boolean): Promise<readonly FoundAttempt[]> {
  if (keys.length === 0) return [];
  const { rows } = await db.query<StoredAttempt>(
    `select a.message_id, a.subscription_id, a.round, a.number, a.at, a.status, a.reason, a.duration_ms, a.is_late,
       case when $3 then a.response end as response
     from ancrage.attempts a
     where a.message_id = any ($1::text[])
       and (a.message_id, a.subscription_id) in (select * from unnest($1::text[], $2::text[]))
     order by a.message_id, a.subscription_id, a.round, a.number, a.at`,
    [keys.map((key) => key.messageId), keys.map((key) => key.subscriptionId), withResponse],
  );
  return rows.map((row) => ({
    messageId: row.message_id,
    subscriptionId: row.subscription_id,
    round: row.round,
    number: row.number,
    at: row.at,
    status: row.status,
    reason: row.reason,
    durationMs: row.duration_ms,
    isLate: row.is_late,
    response: row.response,
  }));
}

function deliveryFromStored(row: StoredDelivery): FoundDelivery {
  return {
    messageId: row.message_id,
    subscriptionId: row.subscription_id,
    project: row.project,
    event: row.event,
    key: row.key,
    state: row.state,
    round: row.round,
    attempts: row.attempts,
    nextAttemptAt: row.next_attempt_at,
    lastStatus: row.last_status,
    lastReason: row.last_reason,
    durationMs: row.duration_ms,
    updatedAt: row.updated_at,
    jobId: row.job_id,
  };
}
