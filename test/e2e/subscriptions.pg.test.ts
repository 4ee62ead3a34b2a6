import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Webhook } from "standardwebhooks";
import { defineEvent } from "../../src/event/define.ts";
import type { SignalName } from "../../src/test-signal.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

const Changed = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"], amount: item["amount"] }) });
const Other = defineEvent({ table: "item", on: "insert", payload: (item) => ({ other: item["id"] }) });
const Broken = defineEvent({
  table: "broken",
  on: "insert",
  payload: () => {
    throw new Error("always");
  },
});

let system: System;
let onSignal: (name: SignalName) => void | Promise<void> = () => undefined;
beforeEach(async () => {
  onSignal = () => undefined;
  system = await startSystem({
    schema: "create table item (id integer primary key, amount numeric); create table broken (id integer primary key)",
    events: { Changed, Other, Broken },
    options: { retry: { schedule: [0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], jitter: 0 } },
    internals: { signal: (name) => onSignal(name) },
  });
});
afterEach(() => system.close());

const subscribe = async (over: object = {}): Promise<string> => {
  const { receiver } = system;
  const fields = { url: receiver.url, format: "bare", ...("events" in over ? {} : { event: "Changed" }), ...over };
  const { status, body } = await system.call("POST", "/v1/subscriptions", fields);
  expect(status).toBe(201);
  return body.id;
};
const insert = (id: number, amount = "1"): Promise<unknown> => system.rows("insert into item values ($1, $2)", [id, amount]);
const command = async (id: string, name: string, body?: object): Promise<number> =>
  (await system.call("POST", `/v1/subscriptions/${id}/${name}`, body)).status;
const bodies = (path = "/"): readonly unknown[] =>
  system.receiver.requests.filter((request) => request.path === path).map(({ body }) => JSON.parse(body) as unknown);
const idsAt = (path = "/"): readonly unknown[] => (bodies(path) as { readonly id: number }[]).map(({ id }) => id).toSorted((a, b) => a - b);
const arrived = (count: number, path = "/"): Promise<readonly ReceivedRequest[]> =>
  system.receiver.until((requests) => requests.filter((request) => request.path === path).length >= count);
const journaled = (event: string, count: number): Promise<void> =>
  system.until(`select count(*) from ancrage.messages where event = '${event}'`, count);

describe("what a subscription matches", () => {
  test("is exact by the log: what was committed before a change goes by what it was, also where it is read after it, and after a restart", async () => {
    const id = await subscribe({ filter: { amount: { lt: 10 } } });
    await insert(1, "5.00");
    await insert(2, "50.00");
    await arrived(1);
    await system.ancrage().stop();
    // Nobody reads the log now; another process takes the changes.
    const api = system.another();
    await insert(3, "6");
    await insert(4, "60");
    await api.subscriptions.update(id, { filter: { amount: { gte: 10 } } });
    await insert(5, "7");
    await insert(6, "70");
    await api.subscriptions.update(id, { event: "Other", filter: null });
    await insert(7, "8");
    await api.stop();
    await system.restart();
    await journaled("Changed", 7);
    await arrived(4);
    await system.restart();
    await system.until("select count(*) from ancrage.deliveries where state <> 'delivered'", 0);
    await system.until("select count(*) from ancrage.deliveries", 4);
    expect(bodies()).toEqual(
      expect.arrayContaining([{ id: 1, amount: "5.00" }, { id: 3, amount: "6" }, { id: 6, amount: "70" }, { other: 7 }]),
    );
    expect(bodies()).toHaveLength(4);
  });
});

