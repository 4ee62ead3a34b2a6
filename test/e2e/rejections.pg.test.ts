import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import type { TestSignal } from "../../src/test-signal.ts";
import { defineEvent } from "../../src/event/define.ts";
import { track } from "../../src/event/track.ts";
import { startSystem, type System } from "./system.ts";

const fails = (word: string, label: unknown): void => {
  if (label === word) throw new Error(`${word} it is`);
};
const Good = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });
const Throwing = defineEvent({
  table: "item",
  on: "insert",
  payload(item) {
    fails("payload", item["label"]);
    return undefined;
  },
});
const Choosy = defineEvent({
  table: "item",
  on: "insert",
  schema: z.object({ label: z.string().max(10) }),
  payload: (item) => ({ label: item["label"] as string }),
});
const Asking = defineEvent({
  table: "item",
  on: "insert",
  where(item) {
    fails("where", item["label"]);
    return false;
  },
  payload: () => undefined,
});
const Broken = defineEvent({
  table: "broken",
  on: "insert",
  payload(row): unknown {
    throw new Error(`never for ${String(row["id"])}`);
  },
});
const Loading = defineEvent({
  table: "deal",
  on: "insert",
  payload: async (deal, { load }) => ({ customer: (await load("customer", deal["customer_id"]))?.["name"] }),
});
const items = track("item", ({ after, key, trigger }) => {
  fails("handler", after?.["label"]);
  // Its own rule threw, and it is made to happen all the same.
  if (after?.["label"] === "where" && after["is_forced"] === true) trigger("Asking", key);
  if (after?.["label"] === "odd key") trigger("Good", "1\0");
});

let system: System;
let signal: TestSignal = () => undefined;
beforeAll(async () => {
  system = await startSystem({
    schema: `create table item (id integer generated always as identity primary key, label text not null, is_forced boolean not null default false);
      create table broken (id integer generated always as identity primary key);
      create table customer (id integer primary key, name text not null);
      create table deal (id integer generated always as identity primary key, customer_id integer);
      insert into customer values (1, 'Colombe')`,
    events: { Good, Throwing, Choosy, Asking, Broken, Loading, items },
    internals: { signal: (name, detail) => signal(name, detail) },
  });
  await system.call("POST", "/v1/subscriptions", { events: ["Good", "Loading"], url: system.receiver.url, format: "bare" });
});
afterAll(() => system.close());

interface Rejected {
  readonly event: string;
  readonly key: string;
  readonly reason: string;
  readonly error: string;
}

test("each way of being rejected is a row with its reason, and the log goes on", async () => {
  const labels = ["payload", "much too long for it", "where", "handler", "odd key"];
  for (const label of labels) await system.rows("insert into item (label) values ($1)", [label]);
  await system.rows("insert into item (label, is_forced) values ('where', true)");
  await system.rows("select ancrage.trigger('Good', '999'), ancrage.trigger('Good', 'no number'), ancrage.trigger('Godo', '1')");
  await system.rows("insert into item (label) values ('fine')");
  await system.receiver.until((all) => all.length === labels.length + 2);

  const rejections = await system.rows<Rejected>(
    "select event, key, reason, convert_from(error, 'UTF8') as error from ancrage.rejections order by commit_lsn, change_lsn, event",
  );
  expect(rejections.map(({ event, key, reason }) => `${event} ${key} ${reason}`)).toEqual([
    "Throwing 1 payload-threw",
    "Choosy 2 schema-refused",
    "Asking 3 where-threw",
    "items 4 handler-threw",
    "Good 1\uFFFD record-missing",
    "Good 999 record-missing",
    "Good no number record-missing",
    "Godo 1 event-unknown",
  ]);
  expect(rejections.map(({ error }) => error)).toEqual([
    expect.stringContaining("payload it is"),
    expect.stringContaining("label: "),
    expect.stringContaining("where it is"),
    expect.stringContaining("handler it is"),
    expect.stringContaining("item has no record"),
    expect.stringContaining('item has no record with the key "999"'),
    expect.stringContaining('item has no record with the key "no number"'),
    expect.stringContaining('"Godo"'),
  ]);
  expect((await system.call("GET", "/v1/rejections")).body.data.length).toBe(rejections.length);
});

test("after a thousand rejections in a row an event is parked, and the status says so; the others go on", async () => {
  await system.rows("insert into broken select from generate_series(1, 1001)");
  await system.rows("insert into item (label) values ('fine')");
  await system.until("select count(*) from ancrage.rejections where event = 'Broken'", 1001);
  await expect
    .poll(async () => (await system.call("GET", "/v1/status")).body)
    .toMatchObject({
      isReady: true,
      problems: [{ code: "event-parked", message: expect.stringContaining("Broken") }],
    });

  await system.rows("insert into broken default values");
  await system.rows("insert into item (label) values ('fine')");
  await system.until("select count(*) from ancrage.rejections where event = 'Broken'", 1002);
  expect(
    await system.rows("select reason, count(*)::integer as count from ancrage.rejections where event = 'Broken' group by 1 order by 1"),
  ).toEqual([
    { reason: "event-parked", count: expect.any(Number) },
    { reason: "payload-threw", count: expect.any(Number) },
  ]);
  expect(
    await system.rows("select 1 from ancrage.rejections where event = 'Broken' and key = '1002' and reason = 'event-parked'"),
  ).toHaveLength(1);
  await system.until("select count(*) from ancrage.messages where event = 'Good'", 9);
});

test("a database that cannot be read rejects nothing: the batch is built again", async () => {
  const locker = await system.database.connect();
  await locker.query("begin; lock table customer in access exclusive mode");
  const rebuilding = new Promise<void>((resolve) => (signal = (name) => void (name === "rebuilding" && resolve())));
  await system.rows("insert into deal (customer_id) values (1)");
  const blocked =
    "from pg_stat_activity where datname = current_database() and application_name = 'ancrage reads' and wait_event_type = 'Lock'";
  await system.until(`select count(*) ${blocked}`, 1);
  await system.rows(`select pg_terminate_backend(pid) ${blocked}`);
  await rebuilding;
  await locker.query("rollback");
  await system.receiver.until((all) => all.some(({ body }) => body === '{"customer":"Colombe"}'));
  expect(await system.rows("select 1 from ancrage.rejections where event = 'Loading'")).toEqual([]);
  expect(await system.rows("select 1 from ancrage.messages where event = 'Loading'")).toHaveLength(1);
});
