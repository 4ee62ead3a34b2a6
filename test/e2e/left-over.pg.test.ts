import { Writable } from "node:stream";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import type { Answer, ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

/** What is left to be dealt with long after: jobs that failed, rejections of subscriptions that were changed since, deliveries that expire. */
let isBroken = false;
const ItemAdded = defineEvent({
  table: "item",
  on: "insert",
  payload(item) {
    if (isBroken) throw new Error("broken");
    return { id: item["id"], size: item["size"] };
  },
});
const Other = defineEvent({ table: "other", on: "insert", payload: (row) => ({ id: row["id"] }) });

const logged: string[] = [];
const log = pino({ level: "warn" }, new Writable({ write: (line, _, done) => (logged.push(String(line)), done()) }));

let system: System;
beforeAll(async () => {
  system = await startSystem({
    schema: `create table item (id integer generated always as identity primary key, size integer not null default 1);
      create table other (id integer generated always as identity primary key)`,
    events: { ItemAdded, Other },
    internals: { log },
  });
});
afterAll(() => system.close());
beforeEach(() => {
  isBroken = false;
  logged.length = 0;
  system.receiver.answer(200);
});

async function subscribe(path: string, more: object = {}): Promise<string> {
  const asked = { event: "ItemAdded", url: system.receiver.url + path, format: "bare", ...more };
  const { body, status } = await system.call("POST", "/v1/subscriptions", asked);
  expect({ status, body }).toMatchObject({ status: 201 });
  await system.until(`select start_lsn is not null from ancrage.subscriptions where id = '${body.id}'`, true);
  return body.id as string;
}
const bodiesAt = (at: string): readonly string[] => system.receiver.requests.filter(({ path }) => path === at).map(({ body }) => body);
const today = new Date().toISOString().slice(0, 10).replaceAll("-", "");
/** What it did is in the journal: nothing is fanned out from before any more. */
async function settle(): Promise<void> {
  const [row] = await system.rows<{ id: number }>("insert into other default values returning id");
  await system.receiver.until(() => bodiesAt("/settle").includes(JSON.stringify(row)));
  const [here] = await system.rows<{ lsn: string }>(
    "select commit_lsn::text as lsn from ancrage.messages where event = 'Other' order by id desc limit 1",
  );
  await system.until(`select settled_commit_lsn >= '${here?.lsn}' from ancrage.batches order by number desc limit 1`, true);
}

test("a rejection that is built again goes to each subscription as it was back then, however often it was changed since", async () => {
  await subscribe("/settle", { event: "Other" });
  const filtered = await subscribe("/filtered", { filter: { size: 1 } });
  const moved = await subscribe("/moved");
  const unwilling = await subscribe("/unwilling", { filter: { size: 9 } });
  isBroken = true;
  await system.rows("insert into item default values");
  await system.until("select count(*) from ancrage.rejections", 1);
  await settle();
  // Each changed twice, with what comes before the first one settled: of its past nobody else would need the first.
  for (const size of [2, 3]) {
    await system.call("PATCH", `/v1/subscriptions/${filtered}`, { filter: { size } });
    await system.call("PATCH", `/v1/subscriptions/${unwilling}`, { filter: { size: size === 2 ? 8 : 1 } });
    await system.call("PATCH", `/v1/subscriptions/${moved}`, { event: "Other", filter: { id: -size } });
    await settle();
  }
  await subscribe("/later");
  const [former] = await system.rows<{ count: string }>("select count(*) from ancrage.subscription_starts where passed_at is not null");
  expect(Number(former?.count)).toBe(3);
  isBroken = false;
  const { body } = await system.call("GET", "/v1/rejections");
  expect(await system.call("POST", `/v1/rejections/${body.data[0].id}/retry`)).toMatchObject({
    status: 200,
    body: { outcome: "messages" },
  });
  await system.receiver.until(() => bodiesAt("/filtered").length + bodiesAt("/moved").length === 2);
  expect([bodiesAt("/filtered"), bodiesAt("/moved")]).toEqual([['{"id":1,"size":1}'], ['{"id":1,"size":1}']]);
  const to = await system.rows(
    "select subscription_id from ancrage.deliveries d join ancrage.messages m on m.id = message_id where event = 'ItemAdded'",
  );
  expect(to.map((row) => (row as { readonly subscription_id: string }).subscription_id).toSorted()).toEqual([filtered, moved].toSorted());
});

test("a day without its partition is nobody's fault: a retry is to be sent again, and a job waits for it", async () => {
  const id = await subscribe("/partition");
  isBroken = true;
  await system.rows("insert into item default values");
  await system.until("select count(*) from ancrage.rejections", 1);
  isBroken = false;
  const { body } = await system.call("GET", "/v1/rejections");
  const path = `/v1/rejections/${body.data[0].id}/retry`;
  const [bounds] = await system.rows<{ words: string }>(
    `select pg_get_expr(relpartbound, oid) as words from pg_class where oid = 'ancrage.messages_${today}'::regclass`,
  );
  await system.rows(`alter table ancrage.messages detach partition ancrage.messages_${today}`);
  expect(await system.call("POST", path)).toMatchObject({ status: 503, body: { code: "unavailable" } });
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "backfill", event: "ItemAdded", subscriptionId: id });
  const { body: retry } = await system.call("POST", "/v1/jobs", { kind: "retry" });
  for (const one of [job, retry])
    await expect.poll(() => logged.join("\n"), { timeout: 10_000 }).toContain(one === retry ? "a job waits: the database" : one.id);
  await system.rows(`alter table ancrage.messages attach partition ancrage.messages_${today} ${bounds?.words}`);
  for (const one of [job, retry]) await system.until(`select state from ancrage.jobs where id = '${one.id}'`, "done");
  expect((await system.call("GET", `/v1/jobs/${job.id}`)).body).toMatchObject({ done: 2, failed: 0, error: null });
  expect((await system.call("GET", `/v1/jobs/${retry.id}`)).body).toMatchObject({ done: 1, failed: 0 });
  expect(await system.rows("select 1 from ancrage.rejections")).toEqual([]);
});

