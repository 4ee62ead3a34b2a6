import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { pause } from "../../src/pause.ts";
import { startSystem, type System } from "./system.ts";

/** `FAULT_REPLAY=1000000` replays a million, and looks at how long others wait. */
const count = Number(process.env["FAULT_REPLAY"] ?? 3_000);
const isLarge = count >= 100_000;
const Made = defineEvent({ table: "item", on: "insert", payload: ({ id }) => ({ id }) });
const Lived = defineEvent({ table: "life", on: "insert", payload: ({ id }) => ({ id }) });

let system: System;
let server: Server;
/** How often each row arrived; the test's own receiver would keep each request. */
const arrivals = new Uint8Array(count + 1);
let arrived = 0;
let arrivedAtMs = 0;
const lived = new Map<number, () => void>();
beforeAll(async () => {
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      const { id } = JSON.parse(body) as { readonly id: number };
      if (request.url === "/lived") lived.get(id)?.();
      else {
        arrivals[id] = (arrivals[id] ?? 0) + 1;
        arrived++;
        arrivedAtMs = performance.now();
      }
      response.writeHead(200).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  system = await startSystem({
    schema: `create table item (id integer generated always as identity primary key); create table life (id integer primary key)`,
    events: { Made, Lived },
  });
});
afterAll(async () => {
  await system.close();
  server.closeAllConnections();
  await new Promise<void>((resolve) => server.close(() => resolve()));
});

async function subscribe(event: string, path: string): Promise<string> {
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`;
  const { body } = await system.call("POST", "/v1/subscriptions", { event, url, format: "bare" });
  await system.until(`select start_lsn is not null from ancrage.subscriptions where id = '${body.id}'`, true);
  return body.id as string;
}

let lives = 0;
/** Rows of another event for another receiver, one after the other: from the insert to the arrival, in ms, sorted. */
async function live(isEnough: (rows: number) => boolean): Promise<readonly number[]> {
  const tookMs: number[] = [];
  while (!isEnough(tookMs.length)) {
    const id = ++lives;
    const { promise, resolve } = Promise.withResolvers<void>();
    lived.set(id, resolve);
    const fromMs = performance.now();
    await system.rows("insert into life values ($1)", [id]);
    await promise;
    tookMs.push(performance.now() - fromMs);
    lived.delete(id);
    most = Math.max(most, rssMiB());
    await pause(5, new AbortController().signal);
  }
  return tookMs.toSorted((a, b) => a - b);
}
const rssMiB = (): number => Math.round(process.memoryUsage().rss / 1024 / 1024);
/** The most memory that was seen. */
let most = 0;
const at = (sorted: readonly number[], part: number): number => sorted[Math.floor((sorted.length - 1) * part)] ?? 0;

test(
  "a replay of much at once: each arrives once, others do not wait for it, memory stays flat, and a cancel ends it within a second",
  async () => {
    for (let rows = 0; rows < count; rows += 50_000)
      await system.rows("insert into item select from generate_series(1, $1::integer)", [Math.min(50_000, count - rows)]);
    await system.until("select count(*) from ancrage.messages where event = 'Made'", count);
    const replayed = await subscribe("Made", "/replayed");
    await subscribe("Lived", "/lived");
    // The log is sent once it is flushed, which a server that is thrown away leaves for later.
    await system.rows("set synchronous_commit = on");
    await live((rows) => rows === 20);
    const isSample = (rows: number): boolean => rows === (isLarge ? 2_000 : 100);
    const before = await live(isSample);
    const beforeMiB = rssMiB();
    most = beforeMiB;
    const from = new Date(Date.now() - 3_600_000).toISOString();
    const job = { kind: "replay", subscriptionId: replayed, from, to: new Date().toISOString() };
    const beganAtMs = performance.now();
    const { status, body } = await system.call("POST", "/v1/jobs", job);
    expect(status).toBe(201);
    // All but a part: what is canceled is under way.
    const beside = await live(() => arrived > count * (isLarge ? 0.9 : 0.3));
    const perSecond = Math.round(arrived / ((performance.now() - beganAtMs) / 1_000));
    const canceledAtMs = performance.now();
    expect((await system.call("POST", `/v1/jobs/${body.id}/cancel`)).status).toBe(200);
    await system.until("select count(*) from ancrage.deliveries where state in ('pending', 'retrying')", 0);
    const endedMs = Math.max(0, arrivedAtMs - canceledAtMs);
    // Alone before and after: other work of the machine is in both.
    const alone = [...before, ...(await live(isSample))].toSorted((a, b) => a - b);
    console.log(
      `${arrived} of ${count} at ${perSecond} a second; the last one ${Math.round(endedMs)} ms after the cancel; memory ${beforeMiB} → ${most} MiB; ` +
        `others alone p50 ${at(alone, 0.5).toFixed(1)} p99 ${at(alone, 0.99).toFixed(1)} ms, beside it p50 ${at(beside, 0.5).toFixed(1)} p99 ${at(beside, 0.99).toFixed(1)} ms`,
    );
    expect(endedMs).toBeLessThan(1_000);
    expect(most - beforeMiB).toBeLessThan(200);
    expect(arrivals.reduce((largest, times) => Math.max(largest, times), 0)).toBe(1);
    // They wait for the batches that its outcomes are written in; of a small one a few turns of the machine decide.
    expect(at(beside, 0.99)).toBeLessThan(isLarge ? 10 * at(alone, 0.99) : 5_000);
    // The rest is had by another one: none of what arrived again.
    const again = await system.call("POST", "/v1/jobs", { ...job, again: false });
    await system.until(`select state from ancrage.jobs where id = '${again.body.id}'`, "done");
    expect((await system.call("GET", `/v1/jobs/${body.id}`)).body.state).toBe("canceled");
  },
  isLarge ? 3_600_000 : 60_000,
);
