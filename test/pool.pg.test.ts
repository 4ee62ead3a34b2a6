import { afterAll, beforeAll, expect, test } from "vitest";
import { createPool, isLostSession } from "../src/store/database.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { startProxy } from "./proxy.ts";

let database: TestDatabase;
beforeAll(async () => {
  database = await cloneDatabase();
});
afterAll(() => database.remove());

test("a session whose network swallows the answer is given up soon after the statement's own time, and another one is made", async () => {
  const proxy = await startProxy(database.url);
  const settings = { statement_timeout: "200" };
  const pool = createPool({ connectionString: proxy.url, applicationName: "test pool", size: 1, settings, onIdleError: () => undefined });
  await pool.query("select 1");
  proxy.stall({ connection: 0 });
  const lost = await pool.query("select 1").catch((error: Error) => error);
  expect(lost).toBeInstanceOf(Error);
  expect(isLostSession(lost as Error)).toBe(true);
  expect((await pool.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
  await pool.end();
  await proxy.close();
});

test("the URL's own options stand beside our settings, and do not replace them", async () => {
  const url = new URL(database.url);
  url.searchParams.set("options", "-c search_path=ancrage -c timezone=Asia/Kolkata -c datestyle=SQL");
  const pool = createPool({ connectionString: url.href, applicationName: "test pool", size: 1, onIdleError: () => undefined });
  const { rows } = await pool.query(
    "select current_setting('search_path') as path, current_setting('timezone') as zone, current_setting('datestyle') as style",
  );
  expect(rows).toEqual([{ path: "ancrage", zone: "UTC", style: "ISO, MDY" }]);
  await pool.end();
});
