import type pg from "pg";

type Queryable = Pick<pg.ClientBase, "query">;

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

export interface PublicationRow {
  readonly name: string;
  readonly actions: readonly string[];
  readonly viaRoot: boolean;
  readonly tables: readonly string[];
}

export async function readPublications(db: Queryable, names: readonly string[]): Promise<readonly PublicationRow[]> {
  const { rows } = await db.query<{ name: string; ins: boolean; upd: boolean; del: boolean; via_root: boolean; tables: string[] }>(
    `select p.pubname as name, p.pubinsert as ins, p.pubupdate as upd, p.pubdelete as del, p.pubviaroot as via_root,
       coalesce(array_agg(n.nspname || '.' || c.relname) filter (where c.oid is not null), '{}') as tables
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

export interface LeafRow {
  readonly rootOid: number;
  readonly schema: string;
  readonly table: string;
  readonly replicaIdentity: string;
}

/** The leaves of partitioned tables. */
export async function readLeaves(db: Queryable, rootOids: readonly number[]): Promise<readonly LeafRow[]> {
  if (rootOids.length === 0) return [];
  const { rows } = await db.query<{ root_oid: number; schema: string; table: string; replica_identity: string }>(
    `select root.oid as root_oid, n.nspname as schema, c.relname as table, c.relreplident as replica_identity
     from unnest($1::oid[]) as root (oid), pg_partition_tree(root.oid) as t
     join pg_class c on c.oid = t.relid join pg_namespace n on n.oid = c.relnamespace
     where t.isleaf order by 1, 2, 3`,
    [rootOids],
  );
  return rows.map((row) => ({ rootOid: row.root_oid, schema: row.schema, table: row.table, replicaIdentity: row.replica_identity }));
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
