import { afterAll, beforeAll, expect, test } from "vitest";
import { readTables, type TableInfo } from "../src/store/tables.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { serverVersion } from "./server-version.ts";

let database: TestDatabase;
let tables: ReadonlyMap<string, TableInfo>;

beforeAll(async () => {
  database = await cloneDatabase();
  await database.client.query(`
    create schema sales;
    create type sales.status as enum ('open', 'won');
    create domain code as varchar(3);
    create domain short_code as code;
    create table deal (
      id int8 primary key,
      gone text,
      label varchar(40) not null,
      status sales.status,
      code short_code,
      pad char(5),
      doubled int8 generated always as (id * 2) stored
    );
    alter table deal drop column gone;
    alter table deal replica identity full;
    create table sales."Order ""Line" (line int4, "order" int8, extra text, primary key ("order", line) include (extra));
    create table note (body text);
    create table measured (at timestamptz, value float8, primary key (at)) partition by range (at);
    create table measured_2026 partition of measured for values from ('2026-01-01') to ('2027-01-01');
    create view deals as select * from deal;
    create temporary table passing (id int4 primary key)`);
  // Another plan, which sorts by column number: the key's order must not be an accident of the plan.
  await database.client.query("set enable_nestloop = off; set enable_hashjoin = off");
  const read = await readTables(database.client);
  tables = new Map(read.map((table) => [table.name, table]));
});
afterAll(() => database.remove());

test("only what is tracked or read is listed: no partitions, views, temporary tables, or tables of the journal", () => {
  expect([...tables.keys()]).toEqual(["deal", "measured", "note", 'sales.Order "Line']);
  expect(tables.get("measured")?.isPartitioned).toBe(true);
  expect(tables.get("deal")?.isPartitioned).toBe(false);
});

test("columns are in their order, without dropped ones, with the type that a cast takes", async () => {
  // From PostgreSQL 18 on the log carries stored ones.
  const isLeftOut = (await serverVersion(database.client)) < 180_000;
  const columns = tables.get("deal")?.columns.map(({ name, typeName, castType, isNullable, isGenerated }) => ({
    name,
    typeName,
    castType,
    isNullable,
    isGenerated,
  }));
  expect(columns).toEqual([
    { name: "id", typeName: "bigint", castType: "pg_catalog.int8", isNullable: false, isGenerated: false },
    { name: "label", typeName: "character varying(40)", castType: 'pg_catalog."varchar"', isNullable: false, isGenerated: false },
    { name: "status", typeName: "sales.status", castType: "sales.status", isNullable: true, isGenerated: false },
    { name: "code", typeName: "short_code", castType: 'pg_catalog."varchar"', isNullable: true, isGenerated: false },
    { name: "pad", typeName: "character(5)", castType: "pg_catalog.bpchar", isNullable: true, isGenerated: false },
    { name: "doubled", typeName: "bigint", castType: "pg_catalog.int8", isNullable: true, isGenerated: isLeftOut },
  ]);
  expect(tables.get("deal")?.columns[0]?.typeOid).toBe(20);
});

test("the key is the primary key's columns in its own order, without those it only includes", () => {
  expect(tables.get('sales.Order "Line')?.keyColumns).toEqual(["order", "line"]);
  expect(tables.get("deal")?.keyColumns).toEqual(["id"]);
  expect(tables.get("note")?.keyColumns).toEqual([]);
});

test("the replica identity is the table's", () => {
  expect(tables.get("deal")?.replicaIdentity).toBe("f");
  expect(tables.get("note")?.replicaIdentity).toBe("d");
});
