import { afterAll, beforeAll, expect, test } from "vitest";
import { inQuietMoment } from "../src/quiet-moment.ts";
import { migrateSchema } from "../src/store/migrate.ts";
import { readPlace } from "../src/store/place.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
beforeAll(async () => (database = await cloneDatabase()));
afterAll(() => database.remove());

test("a second migration finds nothing to do", async () => {
  expect(await migrateSchema(database.client)).toEqual([]);
});

test("a lock is waited for until an autovacuum would give way to it, and no longer", async () => {
  const { client } = database;
  const { rows } = await inQuietMoment(client, () =>
    client.query("select current_setting('lock_timeout')::interval - current_setting('deadlock_timeout')::interval as more"),
  );
  expect(rows).toMatchObject([{ more: { milliseconds: 200 } }]);
});

test("a session of another time zone is at the same place", async () => {
  const other = await database.connect();
  await other.query("set timezone = 'Europe/Paris'");
  expect(await readPlace(other)).toEqual(await readPlace(database.client));
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
  for (const [call, words] of [
    ["trigger('Order', repeat('é', 1025))", "ancrage.trigger('Order'): expected a key of at most 1024 characters, got 1025"],
    ["trigger(repeat('x', 501), '1')", "expected the name of an event, of at most 500 characters, got 501"],
    ["trigger('Order', '1', to_jsonb(repeat('x', 1048575)))", "expected data of at most 1048576 bytes, got 1048577"],
    ["emit('ancrage.x', to_jsonb(repeat('x', 2097152)))", "expected a mark of at most 2097152 bytes"],
  ] as const) {
    await expect(database.client.query(`select ancrage.${call}`)).rejects.toThrow(words);
  }
  await database.client.query("select ancrage.trigger('Order', repeat('é', 1024), to_jsonb(repeat('x', 1048574)))");
  const { rows } = await database.client.query("select ancrage.trigger('Order', '1') as id");
  expect(rows[0].id).toMatch(/^[0-9a-f-]{36}$/);
});
