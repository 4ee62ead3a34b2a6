import { afterAll, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import { startSystem, type System } from "./system.ts";

/** What Ancrage costs a server while its tables are quiet. On a server of its own: every byte of the log is counted. */
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });

let server: OwnServer;
let system: System;
const looks = { count: 0 };
/** Milliseconds that the clock of the pipeline is ahead: ten seconds need not be waited for. */
let aheadMs = 0;

beforeAll(async () => {
  server = await startOwnServer({ autovacuum: "off", checkpoint_timeout: "1h" });
  system = await startSystem({
    schema: "create table item (id integer primary key); create table busy (id integer, text text)",
    events: { ItemCreated },
    database: await server.createDatabase("quiet"),
    internals: {
      captureWatchMs: 20,
      signal: (name) => void (name === "watched" && looks.count++),
      clock: { nowMs: () => Date.now(), monotonicMs: () => performance.now() + aheadMs },
    },
  });
});
afterAll(async () => {
  await system.close();
  await server.remove();
});

async function untilLooks(count: number): Promise<void> {
  const enough = looks.count + count;
  while (looks.count < enough) await new Promise((resolve) => setTimeout(resolve, 20));
}

interface Counted {
  readonly batches: number;
  readonly lsn: string;
}
const count = async (): Promise<Counted> =>
  (
    await system.rows<Counted>(
      "select (select count(*)::integer from ancrage.batches) as batches, pg_current_wal_insert_lsn()::text as lsn",
    )
  )[0]!;
const bytesSince = async ({ lsn }: Counted): Promise<number> =>
  (await system.rows<{ bytes: number }>("select (pg_current_wal_insert_lsn() - $1::pg_lsn)::integer as bytes", [lsn]))[0]!.bytes;

test("an idle system writes nearly nothing, however often the slot is looked at", async () => {
  await system.rows("insert into item values (1)");
  await system.until("select count(*) from ancrage.messages", 1);
  await untilLooks(5);
  const before = await count();
  await untilLooks(50);
  // At most one idle position, and the server's own note of running transactions.
  expect((await count()).batches - before.batches).toBeLessThanOrEqual(1);
  expect(await bytesSince(before)).toBeLessThan(4_096);
});

test("a quiet database beside a busy one keeps no log: ten seconds later at the latest the slot has moved on", async () => {
  const neighbour = await server.createDatabase("neighbour");
  await neighbour.client.query("create table busy (text text)");
  const before = await count();
  for (let turn = 0; turn < 4; turn++) {
    // Elsewhere, and in a table of this database that nothing tracks.
    await neighbour.client.query("insert into busy select repeat('x', 1000) from generate_series(1, 4000)");
    await system.rows("insert into busy select i, repeat('y', 1000) from generate_series(1, 4000) i");
    const { lsn } = await count();
    aheadMs += 10_000;
    await system.until(`select confirmed_flush_lsn >= '${lsn}' from pg_replication_slots where database = current_database()`, true);
  }
  const after = await count();
  expect(await bytesSince(before)).toBeGreaterThan(30_000_000);
  expect(after.batches - before.batches).toBeLessThanOrEqual(8);
  // `restart_lsn` follows at the next note of running transactions: every 15 s, or with a checkpoint.
  const kept = async (): Promise<number> =>
    (
      await neighbour.client.query<{ kept: number }>(
        "select (pg_current_wal_insert_lsn() - restart_lsn)::integer as kept from pg_replication_slots where slot_name like 'ancrage%'",
      )
    ).rows[0]!.kept;
  while ((await kept()) > 1_000_000) {
    await neighbour.client.query("checkpoint");
    aheadMs += 10_000;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

test.each(["wal", "outbox"] as const)("a feed of a database that has become idle shows the last message too (%s)", async (capture) => {
  const quiet = await startSystem({
    schema: "create table item (id integer primary key)",
    events: { ItemCreated },
    database: await server.createDatabase(`feed_${capture}`),
    options: { capture },
    internals: { clock: { nowMs: () => Date.now(), monotonicMs: () => performance.now() + aheadMs } },
  });
  try {
    await quiet.rows("insert into item values (1)");
    await quiet.until("select count(*) from ancrage.messages", 1);
    const pull = async (): Promise<readonly object[]> => (await quiet.call("GET", "/v1/messages?order=oldest")).body.data;
    // Nothing was read past it yet.
    expect(await pull()).toEqual([]);
    const newest = Date.now();
    while ((await pull()).length === 0) {
      aheadMs += 10_000;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(Date.now() - newest).toBeLessThan(20_000);
    // From an idle position nothing is lost, and nothing comes twice.
    await quiet.restart();
    await quiet.rows("insert into item values (2)");
    while ((await pull()).length < 2) {
      aheadMs += 10_000;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await quiet.until("select count(*) from ancrage.messages", 2);
  } finally {
    await quiet.close();
  }
});
