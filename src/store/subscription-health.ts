import type { Queryable } from "./database.ts";

/** How a subscription's receiver has done since its last success; there is no row of one that does well. */
export interface SubscriptionHealth {
  readonly subscriptionId: string;
  /** Milliseconds since the Unix epoch. */
  readonly failingSinceMs: number;
  /** In a row. */
  readonly failures: number;
}

/** Of all that are failing: what a start begins with. */
export async function readSubscriptionHealth(db: Queryable): Promise<readonly SubscriptionHealth[]> {
  const { rows } = await db.query<{ subscription_id: string; failing_since: Date; failures: number }>(
    `select subscription_id, failing_since, failures from ancrage.subscription_health`,
  );
  return rows.map((row) => ({ subscriptionId: row.subscription_id, failingSinceMs: row.failing_since.getTime(), failures: row.failures }));
}

export async function writeSubscriptionHealth(db: Queryable, health: readonly SubscriptionHealth[]): Promise<void> {
  await db.query(
    `insert into ancrage.subscription_health (subscription_id, failing_since, failures)
     select * from unnest($1::text[], $2::timestamptz[], $3::integer[])
     on conflict (subscription_id) do update
       set failing_since = excluded.failing_since, failures = excluded.failures, updated_at = now()`,
    [
      health.map(({ subscriptionId }) => subscriptionId),
      health.map(({ failingSinceMs }) => new Date(failingSinceMs)),
      health.map(({ failures }) => failures),
    ],
  );
}

/** They do well again. */
export async function dropSubscriptionsHealth(db: Queryable, ids: readonly string[]): Promise<void> {
  await db.query(`delete from ancrage.subscription_health where subscription_id = any ($1)`, [ids]);
}

/** Somebody enabled it, or changed what it sends to: what failed before is forgotten. */
export async function dropSubscriptionHealth(db: Queryable, id: string): Promise<void> {
  await db.query(`delete from ancrage.subscription_health where subscription_id = $1`, [id]);
}
