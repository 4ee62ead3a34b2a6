import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { defineEvent } from "../../src/event/define.ts";
import { track } from "../../src/event/track.ts";
import { startSystem, type System } from "./system.ts";

const Noted = defineEvent({
  data: z.object({ at: z.coerce.number() }),
  example: { key: "x", data: { at: 1 } },
  payload: ({ key, data }) => ({ key, data }),
});
const ItemTouched = defineEvent({
  table: "item",
  on: ["insert", { update: ["label"] }, "update"],
  where: (item) => item["is_wanted"] === true,
  payload: (item, { reason }) => ({ id: item["id"], label: item["label"], reason }),
});
const CustomerTouched = defineEvent({ table: "customer", payload: (customer, { reason }) => ({ name: customer["name"], reason }) });
/** Two handlers that name the same event, and one that names another table's record. */
const first = track("item", ({ key, after, trigger }) => {
  trigger("ItemTouched", key);
  trigger("ItemTouched", Number(key));
  const customer = after?.["customer_id"];
  if (typeof customer === "number") trigger("CustomerTouched", customer);
});
const second = track("item", ({ key, trigger }) => trigger("ItemTouched", key));

let system: System;
let app: pg.Client;
beforeAll(async () => {
  system = await startSystem({
    schema: `create table customer (id integer primary key, name text not null);
      create table item (id integer primary key, label text not null, is_wanted boolean not null default true, customer_id integer)`,
    events: { Noted, ItemTouched, CustomerTouched, first, second },
  });
  await system.call("POST", "/v1/subscriptions", {
    events: ["Noted", "ItemTouched", "CustomerTouched"],
    url: system.receiver.url,
    format: "bare",
  });
  app = await system.database.connect();
});
afterAll(() => system.close());
let seen = 0;
beforeEach(() => (seen = system.receiver.requests.length));

