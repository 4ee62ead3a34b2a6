import { afterAll, beforeAll, expect, test } from "vitest";
import { migrateSchema } from "../src/store/migrate.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
beforeAll(async () => (database = await cloneDatabase()));
afterAll(() => database.remove());

test("a second migration finds nothing to do", async () => {
  expect(await migrateSchema(database.client)).toEqual([]);
});

test("partitions of a day are made once", async () => {
  await database.client.query("select ancrage.ensure_partitions('2026-11-24')");
  await database.client.query("select ancrage.ensure_partitions('2026-11-24')");
  const { rows } = await database.client.query(`select relname from pg_class where relname like '%\\_20261124' order by 1`);
  expect(rows.map((row) => row.relname)).toEqual(["attempts_20261124", "deliveries_20261124", "messages_20261124", "rejections_20261124"]);
});

test("ancrage.trigger refuses what it cannot name", async () => {
  await expect(database.client.query("select ancrage.trigger(null, '1')")).rejects.toThrow("expected the name of an event, got null");
  await expect(database.client.query("select ancrage.trigger('Order', null)")).rejects.toThrow(
    "expected the key of a record as text, got null",
  );
  const { rows } = await database.client.query("select ancrage.trigger('Order', '1') as id");
  expect(rows[0].id).toMatch(/^[0-9a-f-]{36}$/);
});
