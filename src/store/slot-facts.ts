import { parseLsn } from "../lsn.ts";
import type { OldTransaction, SlotFacts } from "../capture/health.ts";
import type { Queryable } from "./database.ts";

/**
 * One look at a slot and at what holds the log and vacuum back. Cheap: no table of anybody is read.
 *
 * @param slot undefined: an outbox is read, whose size is asked instead
 */
export async function readSlotFacts(db: Queryable, slot: string | undefined, nowMs: number): Promise<SlotFacts> {
  const { rows } = await db.query<{
    current_lsn: string;
    is_there: boolean;
    is_active: boolean | null;
    confirmed_lsn: string | null;
    restart_lsn: string | null;
    wal_status: string | null;
    invalidation_reason: string | null;
    safe_bytes: string | null;
    old_who: string | null;
    old_age_s: number | null;
    outbox_bytes: string | null;
  }>(
    `select pg_current_wal_lsn()::text as current_lsn, s.slot_name is not null as is_there, s.active as is_active,
       s.confirmed_flush_lsn::text as confirmed_lsn, s.restart_lsn::text as restart_lsn, s.wal_status,
       to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason, s.safe_wal_size::text as safe_bytes,
       o.who as old_who, o.age_s as old_age_s,
       case when $1::text is null then
         (pg_total_relation_size('ancrage.outbox_a'::regclass) + pg_total_relation_size('ancrage.outbox_b'::regclass))::text
       end as outbox_bytes
     from (select 1) as one
     left join pg_replication_slots s on s.slot_name = $1
     left join lateral (
       select who, extract(epoch from now() - began_at)::float8 as age_s
       from (
         -- Sessions of other roles show their transaction to members of pg_monitor alone.
         select xact_start as began_at,
           'the transaction of ' || coalesce(nullif(application_name, ''), usename, backend_type) || ' (pid ' || pid || ')' as who
         from pg_stat_activity
         where xact_start is not null and backend_type = 'client backend' and (backend_xid is not null or backend_xmin is not null)
         union all
         select prepared, 'the prepared transaction ' || quote_literal(gid) from pg_prepared_xacts
       ) as t
       order by began_at limit 1
     ) as o on true`,
    [slot ?? null],
  );
  const [row] = rows;
  if (row === undefined) throw new Error("the look at the replication slot has no row");
  return {
    atMs: nowMs,
    currentLsn: parseLsn(row.current_lsn),
    isThere: row.is_there,
    isActive: row.is_active === true,
    confirmedLsn: lsnOf(row.confirmed_lsn),
    restartLsn: lsnOf(row.restart_lsn),
    walStatus: row.wal_status ?? undefined,
    invalidationReason: row.invalidation_reason ?? undefined,
    safeBytes: row.safe_bytes === null ? undefined : Number(row.safe_bytes),
    oldestTransaction: transactionOf(row.old_who, row.old_age_s),
    outboxBytes: row.outbox_bytes === null ? undefined : Number(row.outbox_bytes),
  };
}

const lsnOf = (text: string | null): bigint | undefined => (text === null ? undefined : parseLsn(text));

const transactionOf = (who: string | null, ageS: number | null): OldTransaction | undefined =>
  who === null || ageS === null ? undefined : { who, ageS };
