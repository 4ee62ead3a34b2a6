import type { Queryable } from "./database.ts";

/** The database's oid, by which slot and publications are named, and the identity of its server. */
export async function readServerIdentity(
  db: Queryable,
): Promise<{ databaseOid: number; systemIdentifier: string; flushLsn: string; version: number }> {
  const { rows } = await db.query<{ oid: number; system_identifier: string; flush_lsn: string; version: number }>(`
    select oid, (select system_identifier::text from pg_control_system()), pg_current_wal_flush_lsn()::text as flush_lsn,
      current_setting('server_version_num')::integer as version
    from pg_database where datname = current_database()`);
  const [row] = rows;
  if (row === undefined) throw new Error("pg_database has no row for the current database");
  return { databaseOid: row.oid, systemIdentifier: row.system_identifier, flushLsn: row.flush_lsn, version: row.version };
}

export async function readWalLevel(db: Queryable): Promise<string> {
  const { rows } = await db.query<{ wal_level: string }>(`select current_setting('wal_level') as wal_level`);
  return rows[0]?.wal_level ?? "";
}

/** Which transactions are over: `795:799:795,797`, with full (64-bit) ids. */
export async function readSnapshot(db: Queryable): Promise<string> {
  const { rows } = await db.query<{ snapshot: string }>({ name: "snapshot", text: "select pg_current_snapshot()::text as snapshot" });
  return rows[0]?.snapshot ?? "";
}

export interface PublicationRow {
  readonly name: string;
  /** Sorted: `delete`, `insert`, `update`. */
  readonly actions: readonly string[];
  readonly viaRoot: boolean;
  readonly tables: readonly { readonly schema: string; readonly table: string }[];
}

export async function readPublications(db: Queryable, names: readonly string[]): Promise<readonly PublicationRow[]> {
  const { rows } = await db.query<{
    name: string;
    ins: boolean;
    upd: boolean;
    del: boolean;
    via_root: boolean;
    tables: PublicationRow["tables"];
  }>(
    `select p.pubname as name, p.pubinsert as ins, p.pubupdate as upd, p.pubdelete as del, p.pubviaroot as via_root,
       coalesce(json_agg(json_build_object('schema', n.nspname, 'table', c.relname)) filter (where c.oid is not null), '[]') as tables
     from pg_publication p
     left join pg_publication_rel r on r.prpubid = p.oid
     left join pg_class c on c.oid = r.prrelid
     left join pg_namespace n on n.oid = c.relnamespace
     where p.pubname = any($1) group by p.oid`,
    [names],
  );
  return rows.map((row) => ({
    name: row.name,
    actions: [...(row.del ? ["delete"] : []), ...(row.ins ? ["insert"] : []), ...(row.upd ? ["update"] : [])],
    viaRoot: row.via_root,
    tables: row.tables,
  }));
}

export interface SlotRow {
  readonly confirmedLsn: string | null;
  readonly walStatus: string | null;
  readonly activePid: number | null;
  readonly plugin: string;
  readonly database: string;
}

export async function readSlot(db: Queryable, name: string): Promise<SlotRow | undefined> {
  const { rows } = await db.query<{
    confirmed_lsn: string | null;
    wal_status: string | null;
    active_pid: number | null;
    plugin: string;
    database: string;
  }>(
    `select confirmed_flush_lsn::text as confirmed_lsn, wal_status, active_pid, plugin, database from pg_replication_slots where slot_name = $1`,
    [name],
  );
  const [row] = rows;
  return (
    row && {
      confirmedLsn: row.confirmed_lsn,
      walStatus: row.wal_status,
      activePid: row.active_pid,
      plugin: row.plugin,
      database: row.database,
    }
  );
}

export interface PartRow {
  readonly rootOid: number;
  readonly schema: string;
  readonly table: string;
  /**
   * What a delete, and an update of the key, carry of the old row.
   *
   * - `full`: all of it. - `key`: the primary key, at least. - `other`: another index's columns.
   * - `none`: nothing, and a publication of updates or deletes makes PostgreSQL refuse them.
   */
  readonly identity: "full" | "key" | "other" | "none";
}

/**
 * What holds the rows of some tables: the table itself, or the leaves of a partitioned one, whose own identity counts.
 *
 * PostgreSQL itself is asked for the index: a default identity whose primary key is deferrable has none.
 */
export async function readParts(db: Queryable, oids: readonly number[]): Promise<readonly PartRow[]> {
  if (oids.length === 0) return [];
  const { rows } = await db.query<{ root_oid: number; schema: string; table: string; identity: PartRow["identity"] }>(
    `select root.oid as root_oid, n.nspname as schema, c.relname as table,
       case
         when c.relreplident = 'f' then 'full'
         when i.indexrelid is null then 'none'
         when p.conkey <@ (i.indkey::int2[])[0 : i.indnkeyatts - 1] then 'key'
         else 'other'
       end as identity
     from unnest($1::oid[]) as root (oid)
     join pg_class r on r.oid = root.oid
     cross join lateral (
       -- "offset 0": joined in, the function would be called for every relation there is, and fails on some.
       select o.oid, pg_get_replica_identity_index(o.oid) as identity_index
       from (
         select relid::oid as oid from pg_partition_tree(r.oid) where isleaf and r.relkind = 'p'
         union all
         select r.oid where r.relkind <> 'p'
       ) as o offset 0
     ) as part
     join pg_class c on c.oid = part.oid
     join pg_namespace n on n.oid = c.relnamespace
     left join pg_index i on i.indexrelid = part.identity_index
     left join pg_constraint p on p.conrelid = c.oid and p.contype = 'p'
     order by 1, 2, 3`,
    [oids],
  );
  return rows.map((row) => ({ rootOid: row.root_oid, schema: row.schema, table: row.table, identity: row.identity }));
}

export interface SettingsRow {
  readonly systemIdentifier: string;
  readonly environment: string;
  readonly triggerKey: Buffer;
}

export async function readSettings(db: Queryable): Promise<SettingsRow | undefined> {
  const { rows } = await db.query<{ system_identifier: string; environment: string; trigger_key: Buffer }>(
    `select system_identifier, environment, trigger_key from ancrage.settings`,
  );
  const [row] = rows;
  return row && { systemIdentifier: row.system_identifier, environment: row.environment, triggerKey: row.trigger_key };
}
