import { AncrageError } from "../../errors.ts";
import type { TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { Row, Value } from "../change.ts";
import { unchanged, type RelationMessage, type Tuple } from "./pgoutput.ts";

/** A relation of the log, compiled once: from tuples to the rows and keys that later steps see. */
export interface Relation {
  /** As users name the table. */
  readonly table: string;
  /** The row; what an update left unchanged is taken from `old`, what neither has throws when it is read. */
  toRow(tuple: Tuple, old: Tuple | undefined): Row;
  /** The key columns of a delete or update under the default identity; all others throw when they are read. */
  toKeyRow(tuple: Tuple): Row;
  toKey(tuple: Tuple): string;
}

type Parse = ((text: string) => Value) | undefined;

export function compileRelation(message: RelationMessage, table: TableInfo | undefined, types: ValueTypes): Relation {
  const name = message.schema === "public" ? message.table : `${message.schema}.${message.table}`;
  const names = message.columns.map((column) => column.name);
  const parsers: readonly Parse[] = message.columns.map((column) => types.parser(column.typeOid));
  const identity = message.columns.flatMap((column, index) => (column.isKey ? [index] : []));
  const primary = (table?.keyColumns ?? []).map((column) => names.indexOf(column));
  // A key column that was renamed a moment ago: the log's own identity is the best that is known.
  const keys = primary.length > 0 && !primary.includes(-1) ? primary : identity;
  const [firstKey = -1] = keys;

  const parse = (index: number, text: string | null): Value => {
    if (text === null) return null;
    const parser = parsers[index];
    return parser === undefined ? text : parser(text);
  };

  return {
    table: name,
    toRow(tuple, old) {
      const row: Record<string, Value> = {};
      for (let i = 0; i < names.length; i++) {
        let text = tuple[i];
        if (text === unchanged) text = old?.[i];
        const column = names[i] as string;
        if (text === unchanged || text === undefined) defineUnlogged(row, name, column);
        else row[column] = parse(i, text);
      }
      return row;
    },
    toKeyRow(tuple) {
      const row: Record<string, Value> = {};
      for (let i = 0; i < names.length; i++) {
        const text = tuple[i];
        const column = names[i] as string;
        if (keys.includes(i) && typeof text === "string") row[column] = parse(i, text);
        else defineUnlogged(row, name, column);
      }
      return row;
    },
    toKey(tuple) {
      if (keys.length === 1) return textOf(tuple[firstKey]);
      return JSON.stringify(keys.map((index) => textOf(tuple[index])));
    },
  };
}

const textOf = (text: Tuple[number] | undefined): string => (typeof text === "string" ? text : "");

/** Never `null` and never absent: a payload that reads it must not send a hole as if it were the value. */
function defineUnlogged(row: Record<string, Value>, table: string, column: string): void {
  Object.defineProperty(row, column, {
    enumerable: true,
    get() {
      throw new AncrageError(
        "ANCRAGE_COLUMN_NOT_LOGGED",
        `the write-ahead log did not carry column "${column}" of "${table}" for this change.`,
        {
          hint: `Run "alter table ${table} replica identity full" (or "ancrage migrate"), or read the column with load("${table}", key).`,
        },
      );
    },
  });
}