describe("pausing", () => {
  test("nothing begins after it was answered; what came meanwhile is sent when it is resumed, also over a restart", async () => {
    const id = await subscribe();
    await insert(1);
    await arrived(1);
    expect(await command(id, "pause")).toBe(200);
    await insert(2);
    await journaled("Changed", 2);
    await system.restart();
    await insert(3);
    await journaled("Changed", 3);
    expect(idsAt()).toEqual([1]);
    expect(await command(id, "resume")).toBe(200);
    await arrived(3);
    expect(idsAt()).toEqual([1, 2, 3]);
  });

  test("by another process holds once that one has answered", async () => {
    const id = await subscribe();
    await insert(1);
    await arrived(1);
    const other = system.another();
    await other.subscriptions.pause(id);
    await insert(2);
    await journaled("Changed", 2);
    await other.subscriptions.update(id, { url: `${system.receiver.url}/moved` });
    await other.subscriptions.resume(id);
    await arrived(1, "/moved");
    expect(idsAt()).toEqual([1]);
    expect(idsAt("/moved")).toEqual([2]);
  });
});

describe("disabling", () => {
  test("a 410 disables, tells so whoever subscribed to that and not the one it is about; enabled again it goes on", async () => {
    system.receiver.answer(({ path }: ReceivedRequest) => (path === "/gone" ? 410 : 200));
    const id = await subscribe({ events: ["Changed", "subscription.disabled"], url: `${system.receiver.url}/gone` });
    await subscribe({ event: "subscription.disabled", url: `${system.receiver.url}/ops` });
    await insert(1);
    await arrived(1, "/ops");
    expect(bodies("/ops")).toEqual([
      {
        project: "default",
        subscriptionId: id,
        url: `${system.receiver.url}/gone`,
        events: ["Changed", "subscription.disabled"],
        reason: "gone",
        at: expect.stringMatching(/Z$/),
      },
    ]);
    expect((await system.call("GET", `/v1/subscriptions/${id}`)).body).toMatchObject({ state: "disabled", stateReason: "gone" });
    // While it is disabled nothing becomes its own.
    await insert(2);
    await journaled("Changed", 2);
    expect(await command(id, "pause")).toBe(409);
    system.receiver.answer(200);
    expect(await command(id, "enable")).toBe(200);
    await insert(3);
    await arrived(3, "/gone");
    await system.until(`select count(*) from ancrage.deliveries where subscription_id = '${id}' and state = 'delivered'`, 2);
    expect((bodies("/gone") as { readonly id: number }[]).map((body) => body.id)).toEqual([1, 1, 3]);
  });

  test("what somebody changes while it is being decided stays theirs", async () => {
    const id = await subscribe();
    system.receiver.answer(({ path }, response) => {
      if (path !== "/") return void response.writeHead(200).end();
      void system.call("PATCH", `/v1/subscriptions/${id}`, { url: `${system.receiver.url}/new` }).then(() => response.writeHead(410).end());
    });
    await insert(1);
    await arrived(1, "/new");
    await insert(2);
    await arrived(2, "/new");
    expect(idsAt("/new")).toEqual([1, 2]);
    expect((await system.call("GET", `/v1/subscriptions/${id}`)).body).toMatchObject({ state: "enabled" });
  });

  test("one whose time is over is disabled, and says so", async () => {
    await subscribe({ event: "subscription.disabled", url: `${system.receiver.url}/ops` });
    const id = await subscribe({ expiresAt: new Date(Date.now() + 1_500).toISOString() });
    await arrived(1, "/ops");
    expect(bodies("/ops")).toMatchObject([{ subscriptionId: id, reason: "expired" }]);
    await insert(1);
    await journaled("Changed", 1);
    expect(
      await system.rows("select 1 from ancrage.deliveries d join ancrage.messages m on m.id = message_id where event = 'Changed'"),
    ).toEqual([]);
  });

  test("how long a receiver has failed outlives a restart, and an enabling forgets it", async () => {
    system.receiver.answer(500);
    const id = await subscribe();
    await insert(1);
    await system.until("select count(*) from ancrage.subscription_health", 1);
    await system.ancrage().stop();
    await system.rows("update ancrage.subscription_health set failing_since = now() - interval '6 days', failures = 50");
    await system.restart();
    await insert(2);
    await system.until(`select state_reason from ancrage.subscriptions where id = '${id}'`, "failing");
    system.receiver.answer(200);
    expect(await command(id, "enable")).toBe(200);
    await system.until("select count(*) from ancrage.subscription_health", 0);
    const second = "select state from ancrage.deliveries d join ancrage.messages m on m.id = d.message_id where m.key = '2'";
    await system.until(second, "delivered");
  });
});

