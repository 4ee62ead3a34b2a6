import type { Action, Row, Value } from "../capture/change.ts";
import { freezeValue } from "../capture/freeze.ts";
import { defineLacking, defineUnlogged } from "../capture/lacking.ts";
import type { Cause } from "../cause.ts";
import { AncrageError } from "../errors.ts";
import type { CatalogueEvent } from "../event/catalogue.ts";
import type { Occurrence } from "../match.ts";

/** An occurrence as a rejection keeps it: JSON, so that a retry needs no log, and a person can read it. */
interface StoredOccurrence {
  readonly event: string;
  readonly key: string;
  readonly reason: Occurrence["reason"];
  readonly action?: Action;
  readonly actor?: string;
  readonly causedBy?: Cause;
  readonly transaction: { readonly xid: number; readonly commitLsn: string; readonly committedAtUs: string };
  readonly position: { readonly commitLsn: string; readonly changeLsn: string; readonly ordinal: number };
  readonly before?: StoredRow;
  readonly record?: StoredRow;
  readonly data?: unknown;
  /** Why `data` is not here: a tracking handler may give anything, a cycle included. */
  readonly dataLost?: string;
}

/** Kinds of values apart, since a `jsonb` may hold whatever mark would stand for the other kinds. */
interface StoredRow {
  readonly values: Readonly<Record<string, unknown>>;
  /** `bytea` in base 64, arrays of it nested. */
  readonly bytes?: Readonly<Record<string, unknown>>;
  /** Columns that the log did not carry, and that were not read anew either: a retry reads them of the row as it is by then. */
  readonly unlogged?: readonly string[];
  /** Columns whose text in the log could not be read, each with why: the rejection that says so must not fail on them itself. */
  readonly unreadable?: Readonly<Record<string, string>>;
}

export function formatOccurrence(occurrence: Omit<Occurrence, "event"> & { readonly event: Pick<CatalogueEvent, "name"> }): Buffer {
  try {
    return Buffer.from(JSON.stringify(storeOccurrence(occurrence)));
  } catch (error) {
    // A value nested thousands deep overflows the stack of whatever walks it. The rejection is kept, without its values.
    const bare = storeOccurrence({ ...occurrence, before: undefined, record: undefined, data: undefined });
    return Buffer.from(
      JSON.stringify({ ...bare, dataLost: `it could not be kept: ${error instanceof Error ? error.message : String(error)}` }),
    );
  }
}

function storeOccurrence(occurrence: Parameters<typeof formatOccurrence>[0]): StoredOccurrence {
  const { event, key, reason, action, actor, causedBy, transaction, position, before, record, data } = occurrence;
  return {
    event: event.name,
    key,
    reason,
    ...(action === undefined ? {} : { action }),
    ...(actor === undefined ? {} : { actor }),
    ...(causedBy === undefined ? {} : { causedBy }),
    transaction: {
      xid: transaction.xid,
      commitLsn: String(transaction.commitLsn),
      committedAtUs: String(transaction.committedAtUs),
    },
    position: { commitLsn: String(position.commitLsn), changeLsn: String(position.changeLsn), ordinal: position.ordinal },
    ...(before === undefined ? {} : { before: storeRow(before) }),
    ...(record === undefined ? {} : { record: storeRow(record) }),
    ...storeData(data),
  };
}

/**
 * The occurrence that a rejection keeps.
 *
 * @throws AncrageError `ANCRAGE_TRIGGER_UNKNOWN_EVENT` where no file defines its event any more, `ANCRAGE_VALUE_INVALID` where its data
 *   could not be kept
 */
