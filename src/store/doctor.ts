import type { Queryable } from "./database.ts";

/** What a role may do, where it counts. */
export interface RoleRow {
  readonly name: string;
  readonly isSuperuser: boolean;
  /** By its own attribute, or by the role with which managed servers lend it. */
  readonly mayReplicate: boolean;
  readonly mayCreate: boolean;
  readonly ownsDatabase: boolean;
  /** Row-level security shows it all rows. */
  readonly bypassesRls: boolean;
}

export async function readRole(db: Queryable): Promise<RoleRow> {
  const { rows } = await db.query<RoleRow>(
    `select r.rolname::text as name, r.rolsuper as "isSuperuser",
       r.rolsuper or r.rolreplication or exists (
         select from pg_roles lent where lent.rolname in ('rds_replication', 'rds_superuser', 'neon_superuser') and pg_has_role(r.oid, lent.oid, 'member')
       ) as "mayReplicate",
       has_database_privilege(current_database(), 'create') as "mayCreate",
       pg_has_role(r.oid, d.datdba, 'usage') as "ownsDatabase",
       r.rolsuper or r.rolbypassrls as "bypassesRls"
     from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()`,
  );
  const [row] = rows;
  if (row === undefined) throw new Error("pg_roles has no row for the current role");
  return row;
}

/** Settings by name, as `show` shows them; those that this version has not are left out. */
export async function readServerSettings(db: Queryable, names: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const { rows } = await db.query<{ name: string; value: string }>(
    `select name, current_setting(name) as value from pg_settings where name = any($1)`,
    [names],
  );
  return new Map(rows.map(({ name, value }) => [name, value]));
}

export interface UsageRow {
  readonly slots: number;
  readonly senders: number;
  readonly sessions: number;
  /** Seconds since 1970, by the server's clock. */
  readonly clockS: number;
  /** Standbys that commits wait for and that are connected; null where this role is not shown what they are. */
  readonly synchronousStandbys: number | null;
  /** Slots that nobody reads and that keep the log: they fill the disk. */
  readonly idleSlots: readonly string[];
}

export async function readUsage(db: Queryable): Promise<UsageRow> {
  const { rows } = await db.query<UsageRow>(
    `select (select count(*)::integer from pg_replication_slots) as slots,
       (select count(*)::integer from pg_stat_replication) as senders,
       (select count(*)::integer from pg_stat_activity where backend_type = 'client backend') as sessions,
       extract(epoch from clock_timestamp())::float8 as "clockS",
       (select case when count(*) filter (where sync_state is null) = 0 then (count(*) filter (where sync_state in ('sync', 'quorum')))::integer end
        from pg_stat_replication) as "synchronousStandbys",
       (select coalesce(array_agg(slot_name::text order by 1), '{}') from pg_replication_slots
        where not active and not temporary and slot_name not like 'ancrage\\_%') as "idleSlots"`,
  );
  const [row] = rows;
  if (row === undefined) throw new Error("the usage of the server has no row");
  return row;
}

export interface TableRightsRow {
  readonly oid: number;
  readonly maySelect: boolean;
  readonly isOwner: boolean;
  readonly isUnlogged: boolean;
  readonly hasRls: boolean;
}

/** What the current role may do with these tables, and what about them the log does not carry. */
export async function readTableRights(db: Queryable, oids: readonly number[]): Promise<readonly TableRightsRow[]> {
  const { rows } = await db.query<TableRightsRow>(
    `select c.oid, has_table_privilege(c.oid, 'select') and has_schema_privilege(c.relnamespace, 'usage') as "maySelect",
       pg_has_role(c.relowner, 'usage') as "isOwner", c.relpersistence <> 'p' as "isUnlogged",
       c.relrowsecurity and (c.relforcerowsecurity or not pg_has_role(c.relowner, 'usage')) as "hasRls"
     from pg_class c where c.oid = any($1::oid[])`,
    [oids],
  );
  return rows;
}

/** What of the schema `ancrage` the current role may not use, by name; undefined where there is no such schema. */
export async function readDeniedOfOurs(db: Queryable): Promise<readonly string[] | undefined> {
  const { rows } = await db.query<{ denied: string[] | null; is_there: boolean }>(
    `select n.oid is not null as is_there,
       case when n.oid is null then null when not has_schema_privilege(n.oid, 'usage') then array['the schema "ancrage"']
       else (
         select coalesce(array_agg('ancrage.' || c.relname order by 1), '{}') from pg_class c
         where c.relnamespace = n.oid and c.relkind in ('r', 'p') and not c.relispartition
           and not (has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
             and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'))
       ) end as denied
     from (select 1) as one left join pg_namespace n on n.nspname = 'ancrage'`,
  );
  const [row] = rows;
  return row?.is_there === true ? (row.denied ?? []) : undefined;
}
