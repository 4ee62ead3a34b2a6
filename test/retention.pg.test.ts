import type pg from "pg";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Retention, type Expired, type RetentionOptions } from "../src/journal/retention.ts";
import { createPool } from "../src/store/database.ts";
import type { DeliveryKey } from "../src/store/deliveries.ts";
import { createTestApi } from "./api.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
let pool: pg.Pool;
const canceled: DeliveryKey[] = [];
const expired: Expired[] = [];
beforeEach(async () => {
  database = await cloneDatabase();
  pool = createPool({ connectionString: database.url, applicationName: "retention", size: 4, onIdleError: () => undefined });
  await pool.query("select ancrage.ensure_partitions((now() at time zone 'UTC')::date)");
  canceled.length = 0;
  expired.length = 0;
});
afterEach(async () => {
  await pool.end();
  await database.remove();
});

const retention = (given: Partial<RetentionOptions> = {}): Retention =>
  new Retention({
    db: pool,
    connectionString: database.url,
    messagesDays: 30,
    deliveriesDays: 90,
    onCanceled: (keys) => canceled.push(...keys),
    onExpired: async (_, one) => void expired.push(one),
    log: pino({ level: "silent" }),
    ...given,
  });

/** A message of so many days ago, with a delivery. */
async function leave(daysAgo: number, state: string, subscription = "sub_A"): Promise<string> {
  const { rows } = await database.client.query<{ id: string }>(
    `with made as (select ancrage.ensure_partitions((now() at time zone 'UTC')::date - $1::integer))
     select 'msg_' || ancrage.base32((extract(epoch from now() - $1 * interval '1 day') * 1000)::bigint, 10) || $2 as id from made`,
    [daysAgo, subscription.replace("sub_", "")],
  );
  const id = rows[0]!.id;
  await database.client.query(
    `insert into ancrage.messages values ($1, 'default', 'deal.won', '1', '0/1', '0/1', 0, now() - $2 * interval '1 day', '{}')`,
    [id, daysAgo],
  );
  await database.client.query(
    `insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, updated_at) values ($1, $2, 'default', $3, 1, 1, now())`,
    [id, subscription, state],
  );
  return id;
}

async function partitions(parent: string): Promise<number> {
  const { rows } = await database.client.query<{ count: number }>(
    `select count(*)::integer as count from pg_class where relnamespace = 'ancrage'::regnamespace and relname ~ ('^' || $1 || '_\\d{8}$')`,
    [parent],
  );
  return rows[0]!.count;
}

const count = async (sql: string): Promise<number> => Number((await database.client.query<{ count: string }>(sql)).rows[0]!.count);

test("bodies go after 30 days and outcomes after 90; what was not delivered ends as expired; days ahead are made", async () => {
  await leave(100, "delivered");
  const bodiless = await leave(40, "delivered");
  for (const subscription of ["sub_A", "sub_A2", "sub_B"]) await leave(35, "retrying", subscription);
  const kept = await leave(30, "pending");
  const found = await retention().look();
  expect(found).toMatchObject({ expired: 3, left: [] });
  expect(found.dropped).toHaveLength(8);
  expect(new Set(canceled.map(({ subscriptionId }) => subscriptionId))).toEqual(new Set(["sub_A", "sub_A2", "sub_B"]));
  expect(expired.map(({ subscriptionId, deliveries }) => `${subscriptionId} ${deliveries.length}`).toSorted()).toEqual([
    "sub_A 1",
    "sub_A2 1",
    "sub_B 1",
  ]);
  const { rows } = await database.client.query(
    "select state::text, last_reason, count(*)::integer from ancrage.deliveries group by 1, 2 order by 1",
  );
  expect(rows).toEqual([
    { state: "canceled", last_reason: "expired", count: 3 },
    { state: "delivered", last_reason: null, count: 1 },
    { state: "pending", last_reason: null, count: 1 },
  ]);
  expect((await database.client.query("select id from ancrage.messages")).rows).toEqual([{ id: kept }]);
  // Today and two days ahead, and the days that are kept.
  expect({ messages: await partitions("messages"), deliveries: await partitions("deliveries") }).toEqual({ messages: 4, deliveries: 6 });
  expect(await retention().look()).toEqual({ dropped: [], left: [], expired: 0 });

  // What is left of it is shown, and cannot be sent again.
  const api = createTestApi(database);
  await database.client.query(
    `insert into ancrage.subscriptions (id, project, events, url, secrets, created_at) values ('sub_A', 'default', '{deal.won}', 'https://a.example', '[]', now() - interval '1 year')`,
  );
  const id = `dlv_${bodiless.slice(4)}_A`;
  expect((await api.call("GET", `/v1/deliveries/${id}`)).body).toMatchObject({ state: "delivered", event: null, key: null });
  expect(await api.call("POST", `/v1/deliveries/${id}/resend`)).toMatchObject({
    status: 409,
    body: { code: "job-refused", detail: expect.stringContaining("no longer kept") },
  });
  await api.pool.end();
});

