import type { Action, Change, Position, Row, Transaction, Value } from "../capture/change.ts";
import { freezeRow } from "../capture/freeze.ts";
import { AncrageError } from "../errors.ts";
import { buildCatalogue, type Catalogue } from "../event/catalogue.ts";
import type { DefinedEvent, EventDefinition } from "../event/define.ts";
import { discover } from "../event/discover.ts";
import type { Key, RecordOf, TableName } from "../event/register.ts";
import type { TrackingHandler } from "../event/track.ts";
import { matchChange, matchTrigger, type Matched } from "../match.ts";
import { buildPayloads } from "../payload/build.ts";
import { describeThrown } from "../payload/describe.ts";
import type { RejectionReason } from "../payload/reject.ts";
import type { SqlReader } from "../payload/sql.ts";
import type { TableInfo } from "../store/tables.ts";
import { createRowReaders, keyOfRow, type Rows, tablesOf } from "./rows.ts";

/** What happens to an event: one change of a row, or a trigger; and what else is in the database by then. */
export type Happening<Table, Data> = World &
  (
    | { readonly insert: PartOf<Table> }
    | { readonly update: PartOf<Table>; readonly before: PartOf<Table> }
    | { readonly delete: PartOf<Table> }
    | { readonly trigger: Key; readonly data?: Data }
  );

interface World {
  /** What `load` finds. The changed row is there as well, as it is after the change. */
  readonly rows?: RowsOfTables;
  /** Primary keys that are not the column `id`. */
  readonly keyColumns?: Readonly<Record<string, readonly string[]>>;
  /** What `sql` answers. Without it `sql` throws: there is no database here. */
  readonly sql?: (text: string, values: readonly unknown[]) => readonly Row[];
}

/** Of a row only what the event reads is needed. */
type PartOf<Table> = Partial<RecordOf<Table>>;

type RowsOfTables = { readonly [Name in TableName]?: readonly Partial<RecordOf<Name>>[] };

/** What came of it. */
export interface Fired<Payload> {
  /** What would be sent: the schema's output, as JSON holds it. */
  readonly payloads: readonly Payload[];
  /** The same with the names of their events and the keys of their records. */
  readonly messages: readonly FiredMessage<Payload>[];
  readonly rejections: readonly FiredRejection[];
}

export interface FiredMessage<Payload> {
  readonly event: string;
  readonly key: string;
  readonly payload: Payload;
}

export interface FiredRejection {
  /** The event, or the tracking handler. */
  readonly event: string;
  readonly key: string;
  readonly reason: RejectionReason;
  readonly error: string;
}

/**
 * Lets one change or trigger happen to an event, without a database: its rules, its `where` and its payload function are asked by the
 * same code that the running system asks them with.
 *
 * @example
 * ```ts
 * const { payloads } = await fire(NewCustomer, { insert: { id: 1, name: "Colombe", kind: "customer" } });
 * const { payloads } = await fire(DealWon, { update: { ...deal, status: "Won" }, before: deal, rows: { customer: [{ id: 7, name: "Colombe" }] } });
 * const { payloads } = await fire(ImportFinished, { trigger: "deals-2026-11", data: { source: "ERP", rows: 3 } });
 * ```
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` where the definition itself is wrong
 */
export function fire<Table, Schema, Data>(
  event: DefinedEvent<Table, Schema, Data>,
  happening: Happening<Table, NonNullable<DefinedEvent<Table, Schema, Data>["types"]>["data"]>,
): Promise<Fired<NonNullable<DefinedEvent<Table, Schema, Data>["types"]>["output"]>>;
/**
 * Lets one change happen to several definitions, tracking handlers among them, by their names.
 *
 * @example
 * ```ts
 * const { messages } = await fire({ NewOpportunity, deals }, { table: "deal", insert: { id: 42, is_project: true } });
 * ```
 */
export function fire(
  definitions: Readonly<Record<string, EventDefinition | TrackingHandler>>,
  happening: LooseChange & { readonly table: string },
): Promise<Fired<unknown>>;
export async function fire(
  given: EventDefinition | Readonly<Record<string, EventDefinition | TrackingHandler>>,
  happening: LooseHappening,
): Promise<Fired<unknown>> {
  const definitions = isEvent(given) ? { [onlyName]: given } : given;
  const found = await discover(definitions);
  const events = found.events.map(({ definition }) => definition);
  const table = happening.table ?? (isEvent(given) ? given.table : undefined);
  const { before, after } = rowsOf(happening);
  const changed = table === undefined ? {} : { [table]: [before, after].filter((row) => row !== undefined) };
  const keyColumns = happening.keyColumns ?? {};
  const rows = (happening.rows ?? {}) as Rows;
  const tables = tablesOf(joinRows(rows, changed), events, keyColumns);
  const catalogue = buildCatalogue({ ...found, tables });
  const matched =
    "trigger" in happening ? trigger(happening, catalogue) : change(happening, catalogue.allTables.get(table ?? ""), catalogue);
  const payloads = await buildPayloads(matched.occurrences, {
    catalogue,
    readers: createRowReaders(afterChange(rows, catalogue.allTables.get(table ?? ""), before, after)),
    sql: sqlOf(happening.sql),
  });
  const messages: FiredMessage<unknown>[] = [];
  const rejections: FiredRejection[] = matched.unmatched.map(({ event, key, cause, error }) => ({
    event: event.name,
    key,
    reason: cause,
    error: describeThrown(error, event.name),
  }));
  for (const [index, payload] of payloads.entries()) {
    const { event, key } = matched.occurrences[index] ?? { event: { name: "" }, key: "" };
    if (payload.kind === "built") messages.push({ event: event.name, key, payload: JSON.parse(payload.json) });
    else if (payload.kind === "rejected") rejections.push({ event: event.name, key, reason: payload.reason, error: payload.error });
  }
  return { messages, payloads: messages.map(({ payload }) => payload), rejections };
}

