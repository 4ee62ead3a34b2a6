import { formatLsn, parseLsn } from "../lsn.ts";
import type { Queryable } from "./database.ts";

/** Which server this is, and which database of it. */
export interface ServerIdentity {
  /** By which slot and publications are named. */
  readonly databaseOid: number;
  readonly databaseName: string;
  readonly systemIdentifier: string;
  /** Up by one with each promotion of a replica, and each restore to a point in time. 0 on a replica. */
  readonly timeline: number;
  readonly isReplica: boolean;
  /** As of this look: what is in the journal since may lie behind it. */
  readonly flushLsn: string;
  readonly version: number;
  readonly walLevel: string;
  /** Of this database, as `server_encoding` has it. */
  readonly encoding: string;
}

/** The control file knows a new timeline only after the first checkpoint on it. */
const timelineSql =
  "case when pg_is_in_recovery() then 0 else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer end";

/** 0 on a replica. */
export async function readTimeline(db: Queryable): Promise<number> {
  const { rows } = await db.query<{ timeline: number }>(`select ${timelineSql} as timeline`);
  return rows[0]?.timeline ?? 0;
}

/** Up to where the log is on disk; on a replica up to where it is replayed. */
const flushLsnSql = "case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end::text";

export async function readFlushLsn(db: Queryable): Promise<bigint> {
  const { rows } = await db.query<{ lsn: string }>(`select ${flushLsnSql} as lsn`);
  return parseLsn(rows[0]?.lsn ?? "0/0");
}

export async function readServerIdentity(db: Queryable): Promise<ServerIdentity> {
  const { rows } = await db.query<ServerIdentity>(`
    select oid as "databaseOid", datname::text as "databaseName", (select system_identifier::text from pg_control_system()) as "systemIdentifier",
      ${timelineSql} as timeline,
      pg_is_in_recovery() as "isReplica",
      ${flushLsnSql} as "flushLsn",
      current_setting('server_version_num')::integer as version, current_setting('wal_level') as "walLevel",
      current_setting('server_encoding') as encoding
    from pg_database where datname = current_database()`);
  const [row] = rows;
  if (row === undefined) throw new Error("pg_database has no row for the current database");
  return row;
}

/** Which transactions are over: `795:799:795,797`, with full (64-bit) ids. */
export async function readSnapshot(db: Queryable): Promise<string> {
  const { rows } = await db.query<{ snapshot: string }>({ name: "snapshot", text: "select pg_current_snapshot()::text as snapshot" });
  return rows[0]?.snapshot ?? "";
}

export interface PublicationRow {
  readonly name: string;
  /** Sorted: `delete`, `insert`, `truncate`, `update`. */
  readonly actions: readonly string[];
  readonly viaRoot: boolean;
  /** Whether stored generated columns are published; never before PostgreSQL 18. */
  readonly publishesGenerated: boolean;
  readonly tables: readonly PublishedTable[];
}

export interface PublishedTable {
  readonly schema: string;
  readonly table: string;
  /** A row filter or a list of columns stands on it. */
  readonly isNarrowed: boolean;
}

export async function readPublications(db: Queryable, names: readonly string[]): Promise<readonly PublicationRow[]> {
  const { rows } = await db.query<{
    name: string;
    ins: boolean;
    upd: boolean;
    del: boolean;
    trunc: boolean;
    via_root: boolean;
    generated: boolean;
    tables: PublicationRow["tables"];
  }>(
    `select p.pubname as name, p.pubinsert as ins, p.pubupdate as upd, p.pubdelete as del, p.pubtruncate as trunc, p.pubviaroot as via_root,
       coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) as generated,
       coalesce(
         json_agg(json_build_object('schema', n.nspname, 'table', c.relname, 'isNarrowed', r.prqual is not null or r.prattrs is not null))
           filter (where c.oid is not null),
         '[]'
       ) as tables
     from pg_publication p
     left join pg_publication_rel r on r.prpubid = p.oid
     left join pg_class c on c.oid = r.prrelid
     left join pg_namespace n on n.oid = c.relnamespace
     where p.pubname = any($1) group by p.oid`,
    [names],
  );
  return rows.map((row) => ({
    name: row.name,
    actions: [
      ...(row.del ? ["delete"] : []),
      ...(row.ins ? ["insert"] : []),
      ...(row.trunc ? ["truncate"] : []),
      ...(row.upd ? ["update"] : []),
    ],
    viaRoot: row.via_root,
    publishesGenerated: row.generated,
    tables: row.tables,
  }));
}

