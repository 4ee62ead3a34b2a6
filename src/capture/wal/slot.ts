import pg from "pg";
import type { Catalogue, TrackedTable } from "../../event/catalogue.ts";
import { quoteTable } from "../../store/tables.ts";
import type { PartRow, PublicationRow } from "../../store/capture-state.ts";

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

/** Names a source in the journal, and is part of every message id: ids of two databases never meet. */
export const sourceIdOf = (systemIdentifier: string, databaseOid: number): string => `wal-${systemIdentifier}-${databaseOid}`;

/** What there is, as `planCapture` compares it with what is needed. */
export interface CaptureState {
  readonly names: CaptureNames;
  /** By name; absent where it does not exist. */
  readonly publications: ReadonlyMap<string, PublicationState>;
  readonly hasSlot: boolean;
  /** By the oid of the tracked table: what holds its rows, the table itself or the leaves of a partitioned one. */
  readonly parts: ReadonlyMap<number, readonly Part[]>;
}

export type PublicationState = Omit<PublicationRow, "name">;
export type Part = Omit<PartRow, "rootOid">;

/**
 * The statements that capture still lacks, in the order in which they must run: replica identities, publications, and last the
 * slot. A slot that is older than its publication is dead for ever: it decodes with the catalogue of its own past.
 *
 * `migrate` runs them; `start` refuses and prints them. Empty: all is there.
 */
export function planCapture(catalogue: Catalogue, state: CaptureState): readonly string[] {
  const { names } = state;
  const tracked = [...catalogue.tables.values()];
  const all = planPublication(
    names.publication,
    "insert, update, delete",
    tracked.filter((table) => table.readsUpdatesOrDeletes),
    state,
  );
  const inserts = planPublication(
    names.insertPublication,
    "insert",
    tracked.filter((table) => !table.readsUpdatesOrDeletes),
    state,
  );
  return [
    ...tracked.flatMap((table) => planIdentity(table, state)),
    // A table that moves from one to the other stands in both for a moment: in neither, its inserts of that moment would be lost.
    ...all.added,
    ...inserts.added,
    ...all.dropped,
    ...inserts.dropped,
    ...(state.hasSlot ? [] : [`select pg_create_logical_replication_slot(${pg.escapeLiteral(names.slot)}, 'pgoutput')`]),
  ];
}

function planIdentity({ table, needsOldValues, readsUpdatesOrDeletes }: TrackedTable, state: CaptureState): readonly string[] {
  if (!readsUpdatesOrDeletes) return [];
  // Without old values the key is enough; with less, a delete would not say of which record, or the application's own be refused.
  const isEnough = (part: Part): boolean => part.identity === "full" || (part.identity === "key" && !needsOldValues);
  const parts = state.parts.get(table.oid) ?? [];
  return parts.filter((part) => !isEnough(part)).map((part) => `alter table ${quoteTable(part)} replica identity full`);
}

interface PublicationPlan {
  readonly added: readonly string[];
  readonly dropped: readonly string[];
}

function planPublication(name: string, actions: string, tables: readonly TrackedTable[], state: CaptureState): PublicationPlan {
  const quoted = pg.escapeIdentifier(name);
  const found = state.publications.get(name);
  const wanted = tables.map(({ table }) => quoteTable(table));
  if (found === undefined) {
    const list = wanted.length === 0 ? "" : ` for table ${wanted.join(", ")}`;
    return { added: [`create publication ${quoted}${list} with (publish = '${actions}', publish_via_partition_root = true)`], dropped: [] };
  }
  const isAsWanted = found.viaRoot && found.actions.join(", ") === actions.split(", ").toSorted().join(", ");
  const published = found.tables.map(quoteTable);
  const added = wanted.filter((table) => !published.includes(table));
  // Tables that nothing reads any more leave: their changes would be decoded for nothing.
  const dropped = published.filter((table) => !wanted.includes(table));
  return {
    added: [
      ...(isAsWanted ? [] : [`alter publication ${quoted} set (publish = '${actions}', publish_via_partition_root = true)`]),
      ...(added.length === 0 ? [] : [`alter publication ${quoted} add table ${added.join(", ")}`]),
    ],
    dropped: dropped.length === 0 ? [] : [`alter publication ${quoted} drop table ${dropped.join(", ")}`],
  };
}
