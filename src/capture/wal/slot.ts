import pg from "pg";
import type { Catalogue, TrackedTable } from "../../event/catalogue.ts";
import type { TableInfo } from "../../store/tables.ts";

/** What capture needs in the database, by name. Named by the database's oid: a clone of a database must not read its twin's slot. */
export interface CaptureNames {
  readonly slot: string;
  /** Inserts, updates and deletes, of tables with a replica identity. */
  readonly publication: string;
  /**
   * Inserts only: for tables of which no more is read, and for those without an identity. Publishing updates or deletes of such a
   * table would make PostgreSQL refuse the application's own `UPDATE`.
   */
  readonly insertPublication: string;
}

export function captureNames(databaseOid: number): CaptureNames {
  return { slot: `ancrage_${databaseOid}`, publication: `ancrage_${databaseOid}`, insertPublication: `ancrage_${databaseOid}_inserts` };
}

/** What there is, as `planCapture` compares it with what is needed. */
export interface CaptureState {
  readonly names: CaptureNames;
  /** Publication → its tables as `schema.table`, and what it publishes; absent where it does not exist. */
  readonly publications: ReadonlyMap<string, PublicationState>;
  readonly hasSlot: boolean;
  /** Leaves of partitioned tables: replica identity is theirs, not their root's. By the root's oid. */
  readonly leaves: ReadonlyMap<number, readonly Leaf[]>;
}

export interface PublicationState {
  readonly tables: ReadonlySet<string>;
  /** Sorted: `delete`, `insert`, `update`. */
  readonly actions: readonly string[];
  readonly viaRoot: boolean;
}

export interface Leaf {
  readonly schema: string;
  readonly table: string;
  readonly replicaIdentity: string;
}

/**
 * The statements that capture still lacks, in the order in which they must run: replica identities, publications, and last the
 * slot. A slot that is older than its publication is dead for ever: it decodes with the catalogue of its own past.
 *
 * `migrate` runs them; `start` refuses and prints them. Empty: all is there.
 */
export function planCapture(catalogue: Catalogue, state: CaptureState): readonly string[] {
  const tracked = [...catalogue.tables.values()];
  const insertsOnly = (table: TrackedTable): boolean => !table.readsUpdatesOrDeletes;
  return [
    ...tracked.flatMap((table) => (table.needsOldValues ? planIdentity(table.table, state) : [])),
    ...planPublication(
      state.names.publication,
      "insert, update, delete",
      tracked.filter((table) => !insertsOnly(table)),
      state,
    ),
    ...planPublication(state.names.insertPublication, "insert", tracked.filter(insertsOnly), state),
    ...(state.hasSlot ? [] : [`select pg_create_logical_replication_slot(${pg.escapeLiteral(state.names.slot)}, 'pgoutput')`]),
  ];
}

function planIdentity(table: TableInfo, state: CaptureState): readonly string[] {
  const parts = table.isPartitioned ? (state.leaves.get(table.oid) ?? []) : [table];
  return parts.filter((part) => part.replicaIdentity !== "f").map((part) => `alter table ${quoteTable(part)} replica identity full`);
}

function planPublication(name: string, actions: string, tables: readonly TrackedTable[], state: CaptureState): readonly string[] {
  const quoted = pg.escapeIdentifier(name);
  const found = state.publications.get(name);
  const wanted = new Map(tables.map(({ table }) => [`${table.schema}.${table.table}`, quoteTable(table)]));
  if (found === undefined) {
    const list = wanted.size === 0 ? "" : ` for table ${[...wanted.values()].join(", ")}`;
    return [`create publication ${quoted}${list} with (publish = '${actions}', publish_via_partition_root = true)`];
  }
  const statements: string[] = [];
  if (found.actions.join(", ") !== actions.split(", ").toSorted().join(", ") || !found.viaRoot) {
    statements.push(`alter publication ${quoted} set (publish = '${actions}', publish_via_partition_root = true)`);
  }
  const added = [...wanted].filter(([table]) => !found.tables.has(table)).map(([, table]) => table);
  // Tables that nothing reads any more leave: their changes would be decoded for nothing.
  const dropped = [...found.tables].filter((table) => !wanted.has(table)).map((table) => quoteTable(splitName(table)));
  if (dropped.length > 0) statements.push(`alter publication ${quoted} drop table ${dropped.join(", ")}`);
  if (added.length > 0) statements.push(`alter publication ${quoted} add table ${added.join(", ")}`);
  return statements;
}

const quoteTable = (table: { readonly schema: string; readonly table: string }): string =>
  `${pg.escapeIdentifier(table.schema)}.${pg.escapeIdentifier(table.table)}`;

function splitName(name: string): { readonly schema: string; readonly table: string } {
  const dot = name.indexOf(".");
  return { schema: name.slice(0, dot), table: name.slice(dot + 1) };
}
