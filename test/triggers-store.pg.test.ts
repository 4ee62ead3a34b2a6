import { afterAll, beforeAll, expect, test } from "vitest";
import type pg from "pg";
import { createPool } from "../src/store/database.ts";
import { emitTrigger } from "../src/store/triggers.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
let pool: pg.Pool;
beforeAll(async () => {
  database = await cloneDatabase();
  pool = createPool({ connectionString: database.url, applicationName: "test", size: 1, onIdleError: () => undefined });
});
afterAll(async () => {
  await pool.end();
  await database.remove();
});

const session = async (): Promise<number | undefined> => (await pool.query<{ pid: number }>("select pg_backend_pid() as pid")).rows[0]?.pid;
const trigger = { event: "NewDeal", key: "1", data: undefined };

test("a session whose trigger failed, perhaps with its transaction still open, is handed to nobody else", async () => {
  const before = await session();
  await emitTrigger(pool, trigger, () => undefined);
  expect(await session()).toBe(before);
  const failed = emitTrigger(pool, trigger, () => {
    throw new Error("nobody waits any more");
  });
  await expect(failed).rejects.toThrow("nobody waits any more");
  expect(await session()).not.toBe(before);
});
