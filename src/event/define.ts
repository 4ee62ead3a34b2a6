import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Action, Row } from "../capture/change.ts";
import type { ColumnOf, KnownTable, RecordOf, Reference, Where } from "./register.ts";

/** Why a payload is being built. */
export type Reason = "change" | "trigger" | "sample" | "backfill";

export type Rule = "insert" | "update" | "delete" | "enter" | "leave" | { readonly update: readonly string[] };

export interface Load {
  (table: string, key: unknown): Promise<Row | undefined>;
  all(table: string, where: Readonly<Record<string, unknown>>): Promise<readonly Row[]>;
}

export type Sql = (strings: TemplateStringsArray, ...values: readonly unknown[]) => Promise<readonly Row[]>;

/** What a payload function gets beside the record, as the running system hands it over. */
export interface PayloadContext {
  readonly reason: Reason;
  readonly action: Action | undefined;
  readonly before: Row | undefined;
  changed(column: string): boolean;
  readonly project: string;
  readonly actor: string | undefined;
  readonly data: unknown;
  readonly load: Load;
  readonly sql: Sql;
}

/** A definition as the running system sees it, whatever its static types were. */
export interface EventDefinition {
  readonly kind: "event";
  readonly description?: string;
  readonly table?: string;
  readonly on?: Rule | readonly Rule[];
  readonly where?: (record: Row) => boolean;
  readonly schema?: StandardSchemaV1;
  readonly jsonSchema?: unknown;
  readonly data?: StandardSchemaV1;
  readonly example?: unknown;
  readonly newest?: string;
  readonly oldValues?: boolean;
  readonly echo?: boolean;
  readonly project?: (record: Row) => string;
  readonly payload: (record: never, context: never) => unknown;
}

/**
 * Defines an event: what it sends and, with `on`, when.
 *
 * The file's path below `events/` is the event's name: `events/deal/won.ts` defines `deal.won`.
 *
 * @example
 * ```ts
 * export default defineEvent({
 *   description: "An opportunity was created.",
 *   table: "deal",
 *   on: "insert",
 *   where: (deal) => deal.is_project,
 *   schema: z.object({ label: z.string(), customerName: z.string() }),
 *   async payload(deal, { load }) {
 *     const customer = await load("customer", deal.customer_id);
 *     return { label: deal.label, customerName: customer?.name ?? "" };
 *   },
 * });
 * ```
 */
export function defineEvent<
  const Table extends string | undefined = undefined,
  Schema extends StandardSchemaV1 | undefined = undefined,
  Data extends StandardSchemaV1 | undefined = undefined,
  const OldValues extends boolean = true,
>(event: EventOptions<Table, Schema, Data, OldValues>): DefinedEvent<Table, Schema, Data> {
  // The static types end here: what runs is handed rows and contexts of the table that the catalogue has checked.
  return { kind: "event", ...event } as unknown as DefinedEvent<Table, Schema, Data>;
}

/** What `defineEvent` takes. */
export interface EventOptions<Table, Schema, Data, OldValues> {
  /** One sentence, for the catalogue and the dashboard. */
  readonly description?: string;
  /** Whose rows the event is about. Without it the event is only triggered, and `payload` gets `{ key, data }`. */
  readonly table?: KnownTable<Table>;
  /** When it happens. Without it: when it is triggered. */
  readonly on?: OnlyWithTable<Table, EventRule<Table> | readonly EventRule<Table>[]>;
  /** Which records it is about: for changes, samples and backfills. An explicit trigger does not ask it. */
  readonly where?: OnlyWithTable<Table, (record: RecordOf<Table>) => boolean>;
  /** Any Standard Schema. It types the payload and checks it; its output is what is sent. */
  readonly schema?: Schema;
  /** The JSON Schema of what is sent, where `schema` cannot say it itself. */
  readonly jsonSchema?: object;
  /** Checks the third argument of `trigger`. */
  readonly data?: Data;
  /** A payload to show where no row can serve as a sample. Checked by `schema`. */
  readonly example?: PayloadOf<Schema>;
  /** The column that samples are ordered by; by default `created_at` where there is one, then the key. */
  readonly newest?: OnlyWithTable<Table, ColumnOf<Table>>;
  /** `false` does without `replica identity full`: the log then carries no old rows, and `context.before` is gone. Default `true`. */
  readonly oldValues?: OldValues;
  /** `true` delivers changes also to whoever made them. Default `false`. */
  readonly echo?: boolean;
  /** The record's project (tenant). Once the config or any event names it, none may be without. */
  readonly project?: (record: SubjectOf<Table, Data>) => string;
  /**
   * Builds what is sent, of the record as committed. Returning `undefined` means that nothing happened.
   *
   * A column that the log did not carry (a large value that the update did not touch, with `oldValues: false`; a generated one) is as it is
   * when the payload is built: the function is then run a second time.
   */
  readonly payload: (
    record: SubjectOf<Table, Data>,
    context: ContextOf<Table, Data, OldValues>,
  ) => PayloadOf<Schema> | undefined | Promise<PayloadOf<Schema> | undefined>;
}

