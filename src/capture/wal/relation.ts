import { nameTable, type TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { Row, Value } from "../change.ts";
import { freezeValue } from "../freeze.ts";
import { defineLacking, defineUnlogged } from "../lacking.ts";
import { unchanged, type RelationMessage, type Tuple } from "./pgoutput.ts";

/** A relation of the log, compiled once: from tuples to the rows and keys that later steps see. Rows are frozen (`freeze.ts`). */
export interface Relation {
  /** As users name the table. */
  readonly table: string;
  /** The new row; what an update left unchanged is taken from `old`. What neither has is lacking (`lacking.ts`). */
  toRow(tuple: Tuple, old: Tuple | undefined): Row;
  /** The old row, under `replica identity full`. */
  toOldRow(tuple: Tuple): Row;
  /** The columns that a delete carries without `replica identity full`: those of the identity. All others throw when they are read. */
  toKeyRow(tuple: Tuple): Row;
  /** @param old where to look for a key column so large that the update did not carry it again */
  toKey(tuple: Tuple, old: Tuple | undefined): string;
}

type Parse = ((text: string) => Value) | undefined;

/**
 * @param isOldPartial old rows may be those of a partition without `replica identity full` under a root that has it. PostgreSQL then
 *   says that they are whole, and has null for all that they have not.
 */
export function compileRelation(message: RelationMessage, table: TableInfo | undefined, types: ValueTypes, isOldPartial = false): Relation {
  const name = table?.name ?? nameTable(message.schema, message.table);
  const names = message.columns.map((column) => column.name);
  const parsers: readonly Parse[] = message.columns.map((column) => types.parser(column.typeOid));
  const isIdentity = message.columns.map((column) => column.isKey);
  const keys = keyIndexes(message, table);
  const [firstKey = -1] = keys;
  const missing = (table?.columns ?? []).filter((column) => !names.includes(column.name));

  /** @returns whether the tuple has a value of it */
  const set = (row: Record<string, Value>, index: number, text: Tuple[number] | undefined): boolean => {
    if (text === unchanged || text === undefined) return false;
    const column = names[index] as string;
    const parser = parsers[index];
    if (text === null || parser === undefined) row[column] = text;
    else {
      try {
        row[column] = freezeValue(parser(text));
      } catch (error) {
        // One value that we cannot read must not end capture: what reads it is told, and becomes a rejection.
        defineThrowing(row, column, error);
      }
    }
    return true;
  };
  /** What can never be had of an old row throws when it is read. */
  const setOld = (tuple: Tuple, isCarried: (index: number) => boolean): Row => {
    const row: Record<string, Value> = {};
    for (let i = 0; i < names.length; i++) {
      if (!set(row, i, isCarried(i) ? tuple[i] : unchanged)) defineUnlogged(row, name, names[i] as string, identityHint);
    }
    for (const column of missing) defineUnlogged(row, name, column.name, column.isGenerated ? generatedHint : unknownHint);
    return Object.freeze(row);
  };
  const textAt = (index: number, tuple: Tuple, old: Tuple | undefined): string => {
    const text = tuple[index] === unchanged ? old?.[index] : tuple[index];
    // Empty only for a delete under an identity that somebody took the key out of since `migrate`. It must not end capture: the change
    // is in the log for good, and a payload that reads its key is rejected with the reason.
    return typeof text === "string" ? text : "";
  };

  return {
    table: name,
    toRow(tuple, old) {
      const row: Record<string, Value> = {};
      for (let i = 0; i < names.length; i++) {
        // What was left unchanged for its size was not null: an old row that says so is not whole.
        if (!set(row, i, tuple[i] === unchanged ? (old?.[i] ?? unchanged) : tuple[i]))
          defineLacking(row, name, names[i] as string, "unchanged");
      }
      for (const column of missing) defineLacking(row, name, column.name, column.isGenerated ? "generated" : "unknown");
      return Object.freeze(row);
    },
    toOldRow: (tuple) => setOld(tuple, (index) => !isOldPartial || tuple[index] !== null),
    toKeyRow: (tuple) => setOld(tuple, (index) => isIdentity[index] === true),
    toKey(tuple, old) {
      if (keys.length === 1) return textAt(firstKey, tuple, old);
      return keys.length === 0 ? "" : JSON.stringify(keys.map((index) => textAt(index, tuple, old)));
    },
  };
}

/** Where the primary key's columns stand in a tuple, in the key's order. */
function keyIndexes(message: RelationMessage, table: TableInfo | undefined): readonly number[] {
  const names = message.columns.map((column) => column.name);
  const primary = (table?.keyColumns ?? []).map((column) => names.indexOf(column));
  if (!primary.includes(-1)) return primary;
  // A key column that was renamed since the tables were read keeps its place among those that the log carries.
  const logged = table?.columns.filter((column) => !column.isGenerated) ?? [];
  if (logged.length === names.length) {
    return (table?.keyColumns ?? []).map((column) => logged.findIndex((one) => one.name === column));
  }
  return message.replicaIdentity === "f" ? [] : message.columns.flatMap((column, index) => (column.isKey ? [index] : []));
}

const identityHint =
  'Old values take "replica identity full" on the table and on each of its partitions: "ancrage migrate" sets it where they are read.';
const generatedHint = "Read the columns that it is computed from.";
const unknownHint = 'Let the events read what the table has now, restart, then run "ancrage rejections retry".';

function defineThrowing(row: Record<string, Value>, column: string, error: unknown): void {
  Object.defineProperty(row, column, {
    enumerable: true,
    get() {
      throw error;
    },
  });
}
