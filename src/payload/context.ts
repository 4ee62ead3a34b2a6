import { isDeepStrictEqual } from "node:util";
import type { Action, Row } from "../capture/change.ts";
import { AncrageError } from "../errors.ts";
import type { Load, PayloadContext, Reason } from "../event/define.ts";
import type { TableInfo } from "../store/tables.ts";
import type { Loads } from "./load.ts";
import { suggestName } from "../nearest-name.ts";
import type { Run, Schedule } from "./schedule.ts";
import { runSql, type SqlReader } from "./sql.ts";
import type { BatchFault } from "./fault.ts";

/** What the functions of one batch share. */
export interface Reads {
  readonly loads: Loads;
  readonly sql: SqlReader;
  readonly schedule: Schedule;
  readonly onFault: (fault: BatchFault) => void;
  /** Notes that an event loads of a table: all that do share one query. */
  readonly noteLoad: (table: string, event: string) => void;
}

export interface ContextValues {
  readonly event: string;
  readonly reason: Reason;
  readonly action: Action | undefined;
  readonly before: Row | undefined;
  readonly record: Row | undefined;
  readonly table: TableInfo | undefined;
  readonly project: string;
  readonly actor: string | undefined;
  readonly data: unknown;
}

/** What a payload function gets beside its record. */
export function createContext(values: ContextValues, reads: Reads, run: Run): PayloadContext {
  const { loads, schedule } = reads;
  const { event } = values;
  const load: Load = (table, key) => {
    reads.noteLoad(table, event);
    return quietly(schedule.wait(run, () => loads.one(table, key)));
  };
  load.all = (table, where) => {
    reads.noteLoad(table, event);
    return quietly(schedule.wait(run, () => loads.all(table, where)));
  };
  const onFault = (fault: BatchFault): void => {
    fault.events = [event];
    reads.onFault(fault);
  };
  return {
    reason: values.reason,
    action: values.action,
    before: values.before,
    project: values.project,
    actor: values.actor,
    data: values.data,
    changed: (column) => hasChanged(column, values),
    load,
    sql: (strings, ...parameters) => quietly(schedule.wait(run, () => runSql(reads.sql, strings, parameters, onFault))),
  };
}

/**
 * Whether this change gave the column another value: always for an insert or a delete, never where no change is behind the payload
 * (a sample, a backfill, a trigger by hand).
 *
 * @throws AncrageError `ANCRAGE_COLUMN_NOT_LOGGED` for an update without old values, `ANCRAGE_DEFINITION_INVALID` for no such column
 */
export function hasChanged(
  column: string,
  { action, before, record, table }: Pick<ContextValues, "action" | "before" | "record" | "table">,
): boolean {
  if (table !== undefined && !table.columns.some(({ name }) => name === column)) {
    const names = table.columns.map(({ name }) => name);
    throw new AncrageError("ANCRAGE_DEFINITION_INVALID", `changed("${column}"): ${table.name} has no such column.`, {
      hint: suggestName(column, names),
    });
  }
  if (action === undefined) return false;
  if (action !== "update") return true;
  if (before === undefined) {
    throw new AncrageError(
      "ANCRAGE_COLUMN_NOT_LOGGED",
      `changed("${column}"): the log carried no old values of ${table?.name ?? "the table"}.`,
      {
        hint: 'Set "replica identity full" on the table (ancrage migrate does), or do without old values.',
      },
    );
  }
  const [old, now] = [before[column], record?.[column]];
  return old !== now && !isDeepStrictEqual(old, now);
}

/** A call that nobody awaits must not end the process when it fails; whoever awaits it still sees the error. */
function quietly<V>(promise: Promise<V>): Promise<V> {
  promise.catch(() => undefined);
  return promise;
}