export function parseOccurrence(bytes: Buffer, events: ReadonlyMap<string, CatalogueEvent>): Occurrence {
  const stored = JSON.parse(bytes.toString()) as StoredOccurrence;
  const event = events.get(stored.event);
  if (event === undefined) {
    throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", `the rejection is one of "${stored.event}", which no file defines any more.`, {
      hint: `Restore events/${stored.event.replaceAll(".", "/")}.ts, or leave the rejection.`,
    });
  }
  if (stored.dataLost !== undefined) {
    throw new AncrageError("ANCRAGE_VALUE_INVALID", `the data given to trigger("${stored.event}") could not be kept: ${stored.dataLost}.`, {
      hint: "Trigger the event again, with data that JSON can hold.",
    });
  }
  const { transaction, position } = stored;
  return {
    event,
    key: stored.key,
    reason: stored.reason,
    action: stored.action,
    actor: stored.actor,
    causedBy: stored.causedBy,
    transaction: {
      xid: transaction.xid,
      commitLsn: BigInt(transaction.commitLsn),
      committedAtUs: BigInt(transaction.committedAtUs),
    },
    position: { commitLsn: BigInt(position.commitLsn), changeLsn: BigInt(position.changeLsn), ordinal: position.ordinal },
    before: stored.before === undefined ? undefined : restoreRow(stored.before, event, "old"),
    record: stored.record === undefined ? undefined : restoreRow(stored.record, event, stored.action === "delete" ? "old" : "new"),
    data: stored.data,
  };
}

function storeData(data: unknown): Pick<StoredOccurrence, "data" | "dataLost"> {
  if (data === undefined) return {};
  try {
    // By way of text: an object whose `toJSON` gives nothing would else vanish without a word.
    const json = JSON.stringify(data) as string | undefined;
    return json === undefined ? { dataLost: `it is a ${typeof data}` } : { data: JSON.parse(json) as unknown };
  } catch (error) {
    return { dataLost: error instanceof Error ? error.message : "JSON cannot hold it" };
  }
}

function storeRow(row: Row): StoredRow {
  const values: [string, unknown][] = [];
  const bytes: [string, unknown][] = [];
  const unlogged: string[] = [];
  const unreadable: [string, string][] = [];
  for (const column of Object.keys(row)) {
    let value: Value;
    try {
      value = row[column];
    } catch (error) {
      if (error instanceof AncrageError && error.code === "ANCRAGE_COLUMN_NOT_LOGGED") unlogged.push(column);
      else unreadable.push([column, error instanceof Error ? error.message : String(error)]);
      continue;
    }
    if (holdsBytes(value)) bytes.push([column, mapNested(value, (item) => (Buffer.isBuffer(item) ? item.toString("base64") : item))]);
    else values.push([column, value]);
  }
  return {
    values: Object.fromEntries(values),
    ...(bytes.length === 0 ? {} : { bytes: Object.fromEntries(bytes) }),
    ...(unlogged.length === 0 ? {} : { unlogged }),
    ...(unreadable.length === 0 ? {} : { unreadable: Object.fromEntries(unreadable) }),
  };
}

function restoreRow({ values, bytes = {}, unlogged = [], unreadable = {} }: StoredRow, event: CatalogueEvent, age: "old" | "new"): Row {
  const decoded = Object.entries(bytes).map(([column, value]) => [
    column,
    mapNested(value, (item) => (typeof item === "string" ? Buffer.from(item, "base64") : item)),
  ]);
  const row: Row = { ...values, ...Object.fromEntries(decoded) };
  for (const value of Object.values(row)) freezeValue(value);
  const table = event.table?.name ?? event.name;
  const hint = "Read the column with load(table, key): it is then as it is now.";
  // What the table has now and had not then is lacking as well, and never absent without a word.
  const had = new Set([...Object.keys(row), ...unlogged, ...Object.keys(unreadable)]);
  const added = (event.table?.columns ?? []).map(({ name }) => name).filter((name) => !had.has(name));
  for (const column of [...unlogged, ...added]) {
    if (age === "old") defineUnlogged(row, table, column, "Read what the row was before from the columns that it had.");
    else defineLacking(row, table, column, added.includes(column) ? "unknown" : "unchanged");
  }
  for (const [column, why] of Object.entries(unreadable)) {
    Object.defineProperty(row, column, {
      enumerable: true,
      get() {
        const message = `column "${column}" of "${table}" could not be read from the write-ahead log: ${why}`;
        throw new AncrageError("ANCRAGE_VALUE_INVALID", message, { hint });
      },
    });
  }
  // As capture has it: what a payload may not do there a retry must not allow.
  return Object.freeze(row);
}

function holdsBytes(value: unknown): boolean {
  return Buffer.isBuffer(value) || (Array.isArray(value) && value.some(holdsBytes));
}

function mapNested(value: unknown, map: (item: unknown) => unknown): unknown {
  return Array.isArray(value) ? value.map((item) => mapNested(item, map)) : map(value);
}
