import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { ColumnInfo, TableInfo } from "../store/tables.ts";
import { generateTypes, writeTypes } from "./generate.ts";

const tsTypeOf = (column: ColumnInfo): string =>
  ({ integer: "number", bigint: "string", stage: '"open" | "won"' })[column.typeName] ?? "unknown";

test("tables and events, in the order of their names", () => {
  const text = generateTypes({
    tables: [
      table("sales.order-line", [column("id", "bigint"), column("odd name", "integer")]),
      table("deal", [column("id", "integer"), { ...column("stage", "stage"), isNullable: true }]),
    ],
    events: [
      { name: "deal.won", file: "events/deal/won.ts" },
      { name: "NewOpportunity", file: "events/NewOpportunity.ts" },
    ],
    tsTypeOf,
  });

  expect(text).toMatch(/^\/\/ Written by "ancrage generate"/);
  expect(withoutHeader(text)).toBe(`import "ancrage";

interface DealRecord {
  /** integer */
  readonly id: number;
  /** stage */
  readonly stage: "open" | "won" | null;
}

interface SalesOrderLineRecord {
  /** bigint */
  readonly id: string;
  /** integer */
  readonly "odd name": number;
}

declare module "ancrage" {
  interface Register {
    tables: {
      deal: DealRecord;
      "sales.order-line": SalesOrderLineRecord;
    };
    events: {
      NewOpportunity: typeof import("./events/NewOpportunity.ts").default;
      "deal.won": typeof import("./events/deal/won.ts").default;
    };
  }
}
`);
});

test("the text does not depend on the order that tables and events come in", () => {
  const tables = [table("a", [column("id", "integer")]), table("b", [column("id", "integer")])];
  const events = [
    { name: "A", file: "events/A.ts" },
    { name: "B", file: "events/B.ts" },
  ];

  const text = generateTypes({ tables, events, tsTypeOf });

  expect(generateTypes({ tables: tables.toReversed(), events: events.toReversed(), tsTypeOf })).toBe(text);
});

test("tables whose names come to the same interface stay apart", () => {
  const tables = ["a.b", "a_b", "A-b", "1st"].map((name) => table(name, []));

  const text = generateTypes({ tables, events: [], tsTypeOf });

  expect(text.match(/^interface \w+/gm)).toEqual([
    "interface Table1stRecord",
    "interface ABRecord",
    "interface AB2Record",
    "interface AB3Record",
  ]);
});

test("a type cannot end the comment that names it", () => {
  const text = generateTypes({ tables: [table("a", [column("id", '"x*/ y"')])], events: [], tsTypeOf });

  expect(text).toContain('/** "x*\\/ y" */');
});

test("says where the log does not carry a column", () => {
  const text = generateTypes({ tables: [table("a", [{ ...column("id", "integer"), isGenerated: true }])], events: [], tsTypeOf });

  expect(text).toContain("/** integer, generated: the log does not carry it, it is read as it is now. */");
});

test("is written only when it changed", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ancrage-generate-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const path = join(folder, "ancrage.d.ts");

  expect(await writeTypes(folder, "one")).toBe(true);
  const { mtimeNs } = await stat(path, { bigint: true });
  expect(await writeTypes(folder, "one")).toBe(false);
  expect((await stat(path, { bigint: true })).mtimeNs).toBe(mtimeNs);
  expect(await writeTypes(folder, "two")).toBe(true);
  expect(await readFile(path, "utf8")).toBe("two");
});

const withoutHeader = (text: string): string => text.slice(text.indexOf("import "));

function table(name: string, columns: readonly ColumnInfo[]): TableInfo {
  return { oid: 1, schema: "public", table: name, name, columns, keyColumns: [], replicaIdentity: "d", isPartitioned: false };
}

function column(name: string, typeName: string): ColumnInfo {
  return { name, typeOid: 0, typeName, castType: typeName, isNullable: false, isGenerated: false };
}
