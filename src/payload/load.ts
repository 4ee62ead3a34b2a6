import DataLoader from "dataloader";
import type { Row } from "../capture/change.ts";
import { freezeRow } from "../capture/freeze.ts";
import { AncrageError, sqlStateOf } from "../errors.ts";
import { suggestName, suggestTable } from "../nearest-name.ts";
import type { TableInfo } from "../store/tables.ts";
import { BatchFault, isPassingFault } from "./fault.ts";

/** Reads of records, one query a call. `record-readers.ts` binds them to a pool. */
export interface RecordReaders {
  /**
   * By the key as it was asked for; what does not exist is not in the map.
   *
   * @param columns only these, and of them only those that the table has now. Default: all, of which one that the table has no more throws
   *   when it is read
   */
  byKeys(table: TableInfo, keys: readonly string[], columns?: readonly string[]): Promise<ReadonlyMap<string, Row>>;
  /** For each condition the records that meet it, in the order of their key. All of the conditions name the same columns. */
  where(table: TableInfo, conditions: readonly Condition[]): Promise<readonly (readonly Row[])[]>;
}

/** Column name to value, all of which must be equal; `null` asks for NULL. */
type Condition = Readonly<Record<string, unknown>>;

export interface LoadsOptions {
  readonly tables: ReadonlyMap<string, TableInfo>;
  readonly readers: RecordReaders;
  /** Calls `dispatch` when no further call is to be expected soon. */
  readonly whenQuiet: (dispatch: () => void) => void;
  readonly onFault: (fault: BatchFault, table: string) => void;
}

/** The reads of one batch: calls for one table and one set of columns become one query, and are answered once. */
export interface Loads {
  one(table: string, keyOrWhere: unknown): Promise<Row | undefined>;
  all(table: string, where: Condition): Promise<readonly Row[]>;
}

const nothing: readonly Row[] = Object.freeze([]);

export function createLoads(options: LoadsOptions): Loads {
  const keyLoaders = new Map<string, DataLoader<string, Row | undefined>>();
  const columnLoaders = new Map<string, DataLoader<Condition, readonly Row[], string>>();

  return {
    async one(tableName, keyOrWhere) {
      const table = tableNamed(options.tables, tableName);
      if (isConditions(keyOrWhere)) return (await byColumns(table, keyOrWhere))[0];
      const key = keyText(table, keyOrWhere);
      return key === undefined ? undefined : keyLoader(table).load(key);
    },
    async all(tableName, where) {
      const table = tableNamed(options.tables, tableName);
      if (!isConditions(where)) {
        throw wrongCall(
          `load.all("${table.name}", …): expected columns and their values, got ${describe(where)}.`,
          "Write load.all(table, { column: value }).",
        );
      }
      return byColumns(table, where);
    },
  };

  function byColumns(table: TableInfo, where: Condition): Promise<readonly Row[]> {
    const columns = Object.keys(where).toSorted();
    if (columns.length === 0) {
      throw wrongCall(`load("${table.name}", {}): expected at least one column, got none.`, "A whole table is read with sql.");
    }
    const names = table.columns.map((column) => column.name);
    for (const column of columns) {
      // `fire` (ancrage/testing) knows no column of a table that it was given no row of.
      if (names.length > 0 && !names.includes(column))
        throw wrongCall(`load("${table.name}", …): there is no column "${column}".`, suggestName(column, names));
      if (where[column] === undefined) {
        throw wrongCall(
          `load("${table.name}", { ${column}: undefined }): expected a value, or null to ask for NULL.`,
          "A column's name was probably mistyped.",
        );
      }
    }
    return columnLoader(table, columns).load(where);
  }

  function keyLoader(table: TableInfo): DataLoader<string, Row | undefined> {
    let loader = keyLoaders.get(table.name);
    if (loader === undefined) {
      if (table.keyColumns.length === 0) {
        throw wrongCall(`load("${table.name}", key): the table has no primary key.`, "Name the columns: load(table, { column: value }).");
      }
      const read = async (keys: readonly string[]): Promise<(Row | undefined)[]> => {
        const rows = await options.readers.byKeys(table, keys);
        return keys.map((key) => frozenAt(rows, key));
      };
      loader = new DataLoader((keys) => answerEach(keys, read, (fault) => options.onFault(fault, table.name)), {
        batchScheduleFn: options.whenQuiet,
      });
      keyLoaders.set(table.name, loader);
    }
    return loader;
  }

  function columnLoader(table: TableInfo, columns: readonly string[]): DataLoader<Condition, readonly Row[], string> {
    const id = JSON.stringify([table.name, ...columns]);
    let loader = columnLoaders.get(id);
    if (loader === undefined) {
      const read = async (conditions: readonly Condition[]): Promise<(readonly Row[])[]> => {
        const answers = await options.readers.where(table, conditions);
        return conditions.map((_, index) => Object.freeze((answers[index] ?? nothing).map(freezeRow)));
      };
      loader = new DataLoader((conditions) => answerEach(conditions, read, (fault) => options.onFault(fault, table.name)), {
        batchScheduleFn: options.whenQuiet,
        cacheKeyFn: (where) =>
          JSON.stringify(
            columns.map((column) => where[column]),
            bigintAsText,
          ),
      });
      columnLoaders.set(id, loader);
    }
    return loader;
  }
}

