/**
 * What `ancrage generate` knows of one database and its events. The generated `ancrage.d.ts` augments it:
 *
 * ```ts
 * declare module "ancrage" {
 *   interface Register {
 *     tables: { deal: { id: number; label: string } };
 *     events: { NewOpportunity: typeof import("./events/NewOpportunity.ts").default };
 *   }
 * }
 * ```
 *
 * Where it stays empty, tables, columns and events are any text, and values anything.
 */
// oxlint-disable-next-line typescript/no-empty-object-type -- it is there to be augmented
export interface Register {}

/** What a value is while nothing is generated: a payload must compile before the first `ancrage generate`. */
// oxlint-disable-next-line typescript/no-explicit-any -- `unknown` would make every column of every example a cast
type AnyValue = any;

type AnyRecord = Readonly<Record<string, AnyValue>>;

type Tables = Register extends { readonly tables: infer Registered } ? Registered : Readonly<Record<string, AnyRecord>>;

type Events = Register extends { readonly events: infer Registered } ? Registered : Readonly<Record<string, unknown>>;

/** Tables as users write them: `deal`, or `sales.deal` outside the schema `public`. */
export type TableName = keyof Tables;

/** Names of the defined events: `NewOpportunity`, `deal.won`. */
export type EventName = keyof Events;

/** A row of a table. A table that is not registered has any row: its name is the one error to show, not each of its columns too. */
export type RecordOf<Table> = Table extends keyof Tables ? Tables[Table] : AnyRecord;

/**
 * Columns of a table. The detour over a mapped type is for the compiler's messages: of `keyof` alone they would say `keyof DealRecord`
 * and name no column.
 */
export type ColumnOf<Table> = Table extends keyof Tables
  ? { readonly [Column in keyof Tables[Table]]-?: Column }[keyof Tables[Table]]
  : string;

/**
 * `Name` where there is such a table, else all tables: the compiler's message for a misspelt one then lists the right ones. (As a
 * constraint of the type parameter the name would fall back to "any of them", and each column used below would be an error too.)
 */
export type KnownTable<Name> = Name extends keyof Tables ? Name : keyof Tables;

/** The same for events. */
export type KnownEvent<Name> = Name extends keyof Events ? Name : keyof Events;

/** A primary key: its value or, where it has several columns, their values in its order. */
export type Key = KeyPart | readonly KeyPart[];

type KeyPart = string | number | bigint;

/**
 * A key of one column, as another record refers to it; nothing is loaded for a reference that is null. (A key of several is given by
 * its columns. A list of values would do as well, but with it in the type the compiler no longer says which column a misspelt one is.)
 */
export type Reference = KeyPart | null | undefined;

/** Columns and the values they must have. */
export type Where<Table> = { readonly [Column in keyof RecordOf<Table>]?: RecordOf<Table>[Column] };

/** What `trigger` takes as its third argument for an event. */
export type DataOf<Event> = Event extends keyof Events
  ? Events[Event] extends { readonly types?: infer Types }
    ? NonNullable<Types> extends { readonly data: infer Data }
      ? Data
      : unknown
    : unknown
  : unknown;
