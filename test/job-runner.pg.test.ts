import type pg from "pg";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { systemClock } from "../src/clock.ts";
import type { Catalogue } from "../src/event/catalogue.ts";
import { JobRunner } from "../src/job/runner.ts";
import type { PayloadDeps } from "../src/payload/build.ts";
import { createPool } from "../src/store/database.ts";
import { insertJob, readJob } from "../src/store/jobs.ts";
import { readTables } from "../src/store/tables.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

/** What goes wrong around the end of a job, each in the moment that a test picks. */

let database: TestDatabase;
let pool: pg.Pool;
let runner: JobRunner | undefined;
const dropped: string[] = [];
beforeAll(async () => {
  database = await cloneDatabase();
  pool = createPool({ connectionString: database.url, applicationName: "test", size: 10, onIdleError: () => undefined });
  await pool.query(
    `insert into ancrage.subscriptions (id, project, events, url, secrets) select id, 'default', '{E}', 'http://localhost', '[]'
     from unnest(array['sub_A', 'sub_B', 'sub_1', 'sub_2', 'sub_3', 'sub_4']) id`,
  );
  await pool.query("select ancrage.ensure_partitions((now() at time zone 'UTC')::date)");
});
afterEach(async () => {
  await runner?.stop();
  dropped.length = 0;
});
afterAll(async () => {
  await pool.end();
  await database.remove();
});

function start(db = pool, catalogue = {} as Catalogue): void {
  const nothing = (): void => undefined;
  runner = new JobRunner({
    db,
    reads: db,
    sourceId: "test",
    catalogue,
    payload: {} as PayloadDeps,
    unpark: nothing,
    onCanceled: nothing,
    wake: nothing,
    dropLane: (jobId) => dropped.push(jobId),
    passedLsn: () => 1n << 63n,
    clock: systemClock,
    log: pino({ level: "silent" }),
  });
  runner.start();
}

/** The pool, with something that happens before each statement. */
function around(before: (text: string, values: readonly unknown[]) => Promise<void>): pg.Pool {
  const query = pool.query.bind(pool) as (...args: unknown[]) => Promise<unknown>;
  return Object.assign(Object.create(pool) as pg.Pool, {
    async query(text: string, values: readonly unknown[]) {
      await before(text, values);
      return query(text, values);
    },
  });
}

const replayOf = (subscriptionId: string) => {
  const input = { kind: "replay", events: ["E"], from: new Date(0).toISOString(), to: new Date().toISOString(), again: false };
  return insertJob(pool, { project: "default", kind: "replay", subscriptionId, input });
};
const leave = (subscriptionId: string, jobId: string, state = "retrying") =>
  pool.query(
    `insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, next_attempt_at, updated_at, job_id)
     values ('msg_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint, 10) || repeat('0', 46), $1, 'default', $3, 1, 1,
       now() + interval '1 h', now(), $2)`,
    [subscriptionId, jobId, state],
  );
const stateOf = async (jobId: string): Promise<unknown> =>
  (await pool.query<{ state: string }>("select state from ancrage.deliveries where job_id = $1", [jobId])).rows[0]?.state;
const until = async (isSo: () => Promise<boolean>): Promise<void> => {
  while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 10));
};

test("a job that is canceled in the moment in which it ends is canceled: what it made ends with it", async () => {
  const { id } = await replayOf("sub_A");
  await leave("sub_A", id);
  const between = around(async (text, values) => {
    if (text.includes("set state = $2") && values[1] === "done")
      await pool.query("update ancrage.jobs set state = 'canceled', ended_at = now() where id = $1", [id]);
  });
  start(between);
  await until(async () => (await stateOf(id)) === "canceled");
  expect(dropped).toContain(id);
  expect(await readJob(pool, id, undefined)).toMatchObject({ state: "canceled" });
});

test("what a job of before left is cleared up while the next ones run", async () => {
  const left = await replayOf("sub_B");
  await pool.query("update ancrage.jobs set state = 'canceled' where id = $1", [left.id]);
  await leave("sub_B", left.id);
  await pool.query("insert into ancrage.job_records (job_id, number, key) values ($1, 1, '1')", [left.id]);
  const next = await replayOf("sub_A");
  // As the journal may have it in its hands: it is passed over until that has let it go.
  const holder = await pool.connect();
  await holder.query("begin");
  await holder.query("select from ancrage.deliveries where job_id = $1 for update", [left.id]);
  start();
  await until(async () => (await readJob(pool, next.id, undefined))?.state === "done");
  expect(await stateOf(left.id)).toBe("retrying");
  await holder.query("rollback");
  holder.release();
  await until(async () => (await stateOf(left.id)) === "canceled");
  await until(async () => (await pool.query("select from ancrage.job_records")).rowCount === 0);
});

test("jobs whose receivers take nothing keep no other one waiting; where the subscription is disabled its job fails", async () => {
  const held: string[] = [];
  for (const subscriptionId of ["sub_1", "sub_2", "sub_3", "sub_4"]) {
    const { id } = await replayOf(subscriptionId);
    await leave(subscriptionId, id, "pending");
    held.push(id);
  }
  const behind = await replayOf("sub_1");
  const input = { kind: "cancel", from: new Date(0).toISOString(), to: new Date(0).toISOString() };
  const cancel = await insertJob(pool, { project: "default", kind: "cancel", subscriptionId: "sub_1", input });
  const next = await replayOf("sub_A");
  start();
  for (const { id } of [cancel, next]) await until(async () => (await readJob(pool, id, undefined))?.state === "done");
  for (const id of held) expect(await readJob(pool, id, undefined)).toMatchObject({ state: "running" });
  expect(await readJob(pool, behind.id, undefined)).toMatchObject({ state: "waiting" });
  await pool.query("update ancrage.subscriptions set state = 'disabled', state_reason = 'gone' where id = 'sub_2'");
  await until(async () => (await readJob(pool, held[1] ?? "", undefined))?.state === "failed");
  expect(await readJob(pool, held[1] ?? "", undefined)).toMatchObject({ error: expect.stringContaining("sub_2 was disabled (gone)") });
});