function bigintAsText(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/**
 * Asks for all at once. Where PostgreSQL refuses one value (`abc` as a number), the asked are halved until that one stands alone:
 * the others, which belong to other records, get their answer.
 */
async function answerEach<A, V>(
  asked: readonly A[],
  read: (asked: readonly A[]) => Promise<V[]>,
  onFault: (fault: BatchFault) => void,
): Promise<(V | Error)[]> {
  try {
    return await read(asked);
  } catch (error) {
    if (isPassingFault(error)) {
      const fault = new BatchFault(error);
      onFault(fault);
      throw fault;
    }
    if (asked.length === 1 || isOfStatement(error)) return asked.map(() => (error instanceof Error ? error : new Error(String(error))));
    const middle = asked.length >> 1;
    const left = await answerEach(asked.slice(0, middle), read, onFault);
    return [...left, ...(await answerEach(asked.slice(middle), read, onFault))];
  }
}

/** A table or column that is not there, a right that lacks: whatever is asked for, the answer is the same. Ours are of the same kind. */
const isOfStatement = (error: unknown): boolean => error instanceof AncrageError || sqlStateOf(error)?.startsWith("42") === true;

/**
 * Records by key, outside of any payload function: for explicit triggers and `explain`. A key that cannot be one (`abc` for a
 * number) is answered with an error, not with a failure of all.
 *
 * @throws BatchFault
 */
export async function readRecords(
  readers: RecordReaders,
  table: TableInfo,
  keys: readonly string[],
  columns?: readonly string[],
): Promise<ReadonlyMap<string, Row | Error | undefined>> {
  const asked = [...new Set(keys)];
  const read = async (some: readonly string[]): Promise<(Row | undefined)[]> => {
    const rows = await readers.byKeys(table, some, columns);
    return some.map((key) => frozenAt(rows, key));
  };
  const answers = await answerEach(asked, read, () => undefined);
  return new Map(asked.map((key, index) => [key, answers[index]]));
}

/** @throws AncrageError `ANCRAGE_DEFINITION_INVALID` */
function tableNamed(tables: ReadonlyMap<string, TableInfo>, name: string): TableInfo {
  const table = tables.get(name);
  if (table === undefined) throw wrongCall(`load("${name}", …): there is no such table.`, suggestTable(name, [...tables.keys()]));
  return table;
}

function wrongCall(message: string, hint: string): AncrageError {
  return new AncrageError("ANCRAGE_DEFINITION_INVALID", message, { hint });
}

function isConditions(value: unknown): value is Condition {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !Buffer.isBuffer(value) && !(value instanceof Date);
}

/** The key's text as `Change.key` has it; `undefined` where it, or a part of it, is null: then there is no such record. */
function keyText(table: TableInfo, key: unknown): string | undefined {
  if (key === null || key === undefined) return undefined;
  if (!Array.isArray(key)) return partText(table, key);
  if (key.some((part) => part === null || part === undefined)) return undefined;
  return JSON.stringify(key.map((part) => partText(table, part)));
}

function partText(table: TableInfo, part: unknown): string {
  if (typeof part === "string") return part;
  if (typeof part === "number" || typeof part === "bigint" || typeof part === "boolean") return String(part);
  if (Buffer.isBuffer(part)) return `\\x${part.toString("hex")}`;
  throw wrongCall(
    `load("${table.name}", key): expected text, a number or a list of them, got ${describe(part)}.`,
    "Dates are given as PostgreSQL's text.",
  );
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return typeof value === "object" ? Object.prototype.toString.call(value) : `${typeof value} ${JSON.stringify(value)}`;
}

/** One answer goes to every function of the batch that asked for it. */
function frozenAt(rows: ReadonlyMap<string, Row>, key: string): Row | undefined {
  const row = rows.get(key);
  return row === undefined ? undefined : freezeRow(row);
}
