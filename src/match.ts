import { isDeepStrictEqual } from "node:util";
import type { Cause } from "./cause.ts";
import type { Action, Change, Position, Row, Transaction, TriggerMark } from "./capture/change.ts";
import { defineUnlogged } from "./capture/lacking.ts";
import type { Catalogue, CatalogueEvent, CompiledRule, TrackedTable } from "./event/catalogue.ts";
import { refuseThenable } from "./thenable.ts";

/** An event that happened, before its payload is built. */
export interface Occurrence {
  readonly event: CatalogueEvent;
  readonly transaction: Transaction;
  readonly position: Position;
  readonly key: string;
  readonly reason: "change" | "trigger";
  /** What happened to the row, where a row change is behind it. */
  readonly action: Action | undefined;
  readonly before: Row | undefined;
  /** The record as committed; `undefined` where it must be read by key first (an explicit trigger for another row). */
  readonly record: Row | undefined;
  /** The third argument of `trigger`. */
  readonly data: unknown;
  /** Who made it happen, as the application said. */
  readonly actor: string | undefined;
  /** The delivery that made the application make it happen. */
  readonly causedBy?: Cause | undefined;
}

/** A rule or a handler that could not be asked: a rejection, so that the change is not lost in silence. */
export interface Unmatched extends Omit<Occurrence, "event"> {
  /** The event; or the tracking file whose handler threw, or a name that no file defines. */
  readonly event: { readonly name: string };
  readonly cause: "where-threw" | "handler-threw" | "event-unknown" | "event-parked";
  /** What was thrown. */
  readonly error: unknown;
}

export interface Matched {
  readonly occurrences: readonly Occurrence[];
  readonly unmatched: readonly Unmatched[];
  /** The files whose handlers took the change without a fault. */
  readonly handledBy: readonly string[];
}

const none: readonly never[] = [];
const nothing: Matched = { occurrences: none, unmatched: none, handledBy: none };

/**
 * Which events a change makes happen: by their own rules, and by the handlers of its table.
 *
 * At most once for one change, event and key, however many rules and handlers name it.
 *
 * A parked handler is not run. A parked event's `where` is: its payload may be what is at fault, and then each occurrence is to be
 * kept as a rejection. What can no longer be told, `event-parked`, is for the caller to sum up.
 */
export function matchChange(given: Change, catalogue: Catalogue, isParked: (eventOrFile: string) => boolean = () => false): Matched {
  const tracked = catalogue.tables.get(given.table);
  if (tracked === undefined || given.origin?.isMuted === true) return nothing;
  const change = lacksOldRow(given, tracked) ? { ...given, before: unloggedRow(tracked) } : given;
  const occurrences: Occurrence[] = [];
  const unmatched: Unmatched[] = [];
  const seen = new Set<string>();
  const add = (occurrence: Occurrence): void => {
    const once = `${occurrence.event.name}\0${occurrence.key}`;
    if (seen.has(once)) return;
    seen.add(once);
    occurrences.push(occurrence);
  };
  for (const event of tracked.events) {
    try {
      if (event.rules.some((rule) => holds(rule, event, change))) add(ofChange(event, change));
    } catch (error) {
      unmatched.push({ ...ofChange(event, change), cause: isParked(event.name) ? "event-parked" : "where-threw", error });
    }
  }
  const handledBy: string[] = [];
  for (const { file, handler } of tracked.handlers) {
    if (isParked(file)) {
      unmatched.push({ ...ofChange({ name: file }, change), cause: "event-parked", error: undefined });
      continue;
    }
    try {
      const result: unknown = (handler.handle as (change: unknown) => unknown)({
        action: change.action,
        key: change.key,
        before: change.before,
        after: change.after,
        trigger(name: string, key: unknown, data?: unknown) {
          add(ofTrigger(eventNamed(name, catalogue), keyText(key, name), change, data));
        },
      });
      refuseThenable(result, "a tracking handler");
      handledBy.push(file);
    } catch (error) {
      unmatched.push({ ...ofChange({ name: file }, change), cause: "handler-threw", error });
    }
  }
  // A rule of it threw, and a handler made it happen all the same: it is one occurrence, with one id.
  return { occurrences, unmatched: unmatched.filter(({ event, key }) => !seen.has(`${event.name}\0${key}`)), handledBy };
}

/** It came out of a partition that was attached since, or of a table whose identity somebody changed. */
function lacksOldRow({ action, before }: Change, { needsOldValues }: TrackedTable): boolean {
  return action === "update" && before === undefined && needsOldValues;
}