test("what a job has made and is not over ends with it, also where it has failed, and where its process ended in between", async () => {
  const id = await subscribe("/failing");
  const held: (() => void)[] = [];
  system.receiver.answer((request: ReceivedRequest): Answer =>
    request.path === "/failing" ? (_, response) => held.push(() => response.writeHead(200).end()) : 200,
  );
  const asked = { kind: "backfill", event: "ItemAdded", subscriptionId: id, ratePerSecond: 1 };
  const { body: job } = await system.call("POST", "/v1/jobs", asked);
  await system.receiver.until(() => held.length > 0);
  await system.rows("alter table ancrage.job_records rename to job_records_away");
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "failed");
  await system.rows("alter table ancrage.job_records_away rename to job_records");
  await system.until(`select count(*) from ancrage.deliveries where job_id = '${job.id}' and state <> 'canceled'`, 0);
  expect((await system.call("GET", `/v1/jobs/${job.id}`)).body).toMatchObject({
    state: "failed",
    unfinished: 0,
    error: expect.any(String),
  });

  const { body: left } = await system.call("POST", "/v1/jobs", asked);
  const before = held.length;
  await system.receiver.until(() => held.length > before);
  await expire();
  // As a process leaves it that ends right after it has written that the job failed.
  await system.rows("update ancrage.jobs set state = 'failed', ended_at = now() where id = $1", [left.id]);
  await system.rows(
    "insert into ancrage.jobs (id, kind, input, state, ended_at) values ('job_OLD', 'retry', '{}', 'done', now() - interval '91 days')",
  );
  for (const release of held) release();
  await system.restart();
  await system.until(`select count(*) from ancrage.deliveries where job_id = '${left.id}' and state in ('pending', 'retrying')`, 0);
  await system.until("select count(*) from ancrage.jobs where id = 'job_OLD'", 0);
  expect((await system.call("GET", "/v1/jobs?limit=200")).body.data.map((one: { readonly id: string }) => one.id)).toContain(job.id);

  // A delivery that was still retried when its message's time was over: who subscribed to that is told.
  const [told] = await system.receiver.until((all) => all.some(({ path }) => path === "/expired")).then(() => bodiesAt("/expired"));
  expect(JSON.parse(told ?? "")).toMatchObject({
    project: "default",
    subscriptionId: id,
    deliveries: 1,
    fromMessageId: expect.stringMatching(/^msg_/),
  });
  expect(await system.rows("select event, key from ancrage.messages where event = 'delivery.expired'")).toEqual([
    { event: "delivery.expired", key: id },
  ]);

  /** A delivery of 40 days ago that no receiver has taken so far, and somebody who wants to know. */
  async function expire(): Promise<void> {
    await subscribe("/expired", { event: "delivery.expired" });
    await system.rows("select ancrage.ensure_partitions((now() at time zone 'UTC')::date - 40)");
    await system.rows(
      `with old as (select 'msg_' || ancrage.base32((extract(epoch from now() - interval '40 days') * 1000)::bigint, 10) || 'X' as id),
         made as (insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
           select id, 'default', 'ItemAdded', '1', '0/1', '0/1', 0, now() - interval '40 days', '{}' from old)
       insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, next_attempt_at, updated_at)
       select id, $1, 'default', 'retrying', 1, 9, now() + interval '1 day', now() from old`,
      [id],
    );
  }
});
