import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { defineEvent } from "../../src/event/define.ts";
import { track } from "../../src/event/track.ts";
import { startSystem, type System } from "./system.ts";

/** Mended in the middle of a test, as by a restart with new code. */
let isBroken = true;
const breaks = (where: string, label: unknown): void => {
  if (isBroken && label === where) throw new Error(`${where} is broken`);
};
const Paying = defineEvent({
  table: "item",
  on: "insert",
  schema: z.object({ label: z.string() }),
  payload(item, { reason, action }) {
    breaks("payload", item["label"]);
    return { label: `${String(item["label"])} ${reason} ${action}` };
  },
});
const Asking = defineEvent({
  table: "item",
  on: "insert",
  where(item) {
    breaks("where", item["label"]);
    return item["label"] === "where";
  },
  payload: (item) => ({ label: `asked ${String(item["label"])}` }),
});
const Handled = defineEvent({ table: "item", payload: (item) => ({ label: `handled ${String(item["label"])}` }) });
const Bulk = defineEvent({
  table: "bulk",
  on: "insert",
  payload(row) {
    if (isBroken) throw new Error("bulk is broken");
    return { id: row["id"] };
  },
});
const items = track("item", ({ after, key, trigger }) => {
  breaks("handler", after?.["label"]);
  if (after?.["label"] === "handler") trigger("Handled", key);
});

let system: System;
beforeAll(async () => {
  system = await startSystem({
    schema: `create table item (id integer generated always as identity primary key, label text not null);
      create table bulk (id integer generated always as identity primary key)`,
    events: { Paying, Asking, Handled, Bulk, items },
  });
  const { body } = await system.call("POST", "/v1/subscriptions", {
    events: ["Paying", "Asking", "Handled", "Bulk"],
    url: system.receiver.url,
    format: "bare",
  });
  await system.until(`select start_lsn is not null from ancrage.subscriptions where id = '${body.id}'`, true);
});
afterAll(() => system.close());

test("what is mended is sent under its first id: a payload, a rule, a handler; what still fails stays", async () => {
  for (const label of ["payload", "where", "handler"]) await system.rows("insert into item (label) values ($1)", [label]);
  await system.until("select count(*) from ancrage.rejections", 3);
  const { body: list } = await system.call("GET", "/v1/rejections");
  const idOf = (event: string): string => list.data.find((one: { readonly event: string }) => one.event === event).id as string;

  const failed = await system.call("POST", `/v1/rejections/${idOf("Paying")}/retry`);
  expect(failed).toMatchObject({ status: 200, body: { outcome: "rejected", reason: "payload-threw" } });
  isBroken = false;
  for (const [event, body] of [
    ["Paying", '{"label":"payload change insert"}'],
    ["Asking", '{"label":"asked where"}'],
    ["items", '{"label":"handled handler"}'],
  ] as const) {
    const id = idOf(event);
    const retried = await system.call("POST", `/v1/rejections/${id}/retry`);
    expect({ event, ...retried }).toMatchObject({ event, status: 200, body: { outcome: "messages" } });
    const [messageId] = retried.body.messageIds as string[];
    // A handler's rejection is that of its file: only the hash at the end of the event's own id is another one.
    const same = event === "items" ? id.length - 13 : id.length;
    expect(messageId?.slice(4, same)).toBe(id.slice(4, same));
    await system.receiver.until((all) => all.some((one) => one.body === body && one.headers["webhook-id"] === messageId));
    expect((await system.call("POST", `/v1/rejections/${id}/retry`)).status).toBe(404);
  }
  expect(await system.rows("select 1 from ancrage.rejections")).toEqual([]);
  isBroken = true;
});

test("an event that is parked runs again once a retry has seen that it works; each of its changes arrives once", async () => {
  await system.rows("insert into bulk select from generate_series(1, 1001)");
  await system.until("select count(*) from ancrage.rejections where event = 'Bulk'", 1001);
  expect((await system.call("GET", "/v1/status")).body.problems).toMatchObject([{ code: "event-parked" }]);
  isBroken = false;
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "retry", event: "Bulk" });
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  expect((await system.call("GET", `/v1/jobs/${job.id}`)).body).toMatchObject({ total: 1001, done: 1001, failed: 0 });
  expect((await system.call("GET", "/v1/status")).body.problems).toEqual([]);
  await system.rows("insert into bulk default values");
  const arrived = await system.receiver.until((all) => all.filter(({ body }) => body.startsWith('{"id"')).length === 1002);
  expect(new Set(arrived.filter(({ body }) => body.startsWith('{"id"')).map(({ body }) => body)).size).toBe(1002);
  expect(await system.rows("select 1 from ancrage.rejections")).toEqual([]);
});
