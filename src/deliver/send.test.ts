import { createSecretKey } from "node:crypto";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../clock.ts";
import type { Outcome } from "./outcome.ts";
import { createSender, type Sender } from "./send.ts";
import type { Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";

let server: Server;
let sender: Sender;
/** How far the sender's monotonic clock is ahead. */
let aheadMs = 0;
/** Answers that the receiver owes, by the message they are for. */
const owed = new Map<string, ServerResponse>();
const arrived: string[] = [];
let onArrival: (() => void) | undefined;

beforeEach(async () => {
  owed.clear();
  arrived.length = 0;
  server = createServer((incoming, response) => {
    const id = String(incoming.headers["webhook-id"]);
    incoming.resume();
    incoming.on("end", () => {
      arrived.push(id);
      owed.set(id, response);
      onArrival?.();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  aheadMs = 0;
  const clock = { nowMs: systemClock.nowMs, monotonicMs: () => systemClock.monotonicMs() + aheadMs };
  sender = createSender({
    allowNetworks: ["127.0.0.0/8"],
    clock,
    timeoutMs: 300,
    version: "0",
    connectionsPerOrigin: 1,
    causeKey: createSecretKey(Buffer.alloc(64)),
  });
});
afterEach(async () => {
  await sender.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

const subscription = (): Subscription => ({
  id: "sub_1",
  project: "default",
  events: ["E"],
  origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  path: "/",
  format: "bare",
  keys: [createSecretKey(Buffer.alloc(32))],
  revision: 1n,
  startLsn: 0n,
  state: "enabled",
});
const message = (id: string): Message => ({
  id,
  project: "default",
  event: "E",
  key: "1",
  position: { commitLsn: 1n, changeLsn: 1n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
});
const send = (id: string, isWanted: () => boolean = () => true): Promise<Outcome> =>
  new Promise((resolve) => sender.send({ message: message(id), subscription: subscription(), number: 1, isWanted }, resolve));
const arrival = (id: string): Promise<void> =>
  new Promise((resolve) => {
    onArrival = () => (arrived.includes(id) ? resolve() : undefined);
    onArrival();
  });

test("what ran out of time while it waited for a connection is not sent when there is one", async () => {
  const first = send("msg_1");
  await arrival("msg_1");
  const queued = send("msg_2");
  // Both end by the deadline: one without an answer, one without a connection.
  expect(await first).toMatchObject({ kind: "failed", reason: "timeout" });
  expect(await queued).toMatchObject({ kind: "failed", reason: "timeout" });
  // The connection is free now; the next request is the only one that takes it.
  const third = send("msg_3");
  await arrival("msg_3");
  owed.get("msg_3")?.writeHead(200).end();
  expect(await third).toMatchObject({ kind: "delivered" });
  expect(arrived).toEqual(["msg_1", "msg_3"]);
});

test("what is no longer wanted when a connection is there is not sent", async () => {
  const first = send("msg_1");
  await arrival("msg_1");
  let isWanted = true;
  const queued = send("msg_2", () => isWanted);
  isWanted = false;
  owed.get("msg_1")?.writeHead(200).end();
  expect(await first).toMatchObject({ kind: "delivered" });
  expect(await queued).toMatchObject({ kind: "failed" });
  expect(arrived).toEqual(["msg_1"]);
});

test("an outcome says what the receiver answered, and keeps the first bytes of a refusal", async () => {
  const refused = send("msg_1");
  await arrival("msg_1");
  owed.get("msg_1")?.writeHead(503).end("not now");
  expect(await refused).toMatchObject({ kind: "failed", reason: "status", status: 503, response: Buffer.from("not now") });
});

test("closing ends the requests of a pool that was replaced by age, too", async () => {
  const old = send("msg_1");
  await arrival("msg_1");
  aheadMs = 61_000;
  // The next request goes to a new pool; the first one hangs in the old one, whose deadline is no longer looked at once it is closed.
  const young = send("msg_2");
  await arrival("msg_2");
  await sender.close();
  await Promise.all([old, young]);
  const connections = (): Promise<number> => new Promise((resolve) => server.getConnections((_error, count) => resolve(count)));
  while ((await connections()) > 0) await new Promise((resolve) => setImmediate(resolve));
  expect(arrived).toEqual(["msg_1", "msg_2"]);
});
