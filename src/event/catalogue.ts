import { AncrageError } from "../errors.ts";
import { refuseThenable } from "../thenable.ts";
import { suggestTable } from "../nearest-name.ts";
import type { TableInfo } from "../store/tables.ts";
import type { EventDefinition, Rule } from "./define.ts";
import { checkEvent } from "./check-event.ts";
import type { FoundEvent, FoundHandler } from "./discover.ts";
import { definitionError, describeValue, type Fault, faultOfMissingKey, isAsync } from "./fault.ts";
import { jsonSchemaOf } from "./json-schema.ts";
import { operationalEvents } from "./operational.ts";
import type { TrackingHandler } from "./track.ts";

/** An event that was checked against the database. */
export interface CatalogueEvent {
  readonly name: string;
  /** For messages: where it was defined. */
  readonly file: string;
  readonly definition: EventDefinition;
  readonly table: TableInfo | undefined;
  readonly rules: readonly CompiledRule[];
  /** The JSON Schema of what is sent; `undefined` where the definition has none. */
  readonly jsonSchema: object | undefined;
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
  /** The folder's, and Ancrage's own. */
  readonly events: ReadonlyMap<string, CatalogueEvent>;
  /** By `TableInfo.name`. */
  readonly tables: ReadonlyMap<string, TrackedTable>;
  /** Tables that are read by `load` and samples beside the tracked ones. */
  readonly allTables: ReadonlyMap<string, TableInfo>;
  /** Takes a record to its project; `default` where no project function is given. */
  projectOf(event: CatalogueEvent, record: Readonly<Record<string, unknown>>): string;
}

export interface CatalogueInput {
  readonly events: readonly FoundEvent[];
  readonly tracking: readonly FoundHandler[];
  readonly tables: readonly TableInfo[];
  /** The configuration; only its `project` function is read here. */
  readonly config?: { readonly project?: unknown } | undefined;
  /** Those of `discover`: one error lists them together with those found here. */
  readonly faults?: readonly Fault[];
}

/**
 * Checks all definitions against the tables and puts them together.
 *
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID`, listing all faults
 */
export function buildCatalogue(input: CatalogueInput): Catalogue {
  const allTables = new Map(input.tables.map((table) => [table.name, table]));
  const projectOfAll = projectFunction(input.config?.project);
  const faults = [
    ...(input.faults ?? []),
    ...faultsOfNames(input.events),
    ...input.events.flatMap((event) => checkEvent(event, allTables)),
    ...input.tracking.flatMap((found) => checkHandler(found, allTables)),
    ...faultsOfProjects(input.events, projectOfAll !== undefined),
  ];
  if (faults.length > 0) throw definitionError(faults);

  const events = input.events.map((event) => compileEvent(event, allTables));
  const own = operationalEvents.map((event) => compileEvent({ ...event, file: "ancrage" }, allTables));
  return {
    // Ancrage's own at the end: whoever looks at the first sees one of the folder's.
    events: new Map([...events, ...own].map((event) => [event.name, event])),
    tables: trackedTables(events, input.tracking, allTables),
    allTables,
    projectOf: (event, record) => projectOf(event, record, projectOfAll),
  };
}

/** Names must differ by more than case: a file system may hold only one of two such files, and a URL's reader sees none. */
function faultsOfNames(events: readonly FoundEvent[]): Fault[] {
  const reserved = new Set(operationalEvents.map(({ name }) => name));
  const firsts = new Map<string, FoundEvent>();
  const faults: Fault[] = [];
  for (const event of events) {
    if (reserved.has(event.name.toLowerCase())) {
      faults.push({ file: event.file, message: `the event "${event.name}" is Ancrage's own, expected another name.`, hint: "Rename it." });
    }
    const first = firsts.get(event.name.toLowerCase());
    if (first === undefined) {
      firsts.set(event.name.toLowerCase(), event);
      continue;
    }
    const likeness =
      first.name === event.name ? `is also defined in ${first.file}` : `differs only in case from "${first.name}" in ${first.file}`;
    faults.push({
      file: event.file,
      message: `the event "${event.name}" ${likeness}, expected one file an event.`,
      hint: "Rename one of them.",
    });
  }
  return faults;
}