/** What `defineEvent` gives: a definition that remembers its types. */
export interface DefinedEvent<Table, Schema, Data> extends EventDefinition {
  /** Never there when it runs: it carries the static types. */
  readonly types?: {
    readonly table: Table;
    /** What is sent. */
    readonly output: Schema extends StandardSchemaV1 ? StandardSchemaV1.InferOutput<Schema> : unknown;
    /** The third argument of `trigger`. */
    readonly data: Data extends StandardSchemaV1 ? StandardSchemaV1.InferInput<Data> : unknown;
  };
}

export type EventRule<Table> = "insert" | "update" | "delete" | "enter" | "leave" | { readonly update: readonly ColumnOf<Table>[] };

/** What an event without a table is about. */
export interface TriggeredSubject<Data> {
  readonly key: string;
  readonly data: Data;
}

/** `payload`'s second argument. */
export interface EventContext<Table, Data> {
  /** Why the payload is built: a change, a trigger, a sample or a backfill. */
  readonly reason: Reason;
  /** What happened to the row, where a change is behind it. */
  readonly action: Action | undefined;
  /** Whether the change gave the column another value. */
  changed(column: ColumnOf<Table>): boolean;
  /** The project (tenant); `default` where no project function is given. */
  readonly project: string;
  /** Who made the change, as the application says with `ancrage.actor`. */
  readonly actor: string | undefined;
  /** The third argument of `trigger`, after the `data` schema. */
  readonly data: Data;
  /** Reads other records *as they are now*; the calls of a batch become one query a table. */
  readonly load: EventLoad;
  /** A tagged template, run in a read-only transaction with a statement timeout. Reads *now*. */
  readonly sql: EventSql;
}

/** `payload`'s second argument where the log carries old rows. */
export interface EventContextWithBefore<Table, Data> extends EventContext<Table, Data> {
  /** The row before the change; `undefined` for an insert, a sample, a trigger or a backfill. */
  readonly before: RecordOf<Table> | undefined;
}

export interface EventLoad {
  /** The record with this primary key or, handed columns, the one that has their values. */
  <const Table extends string>(table: KnownTable<Table>, key: Reference | Where<Table>): Promise<RecordOf<Table> | undefined>;
  /** All records that have these values. */
  all<const Table extends string>(table: KnownTable<Table>, where: Where<Table>): Promise<readonly RecordOf<Table>[]>;
}

/** Rows of a query: their columns are the query's own, so only the query's author knows their types. */
export type EventSql = <Result = RecordOf<unknown>>(
  strings: TemplateStringsArray,
  ...values: readonly unknown[]
) => Promise<readonly Result[]>;

type OnlyWithTable<Table, Option> = Table extends string ? Option : NeedsTable;

/** What nothing is: its name stands in the compiler's message where an event without `table` has an option that needs one. */
interface NeedsTable {
  readonly [needsTable]: never;
}

declare const needsTable: unique symbol;

type OutputOf<Data> = Data extends StandardSchemaV1 ? StandardSchemaV1.InferOutput<Data> : unknown;

type PayloadOf<Schema> = Schema extends StandardSchemaV1 ? StandardSchemaV1.InferInput<Schema> : unknown;

type SubjectOf<Table, Data> = Table extends string ? RecordOf<Table> : TriggeredSubject<OutputOf<Data>>;

/** A change carries no data, so an event about a table has it only when it was triggered. */
type ContextDataOf<Table, Data> = Table extends string ? OutputOf<Data> | undefined : OutputOf<Data>;

type ContextOf<Table, Data, OldValues> = Table extends string
  ? OldValues extends false
    ? EventContext<Table, ContextDataOf<Table, Data>>
    : EventContextWithBefore<Table, ContextDataOf<Table, Data>>
  : EventContext<Table, ContextDataOf<Table, Data>>;
