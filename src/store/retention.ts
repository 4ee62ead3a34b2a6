import type pg from "pg";
import type { Queryable } from "./database.ts";
import type { DeliveryKey } from "./deliveries.ts";

export const partitionedTables = ["messages", "rejections", "deliveries", "attempts"] as const;
export type PartitionedTable = (typeof partitionedTables)[number];

/** One table's rows of one day. */
export interface Partition {
  readonly parent: PartitionedTable;
  /** `2026-11-24` */
  readonly day: string;
  /** `detaching`: whoever began it did not come to its end. `detached`: it was not dropped. */
  readonly state: "attached" | "detaching" | "detached";
}

/** All days of all tables, oldest first, and the server's own day. */
export async function readPartitions(db: Queryable): Promise<{ readonly today: string; readonly partitions: readonly Partition[] }> {
  const { rows } = await db.query<{ today: string; parent: PartitionedTable | null; day: string | null; state: Partition["state"] | null }>(
    `select to_char(now() at time zone 'UTC', 'YYYY-MM-DD') as today, p.* from (values (1)) as one
     left join lateral (
       select (regexp_match(c.relname, '^[a-z]+'))[1] as parent,
         regexp_replace(c.relname, '^[a-z]+_(\\d{4})(\\d\\d)(\\d\\d)$', '\\1-\\2-\\3') as day,
         case when i.inhrelid is null then 'detached' when i.inhdetachpending then 'detaching' else 'attached' end as state
       from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_inherits i on i.inhrelid = c.oid
       where n.nspname = 'ancrage' and c.relkind = 'r' and c.relname ~ '^(messages|rejections|deliveries|attempts)_\\d{8}$'
     ) as p on true
     order by p.day, p.parent`,
  );
  const partitions = rows.flatMap(({ parent, day, state }) =>
    parent === null || day === null || state === null ? [] : [{ parent, day, state }],
  );
  return { today: rows[0]?.today ?? "", partitions };
}

/** Whether this session's role may detach partitions itself, which alone can be done concurrently. */
export async function ownsTables(db: Queryable): Promise<boolean> {
  const { rows } = await db.query<{ owns: boolean }>(
    `select pg_has_role(current_user, relowner, 'usage') as owns from pg_class where oid = 'ancrage.messages'::regclass`,
  );
  return rows[0]?.owns === true;
}

/**
 * Takes a partition out of its table, holding up neither readers nor writers. It waits for statements that began before it; where the
 * session's `lock_timeout` ends that wait, the partition stays `detaching`, which nobody sees any more.
 *
 * Never in a transaction: PostgreSQL refuses it there (manual, "ALTER TABLE").
 */
export async function detachConcurrently(client: pg.ClientBase, { parent, day, state }: Partition): Promise<void> {
  const how = state === "detaching" ? "finalize" : "concurrently";
  await client.query(`alter table ancrage.${parent} detach partition ancrage.${parent}_${day.replaceAll("-", "")} ${how}`);
}

/** Drops a partition as the owner, and detaches it before where it is attached: that holds up the whole table, if only for a moment. */
export async function dropPartition(db: Queryable, { parent, day }: Partition): Promise<void> {
  await db.query(`select ancrage.drop_partition($1, $2::date)`, [parent, day]);
}

/** A delivery that is not over although its message is about to go. */
export interface OverdueDelivery extends DeliveryKey {
  readonly project: string;
  /** Null where the message is gone already. */
  readonly event: string | null;
}

/** Unfinished deliveries of one day that nobody else has; until the transaction ends they stay so. */
export async function lockUnfinishedOfDay(client: pg.ClientBase, day: string, limit: number): Promise<readonly OverdueDelivery[]> {
  const { rows } = await client.query<{ message_id: string; subscription_id: string; project: string; event: string | null }>(
    `select d.message_id, d.subscription_id, d.project, (select m.event from ancrage.messages m where m.id = d.message_id) as event
     from ancrage.deliveries_${day.replaceAll("-", "")} d
     where d.state in ('pending', 'retrying') limit $1 for update of d skip locked`,
    [limit],
  );
  return rows.map((row) => ({ messageId: row.message_id, subscriptionId: row.subscription_id, project: row.project, event: row.event }));
}

/** Ends deliveries whose messages are about to go. */
export async function expireDeliveries(client: pg.ClientBase, day: string, keys: readonly DeliveryKey[]): Promise<void> {
  await client.query(
    `update ancrage.deliveries_${day.replaceAll("-", "")}
     set state = 'canceled', next_attempt_at = null, last_reason = 'expired', updated_at = now()
     where (message_id, subscription_id) in (select * from unnest($1::text[], $2::text[]))`,
    [keys.map(({ messageId }) => messageId), keys.map(({ subscriptionId }) => subscriptionId)],
  );
}

/** Whether a delivery of one day is not over. */
export async function hasUnfinishedOfDay(db: Queryable, day: string): Promise<boolean> {
  const { rows } = await db.query<{ there: boolean }>(
    `select exists (select from ancrage.deliveries_${day.replaceAll("-", "")} where state in ('pending', 'retrying')) as there`,
  );
  return rows[0]?.there === true;
}
