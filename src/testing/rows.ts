import type { Row } from "../capture/change.ts";
import type { EventDefinition, Rule } from "../event/define.ts";
import type { RecordReaders } from "../payload/load.ts";
import { keyOf, type TableInfo } from "../store/tables.ts";
import { formatValue } from "../store/types.ts";

/** Rows by table, as users name it. */
export type Rows = Readonly<Record<string, readonly Row[]>>;

/**
 * Tables that are known by some of their rows alone: their columns are those that a row, a rule or an option names.
 *
 * @param keyColumns the primary keys that are not `id`
 */
export function tablesOf(
  rows: Rows,
  definitions: readonly EventDefinition[],
  keyColumns: Readonly<Record<string, readonly string[]>>,
): readonly TableInfo[] {
  const columnsOf = new Map<string, Set<string>>();
  const add = (table: string, columns: readonly string[]): void => {
    columnsOf.set(table, new Set([...(columnsOf.get(table) ?? []), ...columns]));
  };
  for (const [table, some] of Object.entries(rows)) {
    // One without rows has no columns here: whichever `load` asks for is right.
    add(table, []);
    for (const row of some) add(table, [...(keyColumns[table] ?? ["id"]), ...Object.keys(row)]);
  }
  for (const { table, on, newest } of definitions) {
    if (table !== undefined) add(table, [...ruleColumns(on), ...(newest === undefined ? [] : [newest])]);
  }
  return [...columnsOf].map(([name, columns], index) => tableOf(index + 1, name, [...columns], keyColumns[name] ?? ["id"]));
}

function ruleColumns(on: EventDefinition["on"]): readonly string[] {
  const rules: readonly unknown[] = Array.isArray(on) ? on : [on];
  const isOfColumns = (rule: unknown): rule is Extract<Rule, object> => typeof rule === "object" && rule !== null && "update" in rule;
  return rules.filter(isOfColumns).flatMap(({ update }) => update);
}

function tableOf(oid: number, name: string, columns: readonly string[], keyColumns: readonly string[]): TableInfo {
  const [schema = "", table = ""] = name.includes(".") ? name.split(".") : ["public", name];
  return {
    oid,
    schema,
    table,
    name,
    keyColumns,
    replicaIdentity: "f",
    isPartitioned: false,
    columns: columns.map((column) => ({
      name: column,
      typeOid: 25,
      typeName: "text",
      castType: "text",
      isNullable: !keyColumns.includes(column),
      isGenerated: false,
    })),
  };
}

/** The key of a row as the log would have it. */
export function keyOfRow(table: TableInfo, row: Row): string {
  return keyOf(table)((column) => textOf(row[column]));
}

/** What `load` reads with, over rows in memory. Values are compared as PostgreSQL's text of them. */
export function createRowReaders(rows: Rows): RecordReaders {
  const rowsOf = (table: TableInfo): readonly Row[] => rows[table.name] ?? [];
  return {
    byKeys: async (table, keys) => {
      const byKey = new Map(rowsOf(table).map((row) => [keyOfRow(table, row), row]));
      return new Map(
        keys.flatMap((key) => {
          const row = byKey.get(key);
          return row === undefined ? [] : [[key, row] as const];
        }),
      );
    },
    where: async (table, conditions) =>
      conditions.map((condition) =>
        rowsOf(table).filter((row) => Object.entries(condition).every(([column, value]) => textOf(row[column]) === textOf(value))),
      ),
  };
}

const textOf = (value: unknown): string | null => (value === null || value === undefined ? null : formatValue(value));
