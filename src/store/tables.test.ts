import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { keyOf, parseKey, quoteTable, type TableInfo } from "./tables.ts";

const tableWithKey = (...keyColumns: string[]): TableInfo => ({
  oid: 1,
  schema: "sales",
  table: 'de"al',
  name: 'sales.de"al',
  columns: keyColumns.map((name) => ({
    name,
    typeOid: 25,
    typeName: "text",
    castType: "pg_catalog.text",
    isNullable: false,
    isGenerated: false,
  })),
  keyColumns,
  replicaIdentity: "d",
  isPartitioned: false,
});

describe("keys", () => {
  test("one column is its text, several are a JSON array in key order, none is empty", () => {
    const texts: Record<string, string> = { a: "1", b: 'x"y' };
    const textOf = (column: string): string | null => texts[column] ?? null;
    expect(keyOf(tableWithKey("b"))(textOf)).toBe('x"y');
    expect(keyOf(tableWithKey("b", "a"))(textOf)).toBe(String.raw`["x\"y","1"]`);
    expect(keyOf(tableWithKey())(textOf)).toBe("");
  });

  test("a key column without a text is an error that names it", () => {
    expect(() => keyOf(tableWithKey("a", "b"))((column) => (column === "a" ? "1" : null))).toThrow('no value in "b"');
    expect(() => keyOf(tableWithKey("a"))(() => null)).toThrow('no value in "a"');
  });

  test("whatever the texts, a key is read back to them, and two keys are never the same", () => {
    const pairs = fc.tuple(fc.string(), fc.string());
    const table = tableWithKey("a", "b");
    const makeKey = ([a, b]: readonly [string, string]): string => keyOf(table)((column) => (column === "a" ? a : b));
    fc.assert(
      fc.property(pairs, pairs, (one, other) => {
        expect(parseKey(table, makeKey(one))).toEqual(one);
        expect(makeKey(one) === makeKey(other)).toBe(one[0] === other[0] && one[1] === other[1]);
      }),
    );
    fc.assert(
      fc.property(fc.string(), (key) => {
        expect(parseKey(tableWithKey("a"), key)).toEqual([key]);
      }),
    );
  });

  test.each(["1", '["1"]', '["1","2","3"]', '["1",2]', '{"a":"1"}', "", "null", "[1"])("%j is no key of two columns", (key) => {
    expect(() => parseKey(tableWithKey("a", "b"), key)).toThrow('expected ["<a>","<b>"]');
    expect(() => parseKey(tableWithKey("a", "b"), key)).toThrow(JSON.stringify(key));
  });

  test("a table without a primary key has no keys", () => {
    expect(() => parseKey(tableWithKey(), "1")).toThrow("has no primary key");
  });
});

test("schema and table are quoted", () => {
  expect(quoteTable(tableWithKey())).toBe('"sales"."de""al"');
});
