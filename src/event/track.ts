import type { Action, Row } from "../capture/change.ts";
import type { DataOf, Key, KnownEvent, KnownTable, RecordOf } from "./register.ts";

/** What a tracking handler gets: one committed change. */
export interface TrackedChange {
  readonly action: Action;
  readonly key: string;
  readonly before: Row | undefined;
  readonly after: Row | undefined;
  readonly trigger: (event: string, key: unknown, data?: unknown) => void;
}

export interface TrackingHandler {
  readonly kind: "tracking";
  readonly table: string;
  readonly handle: (change: never) => void;
}

/**
 * Runs `handle` for each committed change of a table, in commit order, at least once. It decides and does not write: it is
 * synchronous, and its one effect is `trigger`.
 *
 * @example
 * ```ts
 * export default track("deal", ({ action, after, trigger }) => {
 *   if (action === "insert" && after.is_project) trigger("NewOpportunity", after.id);
 * });
 * ```
 */
export function track<const Table extends string>(
  table: KnownTable<Table>,
  handle: (change: ChangeOf<Table>) => Synchronous,
): TrackingHandler {
  return { kind: "tracking", table, handle };
}

/** One committed change of a table, told apart by `action`. */
export type ChangeOf<Table> = InsertOf<Table> | UpdateOf<Table> | DeleteOf<Table>;

interface ChangeBase {
  /** The primary key as text; a JSON array of texts where it has several columns. */
  readonly key: string;
  readonly trigger: Trigger;
}

export interface InsertOf<Table> extends ChangeBase {
  readonly action: "insert";
  readonly before: undefined;
  readonly after: RecordOf<Table>;
}

export interface UpdateOf<Table> extends ChangeBase {
  readonly action: "update";
  readonly before: RecordOf<Table>;
  readonly after: RecordOf<Table>;
}

export interface DeleteOf<Table> extends ChangeBase {
  readonly action: "delete";
  readonly before: RecordOf<Table>;
  readonly after: undefined;
}

/** Makes an event happen for one key. At most once for one change, event and key, however often it is called. */
export type Trigger = <const Event extends string>(event: KnownEvent<Event>, key: Key, ...data: DataArguments<DataOf<Event>>) => void;

/** An argument that may be `undefined` may be left out. */
type DataArguments<Data> = undefined extends Data ? [data?: Data] : [data: Data];

/**
 * What a handler may return: nothing that has to be waited for. (A plain `void` would let an `async` function through. The others are
 * what `condition && trigger(…)` is.)
 */
type Synchronous = void | undefined | null | boolean | number | bigint | string;
