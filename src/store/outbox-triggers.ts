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
  /** `pg_trigger.tgenabled`: `A` is always. */
  readonly enabled: string;
}

export interface OutboxFunctionRow {
  readonly name: string;
  readonly source: string;
}

/** Those of partitions are left out: they come and go with their root's. */
export async function readOutboxTriggers(db: Queryable): Promise<readonly OutboxTriggerRow[]> {
  const { rows } = await db.query<OutboxTriggerRow>(`
    select t.tgrelid::oid as "tableOid", n.nspname as schema, c.relname as table, t.tgname as name, p.proname as function,
      t.tgtype::integer as type, t.tgenabled as enabled
    from pg_trigger t
    join pg_proc p on p.oid = t.tgfoid
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    where p.pronamespace = 'ancrage'::regnamespace and t.tgparentid = 0 and not t.tgisinternal
    order by 1, t.tgname`);
  return rows;
}

export async function readOutboxFunctions(db: Queryable): Promise<readonly OutboxFunctionRow[]> {
  const { rows } = await db.query<OutboxFunctionRow>(`
    select proname as name, prosrc as source from pg_proc
    where pronamespace = 'ancrage'::regnamespace and proname ~ '^capture_[0-9]+$' order by proname`);
  return rows;
}
