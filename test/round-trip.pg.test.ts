import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createCopyRows, type Copy } from "../src/store/copy.ts";
import { copyAlone, RoundTrip } from "../src/store/round-trip.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await cloneDatabase();
  await database.client.query("create table a (n integer primary key); create table b (n integer primary key)");
});
afterAll(() => database.remove());
beforeEach(() => database.client.query("truncate a, b"));

function copy(table: string, numbers: readonly number[]): Copy {
  const rows = createCopyRows();
  for (const number of numbers) {
    rows.beginRow(1);
    rows.int4(number);
  }
  return rows.finish(table, ["n"]);
}
const upTo = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index);
const counts = async (): Promise<unknown> =>
  (await database.client.query("select (select count(*)::integer from a) as a, (select count(*)::integer from b) as b")).rows[0];

test("several COPYs and statements are one transaction", async () => {
  const trip = new RoundTrip();
  trip.add("begin", "BEGIN");
  trip.copy(copy("a", upTo(3)));
  trip.copy(copy("a", []));
  trip.add("update a set n = n + 10 where n > 0 returning n", "UPDATE 2");
  trip.copy(copy("b", upTo(100_000)));
  trip.add("delete from b where n >= 50", { fewest: 1, most: 100_000 });
  trip.add("commit", "COMMIT");
  await trip.run(database.client);
  expect(await counts()).toEqual({ a: 3, b: 50 });
});

test("a trip with nothing in it is none", async () => {
  const unasked = { query: () => expect.fail("it was asked") } as unknown as pg.ClientBase;
  await new RoundTrip().run(unasked);
  await copyAlone(unasked, copy("a", []));
  expect(await counts()).toEqual({ a: 0, b: 0 });
});

test("after one that fails nothing more is run, the rows that are on their way are dropped, and the session goes on", async () => {
  const trip = new RoundTrip();
  trip.add("begin", "BEGIN");
  trip.copy(copy("a", [1, 1]));
  trip.copy(copy("b", upTo(500_000)));
  trip.add("commit", "COMMIT");
  const over = trip.run(database.client);
  const behind = database.client.query("rollback");
  await expect(over).rejects.toMatchObject({ code: "23505" });
  await behind;
  expect(await counts()).toEqual({ a: 0, b: 0 });
  await copyAlone(database.client, copy("b", upTo(2)));
  expect(await counts()).toEqual({ a: 0, b: 2 });
});

test("another answer than was expected is told", async () => {
  const trip = new RoundTrip();
  trip.add("insert into a values (1)", "INSERT 0 2");
  await expect(trip.run(database.client)).rejects.toThrow("PostgreSQL answered INSERT 0 1 instead of INSERT 0 2");
  const failed = new RoundTrip();
  failed.add("begin", "BEGIN");
  failed.add("insert into b select from a where n > 1", { fewest: 1, most: 2 });
  await expect(failed.run(database.client)).rejects.toThrow("PostgreSQL answered INSERT 0 0 instead of 1 to 2 rows");
  await database.client.query("rollback");
});

test("a session that ends meanwhile, or had ended, fails it", async () => {
  const session = await database.connect();
  session.on("error", () => undefined);
  const { rows } = await session.query<{ pid: number }>("select pg_backend_pid() as pid");
  const trip = new RoundTrip();
  trip.add("begin", "BEGIN");
  trip.copy(copy("a", upTo(10)));
  trip.add("select pg_sleep(60)", "SELECT 1");
  const over = trip.run(session);
  await expect
    .poll(() =>
      database.client.query("select from pg_stat_activity where pid = $1 and query like '%pg_sleep%' and state = 'active'", [rows[0]?.pid]),
    )
    .toMatchObject({ rowCount: 1 });
  await database.client.query("select pg_terminate_backend($1)", [rows[0]?.pid]);
  await expect(over).rejects.toMatchObject({ code: "57P01" });
  await expect(copyAlone(session, copy("a", [1]))).rejects.toThrow(/not queryable|terminated|ended/);
  expect(await counts()).toEqual({ a: 0, b: 0 });
});
