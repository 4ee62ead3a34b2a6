import { afterAll, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { startReceiver, type Receiver } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

/** Whoever has a token may be an enemy of all others, and so may a receiver. */
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });

let system: System;
/** Where no request may ever arrive: on loopback, which this system does not allow. */
let inside: Receiver;
beforeAll(async () => {
  inside = await startReceiver();
  system = await startSystem({
    schema: "create table item (id integer generated always as identity primary key)",
    events: { ItemCreated },
    options: { allowNetworks: [], retry: { schedule: [0] }, delivery: { timeoutMs: 1_000 } },
  });
});
afterAll(async () => {
  await system.close();
  await inside.close();
});

const token = "Bearer a-token-of-the-operator";
const good = { event: "ItemCreated", url: "https://example.com/hook" };

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly body?: string | Uint8Array<ArrayBuffer>;
  readonly headers?: Readonly<Record<string, string>>;
}
async function send({ method, path, body, headers }: Sent): Promise<Response> {
  const all = { authorization: token, "content-type": "application/json", ...headers };
  return system
    .ancrage()
    .fetch(new Request(`http://ancrage.test${path}`, { method, headers: all, ...(body === undefined ? {} : { body }) }));
}

const texts = [
  "\u202Eevil",
  "a\u0000b",
  "\uD800",
  "\u{1F4A5}".repeat(100),
  "\u0085\u2028\u2029\uFEFF",
  "e\u0301\u0301",
  "__proto__",
  "constructor",
  "' or 1=1 --",
  "../../etc/passwd",
  "%00%E0%A4",
  "\r\nset-cookie: a=b",
  "",
  "a".repeat(5_000),
];
const numbers = ["1e308", "-0", "9007199254740993", "1e-400", "9".repeat(30)];
const times = ["-271821-04-20T00:00:00Z", "+275760-09-13T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"];
const lists = ["subscriptions", "messages", "deliveries", "rejections", "jobs", "events"];

function post(path: string, body: unknown, headers?: Readonly<Record<string, string>>): Sent {
  return {
    method: "POST",
    path,
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(headers === undefined ? {} : { headers }),
  };
}
/** A field that JSON.stringify could not write. */
const subscriptionWith = (field: string, json: string): Sent =>
  post("/v1/subscriptions", `${JSON.stringify(good).slice(0, -1)},${JSON.stringify(field)}:${json}}`);

