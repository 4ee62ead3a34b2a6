import pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Backlog } from "../src/backlog.ts";
import { countDueDeliveries, readDueLanes } from "../src/store/resume.ts";
import { createRegistry } from "../src/subscription/registry.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
let pool: pg.Pool;
beforeAll(async () => {
  database = await cloneDatabase();
  pool = new pg.Pool({ connectionString: database.url, application_name: "test" });
  await pool.query("select ancrage.ensure_partitions(current_date - 1), ancrage.ensure_partitions(current_date)");
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
  expect(await countDueDeliveries(pool, { subscriptionId: "sub_PENDING" }, 10)).toBe(3);
  expect(await countDueDeliveries(pool, { subscriptionId: "sub_PENDING" }, 2)).toBe(2);
  expect(await countDueDeliveries(pool, { subscriptionId: "sub_LATER" }, 10)).toBe(0);
  expect(await countDueDeliveries(pool, { subscriptionId: "sub_JOB", jobId: "job_1" }, 10)).toBe(1);
});

test("a refill reads no more bodies than a few MiB, leaves out what is in memory, and says whether there is more", async () => {
  await leave("sub_LARGE", 12, { bytes: 1_000_000 });
  const inMemory = new Set<string>();
  const backlog = new Backlog({
    db: pool,
    registry: createRegistry(),
    dispatcher: { heldBy: () => inMemory.size, wake: () => undefined },
    flushed: () => Promise.resolve(),
    log: pino({ level: "silent" }),
  });
  const sizes: number[] = [];
  for (let isAll = false; !isAll;) {
    const refill = await backlog.refill({
      lane: { subscriptionId: "sub_LARGE" },
      order: "none",
      limit: 1_000,
      whereIs: (id) => (inMemory.has(id) ? "held" : undefined),
    });
    isAll = refill.isAll;
    sizes.push(refill.deliveries.length);
    for (const { message, hasRow, state } of refill.deliveries) {
      expect({ isNew: !inMemory.has(message.id), hasRow, state }).toEqual({ isNew: true, hasRow: true, state: "pending" });
      inMemory.add(message.id);
    }
  }
  expect(sizes).toEqual([4, 4, 4]);
  await backlog.stop();
});