test("a job whose work cannot be counted in time begins without a number; one that cannot begin can be canceled", async () => {
  const timeout = Object.assign(new Error("canceling statement due to statement timeout"), { code: "57014" });
  const uncounted = await replayOf("sub_A");
  let held: string | undefined;
  start(
    around(async (text) => {
      if (text.includes("as meant")) throw timeout;
      // What a range is read with, before anything is counted.
      if (held === undefined || !text.includes("ancrage.base32(")) return;
      await pool.query("update ancrage.jobs set state = 'canceled', ended_at = now() where id = $1", [held]);
      throw timeout;
    }),
  );
  await until(async () => (await readJob(pool, uncounted.id, undefined))?.state === "done");
  expect(await readJob(pool, uncounted.id, undefined)).toMatchObject({ total: null });
  held = (await replayOf("sub_B")).id;
  runner?.wake();
  await until(async () => dropped.includes(held ?? ""));
});

const waiting = async (event: string): Promise<boolean> =>
  (await pool.query("select from pg_stat_activity where datname = current_database() and state = 'active' and wait_event = $1", [event]))
    .rowCount === 1;

test("a stop does not wait for the keys of a backfill, and their session ends with it", async () => {
  await pool.query("create table item (id integer primary key); insert into item values (1)");
  const table = (await readTables(database.client)).find(({ name }) => name === "item")!;
  const input = { kind: "backfill", event: "E", where: "pg_sleep(50) is not null" };
  const { id } = await insertJob(pool, { project: "default", kind: "backfill", subscriptionId: "sub_A", input });
  start(pool, { events: new Map([["E", { name: "E", table }]]) } as unknown as Catalogue);
  await until(() => waiting("PgSleep"));
  await runner?.stop();
  await until(async () => !(await waiting("PgSleep")));
  expect(await readJob(pool, id, undefined)).toMatchObject({ state: "waiting", pages: 0 });
  await pool.query("delete from ancrage.jobs where id = $1", [id]);
}, 15_000);

test("a stop waits for the one rejection that is built again, and begins no other", async () => {
  await pool.query(
    `insert into ancrage.rejections (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, reason, error, occurrence)
     select 'rej_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint, 10) || repeat('0', 45) || number,
       'default', 'E', '1', '0/1', '0/1', 0, now(), 'journal-refused', 'before', $1 from generate_series(1, 2) number`,
    [Buffer.from(`{"kind":"message","body":"e30="}`)],
  );
  const holder = await pool.connect();
  await holder.query("begin");
  await holder.query("select from ancrage.rejections order by id limit 1 for update");
  const input = { kind: "retry", from: new Date(0).toISOString(), to: new Date().toISOString() };
  await insertJob(pool, { project: "default", kind: "retry", subscriptionId: undefined, input });
  start(pool, { events: new Map(), tables: new Map() } as unknown as Catalogue);
  await until(() => waiting("transactionid"));
  const stopped = runner?.stop();
  await holder.query("rollback");
  holder.release();
  await stopped;
  expect((await pool.query("select from ancrage.rejections")).rowCount).toBe(1);
});

test("a filter is asked of large bodies a few at a time, and the page ends at what was read", async () => {
  await pool.query("truncate ancrage.messages, ancrage.deliveries, ancrage.jobs, ancrage.rejections");
  await pool.query(
    `insert into ancrage.batches (source, number, epoch, journaled_commit_lsn, journaled_change_lsn, journaled_ordinal, settled_commit_lsn,
       settled_change_lsn, settled_ordinal, end_lsn) values ('test', 1, 1, '0/2', '0/2', 0, '0/2', '0/2', 0, '0/2')`,
  );
  await pool.query(
    `insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
     select 'msg_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint, 10) || lpad(n::text, 46, '0'), 'default', 'E', n::text,
       '0/1', '0/1', n, now(), convert_to(json_build_object('n', n, 'text', repeat('x', 1048000))::text, 'UTF8')
     from generate_series(1, 40) n`,
  );
  await pool.query(`update ancrage.subscriptions set created_at = to_timestamp(0), filter = '{"n": {"gt": 30}}' where id = 'sub_A'`);
  const reads: number[] = [];
  const query = pool.query.bind(pool) as (...args: unknown[]) => Promise<unknown>;
  const counted = Object.assign(Object.create(pool) as pg.Pool, {
    async query(...args: [string | pg.QueryConfig<[string[]]>, ...unknown[]]) {
      const [asked] = args;
      if (typeof asked === "object" && asked.name === "ancrage messages") reads.push(asked.values?.[0].length ?? 0);
      return query(...args);
    },
  });
  const { id } = await replayOf("sub_A");
  start(counted);
  // Two with messages, and the one that finds no more.
  await until(async () => (await readJob(pool, id, undefined))?.pages === 3);
  expect(reads).toEqual(Array(10).fill(4));
  expect(await readJob(pool, id, undefined)).toMatchObject({ done: 10 });
});
