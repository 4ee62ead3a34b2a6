import type pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Backlog } from "../src/backlog.ts";
import { createPool } from "../src/store/database.ts";
import { readDueIds, readDueLanes } from "../src/store/resume.ts";
import { createRegistry } from "../src/subscription/registry.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { subscription } from "./dispatcher-world.ts";

let database: TestDatabase;
let pool: pg.Pool;
beforeAll(async () => {
  database = await cloneDatabase();
  pool = createPool({ connectionString: database.url, applicationName: "test", size: 4, onIdleError: () => undefined });
  await pool.query(
    "select ancrage.ensure_partitions((now() at time zone 'UTC')::date - 1), ancrage.ensure_partitions((now() at time zone 'UTC')::date)",
  );
});
afterAll(async () => {
  await pool.end();
  await database.remove();
});

/** Some of yesterday and some of today, so that they stand in two partitions. */
async function leave(
  subscriptionId: string,
  count: number,
  given: { state?: string; dueInS?: number; bytes?: number } = {},
): Promise<void> {
  await pool.query(
    `with made as (
       insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
       select 'msg_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint - (i % 2) * 86400000, 10) || rpad($1, 40, 'X') || lpad(i::text, 6, '0'),
         'default', 'ItemCreated', i::text, '0/1', '0/1', i, now(), convert_to(repeat('x', $5::integer), 'UTF8')
       from generate_series(1, $2::integer) as i returning id
     )
     insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, next_attempt_at, updated_at)
     select id, $1, 'default', $3::ancrage.delivery_state, 1, 0, now() + $4::integer * interval '1 s', now() from made`,
    [subscriptionId, count, given.state ?? "pending", given.dueInS ?? null, given.bytes ?? 2],
  );
}

/** Of a process that holds nothing, and whose lanes are all behind. */
const createBacklogOfBehind = (): Backlog =>
  new Backlog({
    db: pool,
    registry: createRegistry(),
    dispatcher: { heldBy: () => 0, wake: () => undefined, isHeld: () => false, isBehind: () => true },
    flushed: () => Promise.resolve(),
    log: pino({ level: "silent" }),
  });

test("the sweep finds each lane with something due, once, and no other", async () => {
  await leave("sub_PENDING", 3);
  await leave("sub_DUE", 2, { state: "retrying", dueInS: -1 });
  await leave("sub_LATER", 2, { state: "retrying", dueInS: 3_600 });
  await leave("sub_BOTH", 1, { state: "retrying", dueInS: 3_600 });
  await leave("sub_DONE", 2, { state: "delivered" });
  await leave("sub_JOB", 2);
  await pool.query("update ancrage.deliveries set next_attempt_at = now() where subscription_id = 'sub_BOTH'");
  await pool.query("update ancrage.deliveries set job_id = 'job_1' where subscription_id = 'sub_JOB' and right(message_id, 1) = '1'");
  const lanes = await readDueLanes(pool);
  expect(lanes.map(({ subscriptionId, jobId }) => `${subscriptionId} ${jobId ?? "-"}`)).toEqual([
    "sub_BOTH -",
    "sub_DUE -",
    "sub_JOB -",
    "sub_JOB job_1",
    "sub_PENDING -",
  ]);
  const count = async (subscriptionId: string, given: { jobId?: string; limit?: number; overdueS?: number } = {}): Promise<number> =>
    (await readDueIds(pool, { subscriptionId, jobId: given.jobId }, { limit: 10, overdueS: 0, ...given })).length;
  expect(await count("sub_PENDING")).toBe(3);
  expect(await count("sub_PENDING", { limit: 2 })).toBe(2);
  expect(await count("sub_PENDING", { overdueS: 60 })).toBe(0);
  expect(await count("sub_LATER")).toBe(0);
  expect(await count("sub_JOB", { jobId: "job_1" })).toBe(1);
});

test("a refill reads no more bodies than a few MiB, leaves out what is in memory, and says whether there is more", async () => {
  await leave("sub_LARGE", 12, { bytes: 1_000_000 });
  const inMemory = new Set<string>();
  const backlog = new Backlog({
    db: pool,
    registry: createRegistry(),
    dispatcher: { heldBy: () => inMemory.size, wake: () => undefined, isHeld: (_, id) => inMemory.has(id), isBehind: () => true },
    flushed: () => Promise.resolve(),
    log: pino({ level: "silent" }),
  });
  const sizes: number[] = [];
  let after = "";
  for (let isAll = false; !isAll;) {
    const refill = await backlog.refill({
      lane: { subscriptionId: "sub_LARGE" },
      order: "none",
      after,
      limit: 1_000,
      whereIs: (id) => (inMemory.has(id) ? "held" : undefined),
    });
    isAll = refill.isAll;
    after = refill.readTo ?? after;
    sizes.push(refill.deliveries.length);
    for (const { message, hasRow, state } of refill.deliveries) {
      expect({ isNew: !inMemory.has(message.id), hasRow, state }).toEqual({ isNew: true, hasRow: true, state: "pending" });
      inMemory.add(message.id);
    }
  }
  expect(sizes).toEqual([4, 4, 4]);
  await backlog.stop();
});