/** How an event is called that was given alone: its name is its file's, which it does not know. */
const onlyName = "Event";

type LooseChange = World & ({ readonly insert: Row } | { readonly update: Row; readonly before: Row } | { readonly delete: Row });
type LooseHappening = (LooseChange | (World & { readonly trigger: Key; readonly data?: unknown })) & { readonly table?: string };

const isEvent = (given: object): given is EventDefinition => "kind" in given && given.kind === "event";

/** One transaction, one place: nothing here asks for more. */
const transaction: Transaction = { xid: 1, commitLsn: 1n, committedAtUs: 0n };
const position: Position = { commitLsn: 1n, changeLsn: 1n, ordinal: 0 };

function rowsOf(happening: LooseHappening): { readonly before: Row | undefined; readonly after: Row | undefined } {
  if ("insert" in happening) return { before: undefined, after: frozen(happening.insert) };
  if ("update" in happening) return { before: frozen(happening.before), after: frozen(happening.update) };
  return { before: "delete" in happening ? frozen(happening.delete) : undefined, after: undefined };
}

/** As capture has it, and a copy: a payload that writes into its record fails here too. */
const frozen = (row: Row): Row => freezeRow(Object.fromEntries(Object.entries(row).map(([name, value]) => [name, copyOf(value)])));

function copyOf(value: Value): Value {
  if (Array.isArray(value)) return value.map((item: Value) => copyOf(item));
  const isDocument = typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
  return isDocument ? Object.fromEntries(Object.entries(value).map(([name, item]) => [name, copyOf(item as Value)])) : value;
}

function change(happening: LooseChange, table: TableInfo | undefined, catalogue: Catalogue): Matched {
  if (table === undefined) {
    throw new AncrageError("ANCRAGE_VALUE_INVALID", "fire: expected a trigger, got a change: the event has no table.", {
      hint: "Write fire(event, { trigger: key, data }); or name the table beside several definitions: fire({ … }, { table, insert }).",
    });
  }
  const action: Action = "insert" in happening ? "insert" : "update" in happening ? "update" : "delete";
  const { before, after } = rowsOf(happening);
  const row = after ?? before ?? {};
  const carriesOld = catalogue.tables.get(table.name)?.needsOldValues === true;
  return matchChange(
    {
      kind: "change",
      transaction,
      position,
      table: table.name,
      action,
      key: keyOfRow(table, row),
      // As the log: the old row where something needs it, else of a deleted one its key.
      before: before === undefined || carriesOld ? before : action === "delete" ? onlyKey(table, before) : undefined,
      after,
    } satisfies Change,
    catalogue,
  );
}

function trigger({ trigger, data }: { readonly trigger: Key; readonly data?: unknown }, catalogue: Catalogue): Matched {
  const key = Array.isArray(trigger) ? JSON.stringify(trigger.map(String)) : String(trigger);
  const [name = onlyName] = catalogue.events.keys();
  // As the log carries it: JSON.
  const carried: unknown = data === undefined ? undefined : JSON.parse(JSON.stringify(data));
  return matchTrigger({ kind: "trigger", transaction, position, id: "fire", event: name, key, data: carried }, catalogue);
}

const onlyKey = (table: TableInfo, row: Row): Row => Object.fromEntries(table.keyColumns.map((column) => [column, row[column]]));

function joinRows(rows: Rows, others: Rows): Rows {
  const names = new Set([...Object.keys(rows), ...Object.keys(others)]);
  return Object.fromEntries([...names].map((name) => [name, [...(rows[name] ?? []), ...(others[name] ?? [])]]));
}

/** What `load` would find once the change is committed. */
function afterChange(rows: Rows, table: TableInfo | undefined, before: Row | undefined, after: Row | undefined): Rows {
  if (table === undefined || (before ?? after) === undefined) return rows;
  const gone = new Set([before, after].filter((row) => row !== undefined).map((row) => keyOfRow(table, row)));
  const others = (rows[table.name] ?? []).filter((row) => !gone.has(keyOfRow(table, row)));
  return { ...rows, [table.name]: after === undefined ? others : [...others, after] };
}

function sqlOf(answer: World["sql"]): SqlReader {
  return async (text, values) => {
    if (answer !== undefined) return answer(text, values);
    throw new AncrageError("ANCRAGE_VALUE_INVALID", `fire: sql was called, and there is no database here: ${text.trim()}`, {
      hint: "Give `sql: (text, values) => rows` to fire, or use startTest, which has a database.",
    });
  };
}