/** Throws when it is read: taken for no row at all, each update would be another value of each column, and each record would enter. */
function unloggedRow({ table }: TrackedTable): Row {
  const row: Record<string, unknown> = {};
  const hint = `Run "ancrage migrate", which sets "replica identity full" on ${table.name} and all of its partitions.`;
  for (const { name } of table.columns) defineUnlogged(row, table.name, name, hint);
  return Object.freeze(row);
}

/**
 * Whether the event's `where` holds for the record; as JavaScript takes it, whatever is truthy. True where it has none.
 *
 * @throws TypeError where it returned a promise; and whatever `where` throws
 */
export function askWhere(event: CatalogueEvent, record: Row): boolean {
  const { where } = event.definition;
  if (where === undefined) return true;
  const answer: unknown = where(record);
  refuseThenable(answer, "where");
  return Boolean(answer);
}

/** `ancrage.trigger(…)`: it asks neither `on` nor `where`. */
export function matchTrigger(mark: TriggerMark, catalogue: Catalogue): Matched {
  const { transaction, position, key, data, origin } = mark;
  const happened = {
    transaction,
    position,
    key,
    data,
    reason: "trigger",
    action: undefined,
    before: undefined,
    record: undefined,
    actor: origin?.actor,
    causedBy: origin?.cause,
  } as const;
  const event = catalogue.events.get(mark.event);
  if (event !== undefined) return { occurrences: [{ ...happened, event }], unmatched: none, handledBy: none };
  const error = new Error(`ancrage.trigger named the event ${JSON.stringify(mark.event)}, which no file defines`);
  const unknown: Unmatched = { ...happened, event: { name: mark.event }, cause: "event-unknown", error };
  return { occurrences: none, unmatched: [unknown], handledBy: none };
}

function holds(rule: CompiledRule, event: CatalogueEvent, change: Change): boolean {
  const isIn = (row: Row | undefined): boolean => row !== undefined && askWhere(event, row);
  const { action, before, after } = change;
  switch (rule.kind) {
    case "insert":
    case "update":
      return action === rule.kind && isIn(after);
    case "delete":
      return action === "delete" && isIn(before);
    case "enter":
      return action !== "delete" && isIn(after) && !isIn(before);
    case "leave":
      return action !== "insert" && isIn(before) && !isIn(after);
    case "update-columns":
      return action === "update" && rule.columns.some((column) => isOther(before?.[column], after?.[column])) && isIn(after);
    default:
      return rule satisfies never;
  }
}

const isOther = (before: unknown, after: unknown): boolean => before !== after && !isDeepStrictEqual(before, after);

function ofChange<Event>(event: Event, change: Change): Omit<Occurrence, "event"> & { readonly event: Event } {
  const { transaction, position, key, action, before, after, origin } = change;
  return {
    event,
    transaction,
    position,
    key,
    reason: "change",
    action,
    before,
    record: after ?? before,
    data: undefined,
    actor: origin?.actor,
    causedBy: origin?.cause,
  };
}

function ofTrigger(event: CatalogueEvent, key: string, change: Change, data: unknown): Occurrence {
  // The change's own row is at hand, as committed; any other is read by its key once it is visible.
  const isOwn = event.table !== undefined && event.table.name === change.table && isKeyOf(change, key, event.table.keyColumns);
  if (isOwn) return { ...ofChange(event, change), reason: "trigger", data };
  return { ...ofChange(event, change), key, action: undefined, before: undefined, record: undefined, reason: "trigger", data };
}

/** A handler may make the key of the row's values: a time or a boolean among them is another text then than PostgreSQL's. */
function isKeyOf({ key, after, before }: Change, asked: string, columns: readonly string[]): boolean {
  if (asked === key) return true;
  if (columns.length === 0) return false;
  try {
    const values = columns.map((column) => String((after ?? before ?? {})[column]));
    return asked === (columns.length === 1 ? values[0] : JSON.stringify(values));
  } catch {
    // Of the old row the log carries as much as its identity says.
    return false;
  }
}

function eventNamed(name: string, catalogue: Catalogue): CatalogueEvent {
  const event = catalogue.events.get(name);
  if (event === undefined)
    throw new Error(
      `trigger(${JSON.stringify(name)}, …): no file defines this event; known are ${[...catalogue.events.keys()].join(", ")}`,
    );
  return event;
}

function keyText(key: unknown, event: string): string {
  if (typeof key === "string") return key;
  if (typeof key === "number" || typeof key === "bigint") return String(key);
  if (Array.isArray(key)) return JSON.stringify(key.map(String));
  throw new TypeError(
    `trigger(${JSON.stringify(event)}, …): expected the key of a record (text, number, or an array of them), got ${String(key)}`,
  );
}
