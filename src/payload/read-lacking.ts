import type { Row } from "../capture/change.ts";
import { askedOf, isReadAnew, lackingOf, settle, type Settled } from "../capture/lacking.ts";
import type { TableInfo } from "../store/tables.ts";
import { readRecords, type RecordReaders } from "./load.ts";

/** A record of the log; of an old row, or a deleted one, nothing can be read. */
export interface Lacking {
  readonly table: TableInfo;
  readonly key: string;
  readonly row: Row;
}

/**
 * Reads what the log did not carry of these records and a function has asked for: one query a table. The values are those of now, not of
 * the change.
 *
 * The first time those columns that were asked for, the second time all that are left: a payload of ten large columns would else be
 * built eleven times.
 *
 * @returns whether anything was read: what asked is then to be run again
 * @throws BatchFault
 */
export async function readLacking(records: readonly Lacking[], readers: RecordReaders): Promise<boolean> {
  const asking = records.filter(({ row }) => askedOf(row).length > 0);
  for (const [table, group] of Map.groupBy(asking, ({ table }) => table)) {
    const isSecond = group.some(({ row }) => isReadAnew(row));
    const columnsOf = (row: Row): readonly string[] => (isSecond ? lackingOf(row) : askedOf(row));
    const columns = [...new Set(group.flatMap(({ row }) => columnsOf(row)))];
    const keys = group.map(({ key }) => key);
    const answers = await readRecords(readers, table, keys, columns);
    for (const { key, row } of group) {
      for (const column of columns) settle(row, column, answerOf(answers.get(key), key, column));
    }
  }
  return asking.length > 0;
}

/** What was asked for and cannot be read for now is not asked for again. */
export function leaveUnread(records: readonly Lacking[], error: string): void {
  for (const { row } of records) for (const column of askedOf(row)) settle(row, column, { kind: "unreadable", error });
}

function answerOf(record: Row | Error | undefined, key: string, column: string): Settled {
  if (record === undefined) return { kind: "gone", key };
  if (record instanceof Error) return { kind: "unreadable", error: record.message };
  return Object.hasOwn(record, column) ? { kind: "value", value: record[column] } : { kind: "dropped" };
}