test("an ordered refill stops at what waits for its next attempt: all after it where all are in order, its record's where records are", async () => {
  await leave("sub_ORDERED", 6);
  // The keys are 1 to 6: as if 1, 3 and 5 were of one record.
  await pool.query(
    "update ancrage.messages set key = case when ordinal % 2 = 1 then 'odd' else 'even' end where id in (select message_id from ancrage.deliveries where subscription_id = 'sub_ORDERED')",
  );
  const places = await pool.query<{ message_id: string }>(
    "select message_id from ancrage.deliveries where subscription_id = 'sub_ORDERED' order by substr(message_id, 15)",
  );
  const ids = places.rows.map((row) => row.message_id);
  await pool.query(
    "update ancrage.deliveries set state = 'retrying', attempts = 1, next_attempt_at = now() + interval '1 h' where subscription_id = 'sub_ORDERED' and message_id = $1",
    [ids[2]],
  );
  const backlog = createBacklogOfBehind();
  const lane = { subscriptionId: "sub_ORDERED" };
  const read = async (order: "record" | "all"): Promise<readonly number[]> => {
    const refill = await backlog.refill({ lane, order, after: "", limit: 100, whereIs: () => undefined });
    expect(refill.isAll).toBe(false);
    expect(refill.dueInMs).toBeGreaterThan(3_500_000);
    return refill.deliveries.map(({ message }) => ids.indexOf(message.id));
  };
  // Yesterday's and today's are in turn in the order of positions.
  expect(await read("record")).toEqual([0, 1, 3, 5]);
  expect(await read("all")).toEqual([0, 1]);
  await backlog.stop();
});

test("what is due and that no lane holds is said, and taken up again", async () => {
  await leave("sub_LOST", 2);
  await pool.query("update ancrage.deliveries set updated_at = now() - interval '2 min' where subscription_id = 'sub_LOST'");
  const woken: string[] = [];
  const lines: string[] = [];
  const registry = createRegistry();
  registry.put({ ...subscription, id: "sub_LOST" });
  const backlog = new Backlog({
    db: pool,
    registry,
    dispatcher: { heldBy: () => 0, wake: (id) => woken.push(id), isHeld: () => false, isBehind: () => false },
    flushed: () => Promise.resolve(),
    log: pino({ level: "error" }, { write: (line) => void lines.push(line) }),
  });
  await backlog.sweep(true);
  expect(woken).toContain("sub_LOST");
  expect(lines.map((line) => JSON.parse(line) as object)).toContainEqual(expect.objectContaining({ subscriptionId: "sub_LOST", count: 1 }));
  lines.length = 0;
  await pool.query("update ancrage.deliveries set updated_at = now() where subscription_id = 'sub_LOST'");
  await backlog.sweep(true);
  expect(lines).toEqual([]);
  await backlog.stop();
});

test.each(["none", "record", "all"] as const)("what has no message any more does not stand before what has (order %s)", async (order) => {
  const lane = { subscriptionId: `sub_BODILESS${order.toUpperCase()}` };
  await leave(lane.subscriptionId, 12);
  // More than a page of them, at the head of the lane.
  await pool.query(
    `delete from ancrage.messages where ordinal <= 10 and id in (select message_id from ancrage.deliveries where subscription_id = $1)`,
    [lane.subscriptionId],
  );
  const backlog = createBacklogOfBehind();
  const found: string[] = [];
  let after = "";
  for (let isAll = false; !isAll && found.length < 2;) {
    const refill = await backlog.refill({ lane, order, after, limit: 5, whereIs: () => undefined });
    found.push(...refill.deliveries.map(({ message }) => message.key));
    ({ isAll } = refill);
    after = refill.readTo ?? after;
  }
  expect(found).toEqual(["11", "12"]);
  const { rows } = await pool.query(
    "select state, last_reason, count(*)::integer as count from ancrage.deliveries where subscription_id = $1 group by 1, 2 order by 1",
    [lane.subscriptionId],
  );
  expect(rows).toEqual([
    { state: "pending", last_reason: null, count: 2 },
    { state: "canceled", last_reason: "expired", count: 10 },
  ]);
});
