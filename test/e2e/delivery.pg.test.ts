import { createSecretKey } from "node:crypto";
import type { ServerResponse } from "node:http";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Webhook } from "standardwebhooks";
import { systemClock } from "../../src/clock.ts";
import { createSender } from "../../src/deliver/send.ts";
import { defineEvent } from "../../src/event/define.ts";
import type { Message } from "../../src/message.ts";
import type { Subscription } from "../../src/subscription/registry.ts";
import { parseSecretKey, createSecret, formatSecret, sealSecret } from "../../src/subscription/secret.ts";
import { startReceiver, type ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

const timeoutMs = 800;
const schema = "create table item (id integer generated always as identity primary key, label text not null)";
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"], label: item["label"] }) });

let system: System;
beforeAll(async () => {
  system = await startSystem({
    schema,
    events: { ItemCreated },
    options: { retry: { schedule: [0, 0.05, 0.05], jitter: 0 }, delivery: { timeoutMs } },
  });
});
afterAll(() => system.close());
const made: string[] = [];
afterEach(async () => {
  system.receiver.answer(200);
  for (const id of made.splice(0)) await system.call("DELETE", `/v1/subscriptions/${id}`);
});

async function subscribe(url: string): Promise<{ readonly id: string; readonly secret: string }> {
  const { status, body } = await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url });
  expect(status).toBe(201);
  made.push(body.id);
  return body;
}

const insert = (): Promise<unknown> => system.rows("insert into item (label) values ('a')");

interface AttemptRow {
  readonly number: number;
  readonly status: number | null;
  readonly reason: string;
  readonly duration_ms: number;
  readonly response: Buffer | null;
}

/** The attempts of a subscription's only delivery, once that is over. */
async function attemptsOf(id: string, state: "exhausted" | "delivered"): Promise<readonly AttemptRow[]> {
  await system.until(`select state from ancrage.deliveries where subscription_id = '${id}'`, state);
  return system.rows<AttemptRow>(
    "select number, status, reason, duration_ms, response from ancrage.attempts where subscription_id = $1 order by number",
    [id],
  );
}

test("what fails is tried by the schedule, then exhausted; the answer's bytes are kept as they were", async () => {
  // Every byte there is: a NUL, and what is no UTF-8.
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  const arrivals: { readonly atMs: number; readonly attempt: string | undefined }[] = [];
  system.receiver.answer((request: ReceivedRequest, response: ServerResponse): void => {
    arrivals.push({ atMs: request.atMs, attempt: request.headers["ancrage-attempt"] });
    response.writeHead(500).end(bytes);
  });
  const { id } = await subscribe(`${system.receiver.url}/500`);
  await insert();
  const attempts = await attemptsOf(id, "exhausted");
  expect(attempts).toMatchObject([1, 2, 3].map((number) => ({ number, status: 500, reason: "status" })));
  expect(attempts.map(({ response }) => response?.equals(bytes))).toEqual([true, true, true]);
  expect(arrivals.map(({ attempt }) => attempt)).toEqual(["1", "2", "3"]);
  // No earlier than the schedule says: the wait begins when the outcome is known.
  expect(arrivals[1]!.atMs - arrivals[0]!.atMs).toBeGreaterThan(45);
  const { body } = await system.call("GET", `/v1/deliveries?subscriptionId=${id}`);
  expect(body.data).toMatchObject([{ state: "exhausted", attempts: [{ number: 1 }, { number: 2 }, { number: 3 }] }]);
});

test("a redirect is a failure and is not followed", async () => {
  const { receiver } = system;
  receiver.answer((request: ReceivedRequest, response: ServerResponse): void => {
    if (request.path === "/redirected") response.writeHead(302, { location: `${receiver.url}/target` }).end();
    else response.writeHead(200).end();
  });
  const { id } = await subscribe(`${receiver.url}/redirected`);
  await insert();
  expect(await attemptsOf(id, "exhausted")).toMatchObject([1, 2, 3].map((number) => ({ number, status: 302, reason: "status" })));
  expect(receiver.requests.filter(({ path }) => path === "/target")).toEqual([]);
});

test("an endless answer ends at 64 KiB; of it 16 KiB are kept", async () => {
  let sent = 0;
  system.receiver.answer((_: ReceivedRequest, response: ServerResponse): void => {
    response.writeHead(500);
    const chunk = Buffer.alloc(8192, "x");
    const more = (): void => {
      while (!response.destroyed && sent < 64 * 1024 * 1024) {
        sent += chunk.length;
        if (!response.write(chunk)) return void response.once("drain", more);
      }
    };
    more();
  });
  const { id } = await subscribe(`${system.receiver.url}/endless`);
  await insert();
  const attempts = await attemptsOf(id, "exhausted");
  expect(attempts.map(({ reason, response }) => [reason, response?.length])).toEqual([1, 2, 3].map(() => ["status", 16 * 1024]));
  // What stands in the sockets' buffers comes on top of what is read.
  expect(sent).toBeLessThan(3 * 16 * 1024 * 1024);
});

