import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import { startSystem, type System } from "./system.ts";

/** A server that is restarted under its writers. */
const Told = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });

let server: OwnServer;
let system: System;

beforeAll(async () => {
  // What was answered as committed must outlast a crash of it.
  server = await startOwnServer({ fsync: "on", full_page_writes: "on", synchronous_commit: "on" });
  system = await startSystem({
    database: await server.createDatabase("times"),
    schema: "create table item (id integer primary key)",
    events: { Told },
    options: { retry: { schedule: [0, ...Array<number>(100).fill(0.05)], jitter: 0 } },
  });
  await system.call("POST", "/v1/subscriptions", { event: "Told", url: system.receiver.url, format: "bare" });
});
afterAll(async () => {
  await system.close();
  await server.remove();
});

test.each(["fast", "immediate"] as const)("a restart (%s) while rows are written loses none that was committed", async (mode) => {
  const committed: number[] = [];
  const tried: number[] = [];
  const stopping = new AbortController();
  const first = mode === "fast" ? 0 : 1_000_000;
  const enough = Promise.withResolvers<void>();
  const writing = write(first, { committed, tried, stopping: stopping.signal, onCommitted: (count) => count === 50 && enough.resolve() });
  await enough.promise;
  await server.restart(undefined, undefined, mode);
  const before = committed.length;
  while (committed.length < before + 50) await new Promise((resolve) => setTimeout(resolve, 20));
  stopping.abort();
  await writing;
  const arrived = await system.receiver.until((all) => {
    const ids = new Set(all.map(({ body }) => body));
    return committed.every((id) => ids.has(`{"id":${id}}`));
  });
  // What comes again after a crash of the journal's server has its first id, and what was never written does not come.
  const ours = arrived.map(({ body, headers }) => ({ id: (JSON.parse(body) as { id: number }).id, message: headers["webhook-id"] }));
  const ofThis = ours.filter(({ id }) => id >= 1_000_000 === (mode === "immediate"));
  expect(new Set(ofThis.map(({ message }) => message)).size).toBe(new Set(ofThis.map(({ id }) => id)).size);
  expect(ofThis.every(({ id }) => tried.includes(id))).toBe(true);
});

interface Writing {
  readonly committed: number[];
  readonly tried: number[];
  readonly stopping: AbortSignal;
  onCommitted(count: number): unknown;
}

/** One row after another; a session that ends is opened again. */
async function write(first: number, { committed, tried, stopping, onCommitted }: Writing): Promise<void> {
  for (let id = first; !stopping.aborted;) {
    const client = new pg.Client({ connectionString: server.url("times"), application_name: "test" });
    client.on("error", () => undefined);
    try {
      await client.connect();
      for (; !stopping.aborted; id++) {
        tried.push(id);
        await client.query("insert into item values ($1)", [id]);
        committed.push(id);
        onCommitted(committed.length);
      }
    } catch {
      // Whether this one was committed nobody knows; the next one is.
      id++;
    }
    await client.end().catch(() => undefined);
  }
}