/** The bodies of what has come in this test, once all that was committed before has come to its end. */
async function arrived(): Promise<readonly unknown[]> {
  const { body } = await system.call("POST", "/v1/events/Noted/trigger", { key: "the end", data: { at: 0 } }, { prefer: "wait=20" });
  const requests = await system.receiver.until((all) => all.some(({ headers }) => headers["webhook-id"] === body.id));
  // Deliveries of one receiver overlap: the end may overtake what is under way.
  await system.until(
    "select count(*) from ancrage.messages m where not exists (select from ancrage.deliveries d where d.message_id = m.id and state = 'delivered')",
    0,
  );
  return requests
    .slice(seen)
    .filter(({ headers }) => headers["webhook-id"] !== body.id)
    .map((request) => JSON.parse(request.body) as unknown)
    .toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

test("a trigger is part of its transaction: it comes with the rows, and goes with a rollback", async () => {
  await app.query(`begin; insert into item values (1, 'a', false); select ancrage.trigger('Noted', 'kept', '{"at": "1"}'); commit`);
  await app.query(`begin; insert into item values (2, 'b'); select ancrage.trigger('Noted', 'lost', '{"at": 2}'); rollback`);
  await app.query(`begin; select ancrage.trigger('Noted', 'before', '{"at": 3}'); savepoint s; select ancrage.trigger('Noted', 'lost', '{"at": 4}');
    rollback to savepoint s; select ancrage.trigger('Noted', 'after', '{"at": 5}'); commit`);
  expect(await arrived()).toEqual([
    // Its own rule wants another item; the handlers name it all the same.
    { id: 1, label: "a", reason: "trigger" },
    { key: "after", data: { at: 5 } },
    { key: "before", data: { at: 3 } },
    { key: "kept", data: { at: 1 } },
  ]);
});

test("what ancrage.trigger did not sign is ignored and counted", async () => {
  const before = (await system.call("GET", "/v1/status")).body.details.ignoredTriggers;
  const content = `${"x".repeat(32)}{"id": "1", "event": "Noted", "key": "forged", "data": {"at": 1}, "xid": "1"}`;
  await app.query("create role outsider");
  await app.query("set role outsider");
  await app.query("select pg_logical_emit_message(true, 'ancrage.trigger', $1::text)", [content]);
  await app.query("select pg_logical_emit_message(true, 'ancrage.trigger', '')");
  await app.query("select pg_logical_emit_message(false, 'ancrage.trigger', $1::text)", [content]);
  await app.query("select pg_logical_emit_message(true, 'somebody.else', 'x')");
  await expect(app.query("select ancrage.trigger('Noted', 'x')")).rejects.toThrow("permission denied");
  await app.query("reset role");
  await app.query("drop role outsider");
  expect(await arrived()).toEqual([]);
  expect((await system.call("GET", "/v1/status")).body.details.ignoredTriggers).toBe(before + 3);
});

test("a role that may execute ancrage.trigger, and nothing else, can trigger", async () => {
  await app.query(`create role teller; grant usage on schema ancrage to teller;
    grant execute on function ancrage.trigger(text, text, jsonb) to teller; set role teller`);
  await expect(app.query("select * from ancrage.settings")).rejects.toThrow("permission denied");
  await app.query(`select ancrage.trigger('Noted', 'told', '{"at": 7}')`);
  await app.query("reset role");
  await app.query("drop owned by teller; drop role teller");
  expect(await arrived()).toEqual([{ key: "told", data: { at: 7 } }]);
});

test("data that the event's schema refuses is a rejection", async () => {
  await app.query(`select ancrage.trigger('Noted', 'bad', '{"at": "soon"}'), ancrage.trigger('Noted', 'none')`);
  expect(await arrived()).toEqual([]);
  expect(await system.rows("select key, reason from ancrage.rejections where event = 'Noted' order by key")).toEqual([
    { key: "bad", reason: "data-invalid" },
    { key: "none", reason: "data-invalid" },
  ]);
});

test("a trigger over HTTP answers with the message, with what came of it, or at once", async () => {
  await app.query("insert into customer values (7, 'Colombe')");
  const waited = await system.call("POST", "/v1/events/CustomerTouched/trigger", { key: 7 }, { prefer: "wait=20" });
  expect(waited).toMatchObject({ status: 200, body: { event: "CustomerTouched", key: "7" } });
  const missing = await system.call("POST", "/v1/events/CustomerTouched/trigger", { key: "8" }, { prefer: "wait=20" });
  expect(missing).toMatchObject({ status: 202, body: { outcome: "rejected", rejectionId: expect.stringMatching(/^rej_/) } });
  expect(await system.rows("select reason from ancrage.rejections where id = $1", [missing.body.rejectionId])).toEqual([
    { reason: "record-missing" },
  ]);
  expect(await system.call("POST", "/v1/events/CustomerTouched/trigger", { key: "7" })).toMatchObject({
    status: 202,
    body: { trigger: expect.any(String) },
  });
  expect((await system.call("POST", "/v1/events/CustomerTuched/trigger", { key: "7" })).status).toBe(404);
  expect(await arrived()).toEqual([
    { name: "Colombe", reason: "trigger" },
    { name: "Colombe", reason: "trigger" },
  ]);
});

test("a handler makes an event happen for another table's record, which its transaction wrote too", async () => {
  await app.query("begin; insert into item values (20, 'x', false, 21); insert into customer values (21, 'Paloma'); commit");
  expect(await arrived()).toEqual([
    { id: 20, label: "x", reason: "trigger" },
    { name: "Paloma", reason: "trigger" },
  ]);
});

test("at most once for one change, event and key; two triggers are two occurrences", async () => {
  await app.query("insert into item values (30, 'one')");
  await app.query("update item set label = 'two' where id = 30");
  await app.query("begin; update item set label = 'three' where id = 30; update item set label = 'four' where id = 30; commit");
  const { rows } = await app.query<{ a: string; b: string }>(
    `select ancrage.trigger('ItemTouched', '30') as a, ancrage.trigger('ItemTouched', '30') as b`,
  );
  expect(rows[0]!.a).not.toBe(rows[0]!.b);
  const requests = await arrived();
  expect(requests).toEqual([
    { id: 30, label: "four", reason: "change" },
    { id: 30, label: "four", reason: "trigger" },
    { id: 30, label: "four", reason: "trigger" },
    { id: 30, label: "one", reason: "change" },
    { id: 30, label: "three", reason: "change" },
    { id: 30, label: "two", reason: "change" },
  ]);
  const ids = system.receiver.requests.map(({ headers }) => headers["webhook-id"]);
  expect(new Set(ids).size).toBe(ids.length);
});