test.each([
  ["the body drips", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", 200],
  ["the headers drip", "HTTP/1.1 200 OK\r\nx: ", null],
])("an answer of which %s ends at the deadline", async (_, head, status) => {
  const dripping = await startTcp((socket) => {
    socket.write(head);
    const timer = setInterval(() => socket.write("x"), 50);
    socket.on("close", () => clearInterval(timer));
  });
  const { id } = await subscribe(dripping.url);
  await insert();
  const attempts = await attemptsOf(id, "exhausted");
  expect(attempts).toMatchObject([1, 2, 3].map((number) => ({ number, status, reason: "timeout" })));
  for (const { duration_ms } of attempts) {
    expect(duration_ms).toBeGreaterThanOrEqual(timeoutMs - 1);
    expect(duration_ms).toBeLessThan(timeoutMs * 3);
  }
  await dripping.close();
});

test("a reset, a refused connection, a name that nobody has, and an answer that is no HTTP", async () => {
  const resetting = await startTcp((socket) => socket.on("data", () => socket.resetAndDestroy()));
  const babbling = await startTcp((socket) => socket.on("data", () => socket.end("220 smtp.example.com\r\n")));
  const closed = await startTcp(() => undefined);
  await closed.close();
  const urls = [resetting.url, closed.url, "http://nobody.invalid/", babbling.url];
  const ids: string[] = [];
  for (const url of urls) ids.push((await subscribe(url)).id);
  await insert();
  for (const [index, reason] of ["reset", "refused", "dns", "protocol"].entries()) {
    const attempts = await attemptsOf(ids[index]!, "exhausted");
    expect(attempts).toMatchObject([1, 2, 3].map((number) => ({ number, status: null, reason })));
    expect(attempts[0]!.response!.length).toBeGreaterThan(0);
  }
  await resetting.close();
  await babbling.close();
});

test("a gzip bomb is not expanded", async () => {
  const bomb = gzipSync(Buffer.alloc(16 * 1024 * 1024));
  system.receiver.answer(
    (_: ReceivedRequest, response: ServerResponse): void => void response.writeHead(500, { "content-encoding": "gzip" }).end(bomb),
  );
  const { id } = await subscribe(`${system.receiver.url}/bomb`);
  await insert();
  const [first] = await attemptsOf(id, "exhausted");
  expect(first!.response!.equals(bomb.subarray(0, 16 * 1024))).toBe(true);
  expect(system.receiver.requests.find(({ path }) => path === "/bomb")!.headers["accept-encoding"]).toBe("identity");
});

test("a timestamp of now, and while a secret is rotated a signature of each", async () => {
  const { id, secret } = await subscribe(`${system.receiver.url}/signed`);
  await insert();
  const isSigned = (request: { readonly path: string }): boolean => request.path === "/signed";
  const first = (await system.receiver.until((all) => all.some(isSigned))).find(isSigned)!;
  expect(Math.abs(Number(first.headers["webhook-timestamp"]) - first.atMs / 1000)).toBeLessThan(1.5);
  expect(first.headers["webhook-signature"]!.split(" ").length).toBe(1);

  const second = createSecret();
  const sealed = sealSecret(parseSecretKey(system.options.secretKey), { project: "default", id }, second, new Date());
  await system.rows(
    `with changed as (
       update ancrage.subscriptions set secrets = jsonb_build_array($2::jsonb) || secrets, revision = nextval('ancrage.revision')
       where id = $1 returning id, revision)
     select pg_logical_emit_message(true, 'ancrage.subscription', id || ' ' || revision) from changed`,
    [id, JSON.stringify(sealed)],
  );
  await insert();
  const last = (await system.receiver.until((all) => all.filter(isSigned).length === 2)).findLast(isSigned)!;
  expect(last.headers["webhook-signature"]!.split(" ").length).toBe(2);
  for (const one of [secret, formatSecret(second)]) expect(new Webhook(one).verify(last.body, { ...last.headers })).toBeTruthy();
});

test("a retry goes on after a restart, where it was", async () => {
  // However long a stop takes, its attempts are not used up before it.
  const schedule = [0, ...Array<number>(2_000).fill(0.2)];
  const one = await startSystem({ schema, events: { ItemCreated }, options: { retry: { schedule, jitter: 0 } } });
  one.receiver.answer(500);
  await one.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: one.receiver.url });
  await one.rows("insert into item (label) values ('a')");
  await one.receiver.until((all) => all.length >= 1);
  await one.ancrage().stop();
  const before = one.receiver.requests.length;
  one.receiver.answer(200);
  await one.restart();
  const requests = await one.receiver.until((all) => all.length > before);
  expect(requests.map(({ headers }) => headers["ancrage-attempt"])).toEqual(requests.map((_, index) => String(index + 1)));
  expect(new Set(requests.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
  await one.until("select state::text || attempts from ancrage.deliveries", `delivered${before + 1}`);
  await one.close();
});

test("an http: URL is refused unless it is allowed", async () => {
  const one = await startSystem({ schema, events: { ItemCreated }, options: { allowHttp: false } });
  const { status, body } = await one.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: one.receiver.url });
  expect([status, body.errors]).toMatchObject([422, [{ pointer: "/url", detail: expect.stringContaining("expected an https: URL") }]]);
  await one.close();
});