test("a parked event is told of in each project that has subscribed to it", async () => {
  await subscribe({ event: "event.parked", url: `${system.receiver.url}/ops` });
  await subscribe({ event: "event.parked", url: `${system.receiver.url}/acme`, project: "acme" });
  await system.rows("insert into broken select generate_series(1, 1100)");
  await arrived(1, "/ops");
  await arrived(1, "/acme");
  expect(bodies("/ops")).toMatchObject([{ project: "default", event: "Broken", rejections: 1_000 }]);
  expect(bodies("/acme")).toMatchObject([{ project: "acme", event: "Broken" }]);
});

test("what an actor that it ignores has changed is not sent to it, and is to others", async () => {
  await subscribe({ ignoredActors: ["integration:zapier"], url: `${system.receiver.url}/zapier` });
  await subscribe();
  await system.rows("with said as materialized (select ancrage.actor('integration:zapier')) insert into item select 1, 1 from said");
  await insert(2);
  await arrived(2);
  await arrived(1, "/zapier");
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", 3);
  expect([idsAt(), idsAt("/zapier")]).toEqual([[1, 2], [2]]);
});

test("headers of the receiver's own are sent, and a rotated secret signs beside the new one until its time is over", async () => {
  const { body } = await system.call("POST", "/v1/subscriptions", {
    event: "Changed",
    url: system.receiver.url,
    headers: { Authorization: "Bearer of-the-receiver" },
  });
  const rotated = await system.call("POST", `/v1/subscriptions/${body.id}/rotate-secret`, { graceHours: 0.0003 });
  await insert(1);
  const [first] = await arrived(1);
  expect(first?.headers).toMatchObject({ authorization: "Bearer of-the-receiver" });
  for (const secret of [body.secret, rotated.body.secret]) new Webhook(secret).verify(first?.body ?? "", { ...first?.headers });
  await system.until(`select jsonb_array_length(secrets) from ancrage.subscriptions where id = '${body.id}'`, 1);
  await insert(2);
  const last = (await arrived(2)).at(-1);
  new Webhook(rotated.body.secret).verify(last?.body ?? "", { ...last?.headers });
  expect(() => new Webhook(body.secret).verify(last?.body ?? "", { ...last?.headers })).toThrow("No matching signature");
});

test("a test is signed and sent with a sample, whatever the state is, and nothing of it is journaled", async () => {
  const { body } = await system.call("POST", "/v1/subscriptions", { event: "Changed", url: system.receiver.url });
  await insert(7, "5");
  await arrived(1);
  await command(body.id, "pause");
  const sent = await system.call("POST", `/v1/subscriptions/${body.id}/test`);
  expect(sent).toMatchObject({ status: 200, body: { event: "Changed", isDelivered: true, status: 200, reason: null } });
  const request = (await arrived(2)).at(-1);
  expect(request?.headers).toMatchObject({ "ancrage-test": "true", "ancrage-event": "Changed", "webhook-id": sent.body.messageId });
  new Webhook(body.secret).verify(request?.body ?? "", { ...request?.headers });
  expect(JSON.parse(request?.body ?? "")).toMatchObject({ type: "Changed", data: { id: 7 } });

  system.receiver.answer((_request, response) => response.writeHead(500).end("out of order"));
  const failed = await system.call("POST", `/v1/subscriptions/${body.id}/test`, { event: "subscription.disabled" });
  expect(failed.body).toMatchObject({
    event: "subscription.disabled",
    isDelivered: false,
    status: 500,
    reason: "status",
    response: "out of order",
  });
  expect(failed.body.messageId).not.toBe(sent.body.messageId);
  const library = await system.ancrage().subscriptions.test(body.id);
  expect(library).toMatchObject({ isDelivered: false, status: 500 });
  expect(await system.rows("select 1 from ancrage.messages where event = 'Changed'")).toHaveLength(1);
  expect((await system.call("POST", `/v1/subscriptions/${body.id}/test`, { event: "None" })).status).toBe(422);
});