function checkHandler(found: FoundHandler, tables: ReadonlyMap<string, TableInfo>): Fault[] {
  const { file, handler } = found;
  const faults: Fault[] = [];
  const table = tables.get(handler.table);
  if (table === undefined) {
    const message = `tracks the table ${describeValue(handler.table)}, expected one of the database's.`;
    faults.push({ file, message, hint: suggestTable(handler.table, [...tables.keys()]) });
  } else if (table.keyColumns.length === 0) {
    faults.push({ ...faultOfMissingKey(table), file });
  }
  if (typeof handler.handle !== "function") {
    const message = `the handler is ${describeValue(handler.handle)}, expected a function.`;
    faults.push({ file, message, hint: 'Write track("table", (change) => { … }).' });
  } else if (isAsync(handler.handle)) {
    const message = "the handler is async, expected a synchronous function: changes are handled in commit order, and none waits.";
    faults.push({ file, message, hint: "Only decide here; read what else is needed in the event's payload, with `load`." });
  }
  return faults;
}

/** Once the config or any event says whose a record is, a record of unknown owner must not fall to `default`, where others see it. */
function faultsOfProjects(events: readonly FoundEvent[], configHasProject: boolean): Fault[] {
  const withProject = events.find((event) => typeof event.definition.project === "function");
  if (configHasProject || withProject === undefined) return [];
  return events
    .filter((event) => event.definition.project === undefined)
    .map((event) => ({
      file: event.file,
      message: `has no project function while ${withProject.file} has one, expected one in each event or in ancrage.config.ts.`,
      hint: "Write `project: (record) => …` here, or once in ancrage.config.ts.",
    }));
}

function compileEvent(found: Pick<FoundEvent, "name" | "file" | "definition">, tables: ReadonlyMap<string, TableInfo>): CatalogueEvent {
  const { name, file, definition } = found;
  return {
    name,
    file,
    definition,
    table: definition.table === undefined ? undefined : tables.get(definition.table),
    rules: rulesOf(definition).map(compileRule),
    jsonSchema: jsonSchemaOf(definition),
  };
}

function rulesOf(definition: EventDefinition): readonly Rule[] {
  const { on } = definition;
  if (on === undefined) return [];
  return isRuleList(on) ? on : [on];
}

// `Array.isArray` alone does not tell a readonly array from the rest of the union.
const isRuleList = (on: Rule | readonly Rule[]): on is readonly Rule[] => Array.isArray(on);

function compileRule(rule: Rule): CompiledRule {
  return typeof rule === "string" ? { kind: rule } : { kind: "update-columns", columns: rule.update };
}

function trackedTables(
  events: readonly CatalogueEvent[],
  handlers: readonly FoundHandler[],
  tables: ReadonlyMap<string, TableInfo>,
): ReadonlyMap<string, TrackedTable> {
  const tracked = new Map<string, TrackedTable>();
  for (const [name, table] of tables) {
    const ofEvents = events.filter((event) => event.table === table && event.rules.length > 0);
    const ofHandlers = handlers.filter(({ handler }) => handler.table === name);
    if (ofEvents.length + ofHandlers.length === 0) continue;
    const beyondInserts = ofEvents.filter((event) => event.rules.some((rule) => rule.kind !== "insert"));
    tracked.set(name, {
      table,
      events: ofEvents,
      handlers: ofHandlers,
      needsOldValues: ofHandlers.length > 0 || beyondInserts.some((event) => event.definition.oldValues !== false),
      readsUpdatesOrDeletes: ofHandlers.length > 0 || beyondInserts.length > 0,
    });
  }
  return tracked;
}

type ProjectFunction = (record: Readonly<Record<string, unknown>>) => unknown;

const projectFunction = (value: unknown): ProjectFunction | undefined =>
  typeof value === "function" ? (value as ProjectFunction) : undefined;

/** @throws AncrageError `ANCRAGE_DEFINITION_INVALID`: the record becomes a rejection, never a message of another project */
function projectOf(event: CatalogueEvent, record: Readonly<Record<string, unknown>>, projectOfAll: ProjectFunction | undefined): string {
  const project = event.definition.project ?? projectOfAll;
  if (project === undefined) return "default";
  const value: unknown = project(record);
  refuseThenable(value, "project");
  // A tenant's number is as good a name as its text.
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (typeof value === "string" && value !== "") return value;
  const place = event.definition.project === undefined ? "ancrage.config.ts" : event.file;
  throw new AncrageError(
    "ANCRAGE_DEFINITION_INVALID",
    `${place}: the project function gave ${describeValue(value)} for a record of "${event.name}", expected a text that is not empty.`,
    { hint: "Return the record's project, or exclude such records with `where`." },
  );
}