test("a long query of somebody holds up neither the journal nor the next look: the owner detaches concurrently, and goes on with it", async () => {
  await leave(40, "delivered");
  const reader = await database.connect();
  await reader.query("begin; select count(*) from ancrage.messages");
  const slowest = watchInserts();
  const first = await retention({ detachTimeoutMs: 500 }).look();
  expect(first.left).toEqual([expect.stringContaining("messages")]);
  expect(await count("select count(*) from pg_inherits where inhdetachpending")).toBe(1);
  const slowestMs = await slowest.stop();
  await reader.query("commit");
  expect((await retention().look()).dropped).toEqual([expect.stringContaining("messages")]);
  expect(await count("select count(*) from pg_inherits where inhdetachpending")).toBe(0);
  expect(slowestMs).toBeLessThan(400);
});

describe("a role that owns nothing", () => {
  const role = `hooks_${process.pid}`;
  let limited: pg.Pool;
  beforeEach(async () => {
    await database.client.query(
      `create role ${role} login password 'secret';
       grant usage on schema ancrage to ${role};
       grant select, insert, update, delete on all tables in schema ancrage to ${role};
       alter default privileges in schema ancrage grant select, insert, update, delete on tables to ${role};
       grant execute on function ancrage.ensure_partitions(date), ancrage.drop_partition(text, date) to ${role}`,
    );
    const url = new URL(database.url);
    url.username = role;
    url.password = "secret";
    limited = createPool({ connectionString: url.href, applicationName: "limited", size: 4, onIdleError: () => undefined });
  });
  afterEach(async () => {
    await limited.end();
    await database.client.query(`drop owned by ${role}; drop role ${role}`);
  });

  test("drops days by a function of the owner, which waits a moment for whoever reads, and tries again", async () => {
    await leave(40, "retrying");
    const reader = await database.connect();
    await reader.query("begin; select count(*) from ancrage.messages");
    const slowest = watchInserts();
    const looking = retention({ db: limited }).look();
    await untilTried();
    await reader.query("commit");
    expect(await looking).toMatchObject({
      expired: 1,
      left: [],
      dropped: [expect.stringContaining("messages"), expect.stringContaining("rejections")],
    });
    // The lock that it waits for a fifth of a second for holds others up for as long.
    expect(await slowest.stop()).toBeLessThan(1_000);
  });

  test("may drop nothing but days of the journal", async () => {
    await expect(limited.query("select ancrage.drop_partition('subscriptions', '2026-11-24')")).rejects.toMatchObject({ code: "22023" });
    await expect(limited.query("select ancrage.drop_partition('messages', '1999-01-01')")).resolves.toBeDefined();
  });
});

/** Waits until somebody waits for a lock on the journal, and then does not any more. */
async function untilTried(): Promise<void> {
  const waits = `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%drop_partition%'`;
  while ((await count(waits)) === 0);
  while ((await count(waits)) > 0);
}

/** Writes as the journal does, all the time. `stop` says how long the slowest one took. */
function watchInserts(): { readonly stop: () => Promise<number> } {
  const stopping = new AbortController();
  let slowestMs = 0;
  const running = (async () => {
    for (let n = 0; !stopping.signal.aborted; n++) {
      const startedAt = performance.now();
      await pool.query(
        `insert into ancrage.messages values ('msg_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint, 10) || $1, 'default', 'e', '1', '0/1', '0/1', 0, now(), '{}')`,
        [String(n)],
      );
      slowestMs = Math.max(slowestMs, performance.now() - startedAt);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  })();
  return {
    stop: async () => {
      stopping.abort();
      await running;
      if (process.env["LOG"] !== undefined) process.stderr.write(`slowest insert: ${slowestMs.toFixed(0)} ms\n`);
      return slowestMs;
    },
  };
}
