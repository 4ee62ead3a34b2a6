import { randomBytes } from "node:crypto";
import type pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../src/clock.ts";
import { createPool } from "../src/store/database.ts";
import { leaseLock, tryLock, unlock } from "../src/store/leaders.ts";
import { changesAcknowledged } from "../src/subscription-watch.ts";
import { LiveSubscriptions } from "../src/subscription/live.ts";
import { createSecret, parseSecretKey, sealSecret } from "../src/subscription/secret.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

const count = 2_500;
const secretKey = parseSecretKey(randomBytes(32).toString("base64"));
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

test("more subscriptions than are opened at a time are all opened, and the loop turns between", async () => {
  const made = Array.from({ length: count }, (_, number) => {
    const id = `sub_${String(number).padStart(26, "0")}`;
    return { id, secrets: JSON.stringify([sealSecret(secretKey, { project: "default", id }, createSecret(), new Date())]) };
  });
  await pool.query(
    `insert into ancrage.subscriptions (id, project, secrets, events, url, state)
     select n.id, 'default', n.secrets, '{E}', 'https://example.com/', case when n.id like '%7' then 'deleted' else 'enabled' end
     from unnest($1::text[], $2::jsonb[]) as n (id, secrets)`,
    [made.map(({ id }) => id), made.map(({ secrets }) => secrets)],
  );
  const live = new LiveSubscriptions({ db: pool, secretKey, clock: systemClock, log: pino({ level: "silent" }) });
  let turns = 0;
  const counting = setInterval(() => turns++, 0);
  await live.load();
  clearInterval(counting);
  expect(live.registry.size).toBe(count - count / 10);
  expect(live.unopened.size).toBe(0);
  expect(live.registry.of("default", "E").every(({ keys }) => keys.length === 1)).toBe(true);
  expect(turns).toBeGreaterThan(0);
});

test("a change is heeded once whoever led last says so, or nobody has held its lease for as long as that is; else it is not", async () => {
  const lead = (source: string, ...values: readonly unknown[]) =>
    pool.query(
      "insert into ancrage.leaders (source, epoch, process, taken_at, acknowledged_revision) values ($1, 1, 'host:1', to_timestamp($2), $3)",
      [source, ...values],
    );
  let nowMs = 0;
  const clock = { nowMs: () => nowMs, monotonicMs: () => (nowMs += 1_000) };
  const asked = () => changesAcknowledged(pool, { leaseMs: 3_500, clock, stopping: new AbortController().signal });
  // Of a source of before, whose process says nothing any more.
  await lead("before", 1, 0);
  await lead("now", 2, 1_000_000);
  expect(await asked()).toBe(true);
  expect(nowMs).toBeLessThan(3_000);
  await pool.query("update ancrage.leaders set acknowledged_revision = 0");
  await tryLock(database.client, leaseLock("now"));
  const fromMs = nowMs;
  expect(await asked()).toBe(false);
  expect(nowMs - fromMs).toBeLessThan(8_000);
  await unlock(database.client, leaseLock("now"));
  expect(await asked()).toBe(true);
});
