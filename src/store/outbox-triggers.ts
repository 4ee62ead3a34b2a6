import type { Queryable } from "./database.ts";

/** A trigger of the outbox, on a table of the application. */
export interface OutboxTriggerRow {
  readonly tableOid: number;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  /** In the schema `ancrage`. */
  readonly function: string;
  /** `pg_trigger.tgtype`. */
  readonly type: number;
  /** `pg_trigger.tgenabled`: `A` is always; that of a partition which has another counts for all. */
  readonly enabled: string;
  /** Another one after each change of it. */
  readonly version: string;
}

export interface OutboxFunctionRow {
  readonly name: string;
  readonly source: string;
  /** Another one for another function, or one that does something else; a grant on it, or a new owner, changes nothing. */
  readonly version: string;
}

/** Those of partitions are left out: they come and go with their root's, and only whether they are enabled is asked. */
export async function readOutboxTriggers(db: Queryable): Promise<readonly OutboxTriggerRow[]> {
  const { rows } = await db.query<OutboxTriggerRow>(`
    select t.tgrelid::oid as "tableOid", n.nspname as schema, c.relname as table, t.tgname as name, p.proname as function,
      t.tgtype::integer as type, coalesce(below.enabled, t.tgenabled::text) as enabled, t.xmin::text as version
    from pg_trigger t
    join pg_proc p on p.oid = t.tgfoid
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    left join lateral (
      with recursive clone as (
        select k.oid, k.tgenabled from pg_trigger k where k.tgparentid = t.oid
        union all
        select k.oid, k.tgenabled from clone join pg_trigger k on k.tgparentid = clone.oid
      )
      select min(tgenabled::text) as enabled from clone where tgenabled <> t.tgenabled
    ) as below on c.relkind = 'p'
    where p.pronamespace = 'ancrage'::regnamespace and t.tgparentid = 0 and not t.tgisinternal
    order by 1, t.tgname`);
  return rows;
}

export async function readOutboxFunctions(db: Queryable): Promise<readonly OutboxFunctionRow[]> {
  const { rows } = await db.query<OutboxFunctionRow>(`
    select proname as name, prosrc as source, oid || ' ' || md5(concat_ws(' ', prosrc, prosecdef, proconfig)) as version from pg_proc
    where pronamespace = 'ancrage'::regnamespace and proname ~ '^capture_[0-9]+$' order by proname`);
  return rows;
}
