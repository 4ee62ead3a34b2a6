import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { defineEvent } from "../../src/event/define.ts";
import { everyByte, hostileScripts } from "../hostile-scripts.ts";
import { startRawReceiver, type RawReceiver } from "../raw-receiver.ts";
import { startSystem, type System } from "./system.ts";

const items = 60;
const mebibyte = 1_048_576;
const deadlineMs = 15_000;

let system: System;
const receivers = new Map<string, RawReceiver>();
/** How far the system's monotonic clock is ahead: what hangs meets its deadline when the test says so. */
let aheadMs = 0;
/** Attempts that are over, by subscription. */
const overBy = new Map<string, number>();
beforeAll(async () => {
  for (const [name, script] of Object.entries(hostileScripts)) receivers.set(name, await startRawReceiver(script));
  system = await startSystem({
    schema: "create table item (id integer primary key)",
    events: { ItemCreated: defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) }) },
    // One attempt: what comes of it is the delivery's end.
    options: { retry: { schedule: [0], jitter: 0 }, delivery: { timeoutMs: deadlineMs } },
    internals: {
      clock: { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + aheadMs },
      signal(name, detail) {
        if (name !== "attempted") return;
        const { id } = (detail as { subscription: { id: string } }).subscription;
        overBy.set(id, (overBy.get(id) ?? 0) + 1);
      },
    },
  });
});
afterAll(async () => {
  for (const receiver of receivers.values()) await receiver.close();
  await system.close();
});

test("beside ten that hang, one that drips, one that floods, one that answers anything and one that resets, a healthy one gets all", async () => {
  const subscribe = async (url: string): Promise<string> =>
    (await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url, format: "bare" })).body.id;
  const hostile = new Map<string, string>();
  for (const [name, { origin }] of receivers) hostile.set(name, await subscribe(origin));
  await subscribe(system.receiver.url);
  const slow = [...hostile].filter(([name]) => name.startsWith("hangs") || name === "drips");

  // One transaction a row, so that the healthy one's go out while the others' do.
  for (let id = 1; id <= items; id++) await system.rows("insert into item values ($1)", [id]);
  const received = await system.receiver.until((all) => all.length >= items);
  expect(new Set(received.map(({ body }) => body)).size).toBe(items);
  // It waited for none of their deadlines: none has come.
  expect(slow.filter(([, id]) => overBy.has(id))).toEqual([]);
  // Each of those holds what its window lets it, and no more.
  const heldBy = slow.map(([name]) => receivers.get(name)!.requests.length);
  expect(Math.max(...heldBy)).toBeLessThanOrEqual(4);

  // What waits for them is ended, and what is in flight meets its deadline.
  const isOver = async (): Promise<boolean> => {
    const [row] = await system.rows<{ open: number; all: number }>(
      `select count(*)::integer as all, count(*) filter (where state in ('pending', 'retrying'))::integer as open from ancrage.deliveries`,
    );
    // One that is in memory alone has no row yet.
    return row?.open === 0 && row.all === items * (hostile.size + 1);
  };
  for (const [, id] of slow) await system.call("DELETE", `/v1/subscriptions/${id}`);
  while (overBy.get(hostile.get("floods") ?? "") !== items) await new Promise((resolve) => setTimeout(resolve, 20));
  aheadMs += deadlineMs;
  while (!(await isOver()) || slow.some(([, id]) => !overBy.has(id))) await new Promise((resolve) => setTimeout(resolve, 20));
  await system.ancrage().stop();

  const reasons = await system.rows<{ sub: string; reason: string; status: number | null; responses: Buffer[] }>(
    `select subscription_id as sub, reason, status, array_agg(distinct response) as responses from ancrage.attempts
     group by subscription_id, reason, status`,
  );
  const reasonsOf = (name: string): readonly string[] =>
    reasons.filter(({ sub }) => sub === hostile.get(name)).map(({ reason, status }) => `${reason} ${status ?? "-"}`);
  expect(slow.map(([name]) => [name, reasonsOf(name)])).toEqual(slow.map(([name]) => [name, ["timeout -"]]));
  // One that was in flight as the clock went ahead may have met its deadline too.
  const ownReasonsOf = (name: string): readonly string[] => reasonsOf(name).filter((reason) => reason !== "timeout -");
  expect(ownReasonsOf("every byte")).toEqual(["status 500"]);
  expect(reasons.find(({ sub, status }) => sub === hostile.get("every byte") && status === 500)?.responses).toEqual([everyByte]);
  expect(ownReasonsOf("resets")).toEqual(["reset -"]);
  // What floods has said 200: it has taken the message, and the rest of its answer is not read.
  expect(reasonsOf("floods")).toEqual([]);
  const states = await system.rows<{ sub: string; state: string; n: number }>(
    "select subscription_id as sub, state::text as state, count(*)::integer as n from ancrage.deliveries group by 1, 2",
  );
  const statesOf = (name: string): readonly string[] =>
    states.filter(({ sub }) => sub === hostile.get(name)).map(({ state, n }) => `${n} ${state}`);
  expect(statesOf("floods")).toEqual([`${items} delivered`]);
  expect(statesOf("every byte")).toEqual([`${items} exhausted`]);
  expect(statesOf("resets")).toEqual([`${items} exhausted`]);
  // What a socket's own buffers hold was written and is not read by anybody.
  const flooded = receivers.get("floods")!.sockets.map((socket) => socket.bytesWritten - socket.writableLength);
  expect(Math.max(...flooded)).toBeLessThan(32 * mebibyte);
});