function* hostileRequests(id: string): Iterable<Sent> {
  for (const depth of [100, 10_000, 200_000]) {
    const list = "[".repeat(depth) + "]".repeat(depth);
    const object = `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
    for (const field of ["metadata", "filter", "headers", "limits", "events", "url", "ignoredActors"]) {
      yield subscriptionWith(field, list);
      yield subscriptionWith(field, object);
    }
    yield post("/v1/events/ItemCreated/trigger", `{"key":"1","data":${list}}`);
    yield post("/v1/jobs", `{"kind":"replay","events":${list}}`);
    yield { method: "PATCH", path: `/v1/subscriptions/${id}`, body: `{"metadata":${object}}` };
  }
  for (const text of texts) {
    for (const field of ["description", "project", "event", "url", "target_url", "format", "order", "secret", "expiresAt"])
      yield post("/v1/subscriptions", { ...good, [field]: text });
    for (const field of ["metadata", "headers", "filter", "limits"])
      yield post("/v1/subscriptions", { ...good, [field]: { [text]: text } });
    yield post("/v1/subscriptions", { ...good, ignoredActors: [text] });
    const path = encodeURIComponent(text.toWellFormed());
    yield post("/v1/subscriptions", good, { "idempotency-key": path.slice(0, 2_000) });
    for (const list of lists) {
      for (const method of ["GET", "DELETE", "PATCH"])
        yield { method, path: `/v1/${list}/${path}`, ...(method === "PATCH" ? { body: "{}" } : {}) };
      for (const name of [
        "after",
        "project",
        "limit",
        "from",
        "to",
        "state",
        "event",
        "subscriptionId",
        "messageId",
        "jobId",
        "url",
        "key",
      ])
        yield { method: "GET", path: `/v1/${list}?${name}=${path}` };
    }
    for (const action of ["samples", "explain"])
      yield { method: "GET", path: `/v1/events/ItemCreated/${action}?key=${path}&project=${path}` };
    yield post("/v1/events/ItemCreated/trigger", { key: text, data: { [text]: text } }, { prefer: `wait=${path.slice(0, 100)}` });
    for (const code of ["Subscribe", "Unsubscribe", "PerformList"])
      yield post(`/v1/EntryPoints/${path}/process/?c=EPT_Webhook${code}`, { event: text, url: text, id: text, limit: text });
    yield post("/v1/jobs", { kind: "replay", subscriptionId: text, from: text, to: text, events: [text] });
  }
  for (const time of times) {
    for (const list of lists)
      for (const name of ["from", "to"]) yield { method: "GET", path: `/v1/${list}?${name}=${encodeURIComponent(time)}` };
    yield post("/v1/subscriptions", { ...good, expiresAt: time });
  }
  for (const number of numbers) {
    for (const field of ["limits", "expiresAt", "metadata", "filter"]) yield subscriptionWith(field, number);
    yield subscriptionWith("limits", `{"inFlight":${number},"perSecond":${number}}`);
    yield post("/v1/events/ItemCreated/trigger", `{"key":${number}}`);
  }
  yield { method: "POST", path: "/v1/subscriptions", body: new Uint8Array([0x22, 0xff, 0xfe, 0x22]) };
  yield post("/v1/subscriptions", { ...good, description: "x".repeat(2_000_000) });
  yield post("/v1/subscriptions", { events: Array.from({ length: 10_000 }, () => "ItemCreated"), url: good.url });
}

test("whatever a client sends, no answer is a fault of ours", async () => {
  const { id } = (await (await send(post("/v1/subscriptions", good))).json()) as { readonly id: string };
  const faults: string[] = [];
  let count = 0;
  for (const request of hostileRequests(id)) {
    count++;
    const { status } = await send(request);
    if (status >= 500) faults.push(`${status} ${request.method} ${request.path.slice(0, 100)} ${String(request.body).slice(0, 100)}`);
  }
  expect(faults).toEqual([]);
  expect(count).toBeGreaterThan(1_500);
}, 60_000);

test("no spelling of an address inside is sent to, neither as a test nor as a delivery", async () => {
  const { port } = new URL(inside.url);
  const spellings = [
    "127.0.0.1 127.1 2130706433 0x7f.1 0x7f000001 0177.0.0.1 017700000001 127.0.0.1. 127.000.000.001 0 0.0.0.0",
    "localhost localhost. LOCALHOST sub.localhost [::1] [::] [0:0:0:0:0:0:0:1] [fe80::1] [::1%25lo] 127.0.0.1%00.example.com",
    "[::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::] [fd00:ec2::254]",
    "127\u30020\u30020\u30021 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460 %31%32%37.0.0.1 \uff11\uff12\uff17.0.0.1 user:password@127.0.0.1",
    "169.254.169.254 168.63.129.16 10.0.0.1 100.64.0.1 198.18.0.1 224.0.0.1 255.255.255.255 example.com@127.0.0.1",
  ].flatMap((line) => line.split(" "));
  const answers = await Promise.all(spellings.map((host) => send(post("/v1/subscriptions", { ...good, url: `http://${host}:${port}/` }))));
  // What is written oddly is refused as it is made; the rest when it is connected to.
  expect(answers.map(({ status }) => status).filter((status) => status !== 201 && status !== 422)).toEqual([]);
  const made = answers.filter(({ status }) => status === 201);
  expect(made.length).toBeGreaterThan(20);
  const ids = await Promise.all(made.map(async (answer) => ((await answer.json()) as { readonly id: string }).id));
  const theirs = `subscription_id in ('${ids.join("', '")}')`;
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is null", 0);
  await system.rows("insert into item default values");
  await system.until(`select count(*) from ancrage.deliveries where state = 'exhausted' and ${theirs}`, ids.length);
  expect(await system.rows(`select distinct reason from ancrage.attempts where ${theirs}`)).toEqual([{ reason: "blocked" }]);
  const tested = await send(post(`/v1/subscriptions/${ids[0]}/test`, {}));
  expect(await tested.json()).toMatchObject({ isDelivered: false, reason: "blocked" });
  expect(inside.requests).toEqual([]);
}, 60_000);
