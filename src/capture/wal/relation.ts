import { AncrageError } from "../../errors.ts";
import type { ColumnInfo, TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { Row, Value } from "../change.ts";
import { freezeValue } from "../freeze.ts";
import { unchanged, type RelationMessage, type Tuple } from "./pgoutput.ts";

/** A relation of the log, compiled once: from tuples to the rows and keys that later steps see. Rows are frozen (`freeze.ts`). */
export interface Relation {
  /** As users name the table. */
  readonly table: string;
  /** The row; what an update left unchanged is taken from `old`. What neither has, or what cannot be read, throws when it is read. */
  toRow(tuple: Tuple, old: Tuple | undefined): Row;
  /** The columns that a delete carries without `replica identity full`: those of the identity. All others throw when they are read. */
  toKeyRow(tuple: Tuple): Row;
  /** @param old where to look for a key column so large that the update did not carry it again */
  toKey(tuple: Tuple, old: Tuple | undefined): string;
}

type Parse = ((text: string) => Value) | undefined;

export function compileRelation(message: RelationMessage, table: TableInfo | undefined, types: ValueTypes): Relation {
  const name = message.schema === "public" ? message.table : `${message.schema}.${message.table}`;
  const names = message.columns.map((column) => column.name);
  const parsers: readonly Parse[] = message.columns.map((column) => types.parser(column.typeOid));
  const isIdentity = message.columns.map((column) => column.isKey);
  const keys = keyIndexes(message, table);
  const [firstKey = -1] = keys;
  const missing = (table?.columns ?? []).filter((column) => !names.includes(column.name));

  const set = (row: Record<string, Value>, index: number, text: Tuple[number] | undefined): void => {
    const column = names[index] as string;
    const parser = parsers[index];
    if (text === null) row[column] = null;
    else if (text === unchanged || text === undefined) defineUnlogged(row, name, column);
    else if (parser === undefined) row[column] = text;
    else {
      try {
        row[column] = freezeValue(parser(text));
      } catch (error) {
        // One value that we cannot read must not end capture: what reads it is told, and becomes a rejection.
        defineThrowing(row, column, error);
      }
    }
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
      for (let i = 0; i < names.length; i++) set(row, i, tuple[i] === unchanged ? old?.[i] : tuple[i]);
      for (const column of missing) defineMissing(row, name, column);
      return Object.freeze(row);
    },
    toKeyRow(tuple) {
      const row: Record<string, Value> = {};
      for (let i = 0; i < names.length; i++) set(row, i, isIdentity[i] === true ? tuple[i] : unchanged);
      for (const column of missing) defineMissing(row, name, column);
      return Object.freeze(row);
    },
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

/** Never `null` and never absent: a payload that reads it must not send a hole as if it were the value. */
function defineUnlogged(row: Record<string, Value>, table: string, column: string): void {
  Object.defineProperty(row, column, {
    enumerable: true,
    get() {
      throw new AncrageError(
        "ANCRAGE_COLUMN_NOT_LOGGED",
        `the write-ahead log did not carry column "${column}" of "${table}" for this change.`,
        {
          hint: `Read the column with load("${table}", key), or run "ancrage migrate", which sets "replica identity full" where old values are read.`,
        },
      );
    },
  });
}

/** Generated columns before PostgreSQL 18, virtual ones ever; and what was dropped or renamed since the tables were read. */
function defineMissing(row: Record<string, Value>, table: string, { name, isGenerated }: ColumnInfo): void {
  if (isGenerated) return defineUnlogged(row, table, name);
  defineThrowing(
    row,
    name,
    new AncrageError(
      "ANCRAGE_COLUMN_NOT_LOGGED",
      `"${table}" had no column "${name}" when this change was made: it was dropped or renamed.`,
      {
        hint: 'Let the events read what the table has now, restart, then run "ancrage rejections retry".',
      },
    ),
  );
}

function defineThrowing(row: Record<string, Value>, column: string, error: unknown): void {
  Object.defineProperty(row, column, {
    enumerable: true,
    get() {
      throw error;
    },
  });
}
