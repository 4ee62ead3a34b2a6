import { fork } from "node:child_process";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });
const child = fileURLToPath(new URL("faults-child.ts", import.meta.url));

let system: System;
beforeEach(async () => {
  system = await startSystem({
    schema: "create table item (id integer primary key)",
    events: { ItemCreated },
    internals: { leaseMs: 1_000 },
    isStarted: false,
  });
});
afterEach(() => system.close());

const insert = (id: number): Promise<unknown> => system.rows("insert into item values ($1)", [id]);
const received = (id: number): number => system.receiver.requests.filter(({ body }) => body === `{"id":${id}}`).length;
const arrived = (id: number, times = 1): Promise<unknown> => system.receiver.until(() => received(id) === times);

test("a payload that blocks the event loop costs its process the lead; what that does late overwrites nothing", async () => {
  const { events: _, ...options } = system.options;
  const blocking = fork(child, {
    env: { ...process.env, FAULT_OPTIONS: JSON.stringify(options), FAULT_BLOCK_MS: "4000" },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  const ended = once(blocking, "exit");
  await once(blocking, "message");
  await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: system.receiver.url, format: "bare" });
  await insert(1);
  await arrived(1);
  await system.ancrage().start();
  const held: ServerResponse[] = [];
  system.receiver.answer((request: ReceivedRequest, response: ServerResponse): void => {
    if (request.body === '{"id":2}' && held.length === 0) held.push(response);
    else response.writeHead(200).end();
  });
  await insert(2);
  await arrived(2);
  await insert(666);
  // The other one leads by now: it has sent what was in flight, and what blocks.
  await arrived(2, 2);
  await arrived(666);
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", 3);
  const late = createInterface({ input: blocking.stderr! });
  const superseded = (async () => {
    for await (const line of late) if (line.includes("ANCRAGE_SUPERSEDED")) return;
  })();
  held[0]?.writeHead(500).end();
  await superseded;
  await insert(3);
  await arrived(3);
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", 4);
  blocking.send("stop");
  await ended;
  expect([1, 2, 3, 666].map(received)).toEqual([1, 2, 1, 1]);
  expect(await system.rows("select distinct state, attempts from ancrage.deliveries")).toEqual([{ state: "delivered", attempts: 1 }]);
  expect(await system.rows("select from ancrage.attempts")).toEqual([]);
}, 60_000);