/** What capture stands on, by name: the versions of each thing. One that was taken away and made again has another version. */
export type Footing = Readonly<Record<string, readonly string[]>>;

export interface PublishedPlaces {
  /** By the name of a publication its oid. */
  readonly publications: ReadonlyMap<string, readonly string[]>;
  /** By the oid of a table the oids of its places in them. */
  readonly tables: ReadonlyMap<number, readonly string[]>;
}

export async function readPublishedPlaces(db: Queryable, names: readonly string[], tableOids: readonly number[]): Promise<PublishedPlaces> {
  const { rows } = await db.query<{ name: string | null; table_oid: number | null; oids: string[] }>(
    `select pubname::text as name, null as table_oid, array_agg(oid::text) as oids from pg_publication where pubname = any($1) group by 1
     union all
     select null, r.prrelid::oid, array_agg(r.oid::text order by r.oid)
     from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
     where p.pubname = any($1) and r.prrelid = any($2::oid[]) group by r.prrelid
     order by 1, 2`,
    [names, tableOids],
  );
  return {
    publications: new Map(rows.flatMap(({ name, oids }) => (name === null ? [] : [[name, oids] as const]))),
    tables: new Map(rows.flatMap(({ table_oid, oids }) => (table_oid === null ? [] : [[table_oid, oids] as const]))),
  };
}

/** Columns of a table that PostgreSQL computes when they are read: no log carries them. By the oid of the table. */
export async function readVirtualColumns(db: Queryable, oids: readonly number[]): Promise<ReadonlyMap<number, readonly string[]>> {
  const { rows } = await db.query<{ oid: number; names: string[] }>(
    `select attrelid::oid as oid, array_agg(attname::text order by attnum) as names
     from pg_attribute where attrelid = any($1::oid[]) and attgenerated = 'v' and not attisdropped group by 1`,
    [oids],
  );
  return new Map(rows.map(({ oid, names }) => [oid, names]));
}

export interface SlotRow {
  readonly confirmedLsn: string | null;
  /** Null once the log that it needs is gone. */
  readonly restartLsn: string | null;
  readonly walStatus: string | null;
  /** From PostgreSQL 17 on. */
  readonly invalidationReason: string | null;
  readonly activePid: number | null;
  readonly plugin: string;
  readonly database: string;
  /** Whether it is kept up to date on the standbys; never before PostgreSQL 17. */
  readonly isFailover: boolean;
}

export async function readSlot(db: Queryable, name: string): Promise<SlotRow | undefined> {
  const { rows } = await db.query<SlotRow>(
    // As JSON: what an older server has no column for is null.
    `select confirmed_flush_lsn::text as "confirmedLsn", restart_lsn::text as "restartLsn", wal_status as "walStatus",
       to_jsonb(s) ->> 'invalidation_reason' as "invalidationReason", active_pid as "activePid", plugin, database,
       coalesce((to_jsonb(s) ->> 'failover')::boolean, false) as "isFailover"
     from pg_replication_slots s where slot_name = $1`,
    [name],
  );
  return rows[0];
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
 * What holds the rows of some tables: the table itself, or the leaves of a partitioned one, whose own identity counts; and that one,
 * by whose identity PostgreSQL says of an old row whether it is whole.
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
         select relid::oid as oid from pg_partition_tree(r.oid) where (isleaf or relid = r.oid) and r.relkind = 'p'
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

/** @returns whether it was there, and is gone now; one that is in use is left, and one that was made behind this place meanwhile */
export async function dropPassedSlot(db: Queryable, name: string, endLsn: bigint): Promise<boolean> {
  const { rows } = await db.query(
    `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and active_pid is null and confirmed_flush_lsn <= $2::pg_lsn`,
    [name, formatLsn(endLsn)],
  );
  return rows.length > 0;
}
