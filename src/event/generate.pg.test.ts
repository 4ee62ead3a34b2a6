import { afterAll, beforeAll, expect, test } from "vitest";
import { cloneDatabase, type TestDatabase } from "../../test/database.ts";
import { serverVersion } from "../../test/server-version.ts";
import { readTables } from "../store/tables.ts";
import { readTypes } from "../store/types.ts";
import { generateTypes } from "./generate.ts";

let database: TestDatabase;

beforeAll(async () => {
  database = await cloneDatabase();
});

afterAll(async () => {
  await database.remove();
});

test("the types of a database are those of its values", async () => {
  await database.client.query(`
    create type stage as enum ('open', 'won');
    create table deal (
      id int8 primary key,
      stage stage not null,
      amount numeric(12, 2),
      tags text[] not null,
      "Odd name" boolean,
      total numeric generated always as (amount * 2) stored
    );
    create schema sales;
    create table sales.deal (id int primary key);`);
  const types = await readTypes(database.client);
  const isOld = (await serverVersion(database.client)) < 180_000;

  const text = generateTypes({
    tables: await readTables(database.client),
    events: [],
    tsTypeOf: (column) => types.tsType(column.typeOid),
  });

  expect(text).toContain(`interface DealRecord {
  /** bigint */
  readonly id: string;
  /** stage */
  readonly stage: "open" | "won";
  /** numeric(12,2) */
  readonly amount: string | null;
  /** text[] */
  readonly tags: string[];
  /** boolean */
  readonly "Odd name": boolean | null;
  /** numeric${isOld ? ", generated: the log does not carry it, it is read as it is now." : ""} */
  readonly total: string | null;
}
`);
  expect(text).toContain(`    tables: {
      deal: DealRecord;
      "sales.deal": SalesDealRecord;
    };
    events: {};
`);
});
