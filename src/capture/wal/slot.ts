import pg from "pg";
import type { Catalogue, TrackedTable } from "../../event/catalogue.ts";
import { nameTable, quoteTable, type TableInfo } from "../../store/tables.ts";
import type { PartRow, PublicationRow } from "../../store/capture-state.ts";

/** What capture needs in the database, by name. Named by the database's oid: a clone of a database must not read its twin's slot. */
export interface CaptureNames {
  readonly slot: string;
  /** Inserts, updates and deletes, of tables with a replica identity. Both publish truncations, which are warned of. */
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
export function sourceIdOf({ systemIdentifier, databaseOid, generation }: SourceIdentity): string {
  return `wal-${systemIdentifier}-${databaseOid}${generation === 0 ? "" : `-${generation}`}`;
}

export interface SourceIdentity {
  readonly systemIdentifier: string;
  readonly databaseOid: number;
  /** How often the database was adopted. */
  readonly generation: number;
}

/** What there is, as `planCapture` compares it with what is needed. */
export interface CaptureState {
  readonly names: CaptureNames;
  /** By name; absent where it does not exist. */
  readonly publications: ReadonlyMap<string, PublicationState>;
  readonly hasSlot: boolean;
  /** Whether a slot that is made is kept up to date on the standbys too. */
  readonly isFailover?: boolean;
  /** As `server_version_num` has it. */
  readonly version: number;
  /** By the oid of the tracked table: what holds its rows, the table itself or the leaves of a partitioned one. */
  readonly parts: ReadonlyMap<number, readonly Part[]>;
}

export type PublicationState = Omit<PublicationRow, "name">;
export type Part = Omit<PartRow, "rootOid">;

/** One statement that brings the database to what capture wants. */
export interface PlanStep {
  readonly sql: string;
  /** Without it changes would be missed: `start` refuses. Else it only tidies up: more is published than these definitions read. */
  readonly isNeeded: boolean;
  /** It takes a table out of a publication, or comes before one that does: a process of other definitions may still read it. */
  readonly takesOut?: boolean;
  /** It takes the replication privilege, and must run outside of a transaction that has written. */
  readonly makesSlot: boolean;
  /**
   * The partition whose identity it sets, of a table that has its own right. Partitions are attached at any time, by whoever knows nothing
   * of us: what their rows lack is told row by row (`lacking.ts`), and capture neither stops nor waits for it.
   */
  readonly partition?: string;
}

/**
 * The statements that capture still lacks, in the order in which they must run: replica identities, publications, and last the
 * slot. A slot that is older than its publication is dead for ever: it decodes with the catalogue of its own past.
 *
 * `migrate` runs them; `start` refuses and prints them. Empty: all is there.
 */
export function planCapture(catalogue: Catalogue, state: CaptureState): readonly PlanStep[] {
  const { names } = state;
  const tracked = [...catalogue.tables.values()];
  const all = planPublication(
    names.publication,
    "insert, update, delete, truncate",
    { tables: tracked.filter((table) => table.readsUpdatesOrDeletes), isCarried: () => false },
    state,
  );
  const tables = tracked.filter((table) => !table.readsUpdatesOrDeletes);
  // Another migration may have moved them on: their inserts come all the same.
  const isCarried = ({ table }: TrackedTable): boolean => carriesInserts(state.publications.get(names.publication), table);
  const inserts = planPublication(names.insertPublication, "insert, truncate", { tables, isCarried }, state);
  const needed = (sql: string): PlanStep => ({ sql, isNeeded: true, makesSlot: false });
  const tidying = (sql: string): PlanStep => ({ sql, isNeeded: false, makesSlot: false });
  const takingOut = (sql: string): PlanStep => ({ ...tidying(sql), takesOut: true });
  return [
    ...tracked.flatMap((table) => planIdentity(table, state)),
    // A table that moves from one to the other stands in both for a moment: in neither, its inserts of that moment would be lost.
    ...all.added.map(needed),
    ...inserts.added.map(needed),
    ...[...all.narrowed, ...inserts.narrowed].map(tidying),
    ...[...inserts.moved, ...all.dropped, ...inserts.dropped].map(takingOut),
    ...(state.hasSlot ? [] : [{ sql: createSlotSql(names.slot, state.isFailover), isNeeded: true, makesSlot: true }]),
  ];
}

/** @param isFailover the slot is kept up to date on the standbys too (PostgreSQL 17 and later) */
export function createSlotSql(slot: string, isFailover = false): string {
  const name = pg.escapeLiteral(slot);
  // The third and fourth arguments: not temporary, no two-phase commits.
  return `select pg_create_logical_replication_slot(${name}, 'pgoutput'${isFailover ? ", false, false, true" : ""})`;
}

function planIdentity({ table, needsOldValues, readsUpdatesOrDeletes }: TrackedTable, state: CaptureState): readonly PlanStep[] {
  if (!readsUpdatesOrDeletes) return [];
  // Without old values the key is enough; with less, a delete would not say of which record, or the application's own be refused.
  const isEnough = (part: Part): boolean => part.identity === "full" || (part.identity === "key" && !needsOldValues);
  const lacking = (state.parts.get(table.oid) ?? []).filter((part) => !isEnough(part));
  const isOwn = (part: Part): boolean => part.schema === table.schema && part.table === table.table;
  const isRootRight = !lacking.some(isOwn);
  return lacking.map((part) => ({
    sql: `alter table ${quoteTable(part)} replica identity full`,
    isNeeded: true,
    makesSlot: false,
    ...(isRootRight && !isOwn(part) ? { partition: nameTable(part.schema, part.table) } : {}),
  }));
}

interface PublicationPlan {
  readonly added: readonly string[];
  /** What it publishes beyond what is read: it does capture no harm. */
  readonly narrowed: readonly string[];
  /** Tables that come in from the other one, which carries them so far. */
  readonly moved: readonly string[];
  readonly dropped: readonly string[];
}

interface PublicationWants {
  readonly tables: readonly TrackedTable[];
  /** Whether the other publication has what is read of it. */
  isCarried(table: TrackedTable): boolean;
}

function carriesInserts(publication: PublicationState | undefined, table: TableInfo): boolean {
  if (publication?.viaRoot !== true || !publication.actions.includes("insert")) return false;
  return publication.tables.some((one) => quoteTable(one) === quoteTable(table) && !one.isNarrowed);
}

function planPublication(name: string, actions: string, { tables, isCarried }: PublicationWants, state: CaptureState): PublicationPlan {
  const quoted = pg.escapeIdentifier(name);
  const found = state.publications.get(name);
  const wanted = tables.map(({ table }) => quoteTable(table));
  const options = `publish = '${actions}', publish_via_partition_root = true${publishesGenerated(state) ? ", publish_generated_columns = stored" : ""}`;
  if (found === undefined) {
    const list = wanted.length === 0 ? "" : ` for table ${wanted.join(", ")}`;
    return { added: [`create publication ${quoted}${list} with (${options})`], narrowed: [], moved: [], dropped: [] };
  }
  const read = actions.split(", ");
  const hasAll =
    found.viaRoot && read.every((action) => found.actions.includes(action)) && (found.publishesGenerated || !publishesGenerated(state));
  const hasMore = found.actions.some((action) => !read.includes(action));
  const setOptions = `alter publication ${quoted} set (${options})`;
  const published = found.tables.map(quoteTable);
  const absent = tables.filter(({ table }) => !published.includes(quoteTable(table)));
  const added = absent.filter((table) => !isCarried(table)).map(({ table }) => quoteTable(table));
  const moved = absent.filter(isCarried).map(({ table }) => quoteTable(table));
  // With a row filter or a list of columns the log lacks what somebody left out, and nothing says so.
  const isNarrowed = found.tables.some((table) => table.isNarrowed && wanted.includes(quoteTable(table)));
  // Tables that nothing reads any more leave: their changes would be decoded for nothing.
  const dropped = published.filter((table) => !wanted.includes(table));
  return {
    added: [
      ...(hasAll ? [] : [setOptions]),
      ...(isNarrowed
        ? [`alter publication ${quoted} set table ${[...published, ...added].join(", ")}`]
        : added.length === 0
          ? []
          : [`alter publication ${quoted} add table ${added.join(", ")}`]),
    ],
    narrowed: hasAll && hasMore ? [setOptions] : [],
    moved: moved.length === 0 ? [] : [`alter publication ${quoted} add table ${moved.join(", ")}`],
    dropped: dropped.length === 0 ? [] : [`alter publication ${quoted} drop table ${dropped.join(", ")}`],
  };
}

/**
 * From PostgreSQL 18 on stored generated columns can be published. They must be: `replica identity full` holds them, and the server
 * refuses the application's own updates while an identity has columns that are not published.
 */
const publishesGenerated = ({ version }: CaptureState): boolean => version >= 180_000;
