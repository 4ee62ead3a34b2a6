// (being written by the owner of event/)
import type { TableInfo } from "../store/tables.ts";
import type { EventDefinition } from "./define.ts";
import type { TrackingHandler } from "./track.ts";

/** An event that was checked against the database. */
export interface CatalogueEvent {
  readonly name: string;
  /** For messages: where it was defined. */
  readonly file: string;
  readonly definition: EventDefinition;
  readonly table: TableInfo | undefined;
  readonly rules: readonly CompiledRule[];
}

export type CompiledRule =
  | { readonly kind: "insert" | "update" | "delete" | "enter" | "leave" }
  | { readonly kind: "update-columns"; readonly columns: readonly string[] };

/** A table that at least one event or handler reads changes of. */
export interface TrackedTable {
  readonly table: TableInfo;
  /** Events with a rule on this table. */
  readonly events: readonly CatalogueEvent[];
  readonly handlers: readonly { readonly file: string; readonly handler: TrackingHandler }[];
  /** Whether old values are needed: any rule but insert, or a handler, unless `oldValues: false`. */
  readonly needsOldValues: boolean;
  /** Whether more than inserts is read. */
  readonly readsUpdatesOrDeletes: boolean;
}

export interface Catalogue {
  readonly events: ReadonlyMap<string, CatalogueEvent>;
  /** By `TableInfo.name`. */
  readonly tables: ReadonlyMap<string, TrackedTable>;
  /** Tables that are read by `load` and samples beside the tracked ones. */
  readonly allTables: ReadonlyMap<string, TableInfo>;
  /** Takes a record to its project; `default` where no project function is given. */
  projectOf(event: CatalogueEvent, record: Readonly<Record<string, unknown>>): string;
}