test("loopback is not reached unless it is allowed, however it is written", async () => {
  let sockets = 0;
  const server = createServer(() => sockets++);
  // All addresses of this machine, IPv4 and IPv6.
  await new Promise<void>((resolve) => server.listen(0, "::", resolve));
  const { port } = server.address() as AddressInfo;
  const hosts = [
    "127.0.0.1 127.1 0x7f.1 2130706433 0177.0.0.1 127.9.9.9 0.0.0.0 0",
    "[::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::] [0:0:0:0:0:0:0:1] [64:ff9b::7f00:1]",
    "localhost LOCALHOST localhost. a.localhost ①②⑦.0.0.1 169.254.169.254 [fe80::1]",
  ].flatMap((some) => some.split(" "));
  const one = await startSystem({ schema, events: { ItemCreated }, options: { allowNetworks: [], retry: { schedule: [0] } } });
  const statuses: number[] = [];
  for (const host of hosts) {
    statuses.push((await one.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: `http://${host}:${port}/` })).status);
  }
  const subscribed = statuses.filter((status) => status === 201).length;
  expect(statuses.filter((status) => status !== 201 && status !== 422)).toEqual([]);
  await one.rows("insert into item (label) values ('a')");
  await one.until("select count(*) from ancrage.deliveries where state = 'exhausted'", subscribed);
  const reasons = await one.rows<{ reason: string; url: string }>(
    "select a.reason, s.url from ancrage.attempts a join ancrage.subscriptions s on s.id = a.subscription_id where a.reason <> 'blocked'",
  );
  expect(reasons).toEqual([]);
  expect(subscribed).toBeGreaterThan(10);
  expect(sockets).toBe(0);
  await one.close();
  await new Promise((resolve) => server.close(resolve));
});

test("what waits for a connection when its subscription is deleted is not sent any more", async () => {
  const receiver = await startReceiver();
  const answers: (() => void)[] = [];
  receiver.answer((_: ReceivedRequest, response: ServerResponse): void => void answers.push(() => response.writeHead(200).end()));
  const sender = createSender({
    allowNetworks: ["127.0.0.0/8"],
    timeoutMs: 30_000,
    version: "0",
    clock: systemClock,
    connectionsPerOrigin: 1,
    causeKey: createSecretKey(Buffer.alloc(64)),
  });
  const subscription: Subscription = {
    id: "sub_1",
    project: "default",
    events: ["E"],
    origin: receiver.url,
    path: "/",
    format: "bare",
    keys: [],
    revision: 1n,
    startLsn: 0n,
    state: "enabled",
  };
  let isWanted = true;
  const send = (id: string): Promise<string> =>
    new Promise((resolve) => {
      const position = { commitLsn: 1n, changeLsn: 1n, ordinal: 0 };
      const body = Buffer.from("{}");
      const message: Message = { id, project: "default", event: "E", key: "1", position, committedAtUs: 0n, body, envelopes: {} };
      sender.send({ message, subscription, number: 1, isWanted: () => isWanted }, (outcome) => resolve(outcome.kind));
    });
  const first = send("msg_1");
  const second = send("msg_2");
  await receiver.until((all) => all.length === 1);
  isWanted = false;
  answers[0]!();
  expect(await Promise.all([first, second])).toEqual(["delivered", "unsent"]);
  expect(receiver.requests.map(({ headers }) => headers["webhook-id"])).toEqual(["msg_1"]);
  await sender.close();
  await receiver.close();
});

async function startTcp(onSocket: (socket: Socket) => void): Promise<{ readonly url: string; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
