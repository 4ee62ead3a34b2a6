import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterEach, expect, test } from "vitest";
import { migrate } from "../../src/create-ancrage.ts";
import { EmbeddedPostgres } from "../../src/dev/embedded-postgres.ts";
import { defineEvent } from "../../src/event/define.ts";
import { readOptions } from "../../src/options.ts";
import { recreateSlot } from "../../src/recreate-slot.ts";
import type { TestDatabase } from "../database.ts";
import { startSystem, type System } from "./system.ts";

const schema = `
  create table item (id integer primary key, label text);
  create table line (id integer primary key, item_id integer)`;
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });
const ItemChanged = defineEvent({
  table: "item",
  on: { update: ["label"] },
  payload: (item, { before }) => ({ id: item["id"], was: before?.["label"] }),
});
const LineCreated = defineEvent({ table: "line", on: "insert", payload: (line) => ({ id: line["id"] }) });

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const events = { ItemCreated, ItemChanged, LineCreated };

async function subscribe(system: System, names: readonly string[]): Promise<void> {
  const { status } = await system.call("POST", "/v1/subscriptions", { events: names, url: system.receiver.url });
  expect(status).toBe(201);
}

const dataOf = (system: System): unknown[] => system.receiver.requests.map(({ body }) => (JSON.parse(body) as { data: unknown }).data);

/** A server whose log cannot be decoded. */
async function startServer(): Promise<TestDatabase> {
  const server = new EmbeddedPostgres({
    directory: await mkdtemp(join(tmpdir(), "ancrage-test-")),
    isThrowaway: true,
    settings: { wal_level: "replica" },
  });
  cleanups.push(() => server.remove());
  await server.start();
  const sessions: pg.Client[] = [];
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: server.url() });
    client.on("error", () => undefined);
    await client.connect();
    sessions.push(client);
    return client;
  };
  const remove = async (): Promise<void> => {
    await Promise.all(sessions.map((session) => session.end()));
  };
  return { url: server.url(), name: "postgres", client: await connect(), connect, remove };
}

test("a server without logical replication sends all the same: changes, triggers and marks, and goes on after a restart", async () => {
  let onCaptured: (() => Promise<unknown>) | undefined;
  let looked = Promise.withResolvers<void>();
  const signal = async (name: string): Promise<void> => {
    if (name === "captured") await onCaptured?.();
    else if (name === "leading") looked = Promise.withResolvers();
    else if (name === "watched") looked.resolve();
  };
  const system = await startSystem({
    schema,
    events,
    options: { capture: "outbox" },
    internals: { signal, captureWatchMs: 600_000 },
    database: await startServer(),
  });
  cleanups.push(() => system.close());
  await system.rows("insert into item values (1, 'before')");
  await subscribe(system, ["ItemCreated", "ItemChanged"]);
  await system.rows("insert into item values (2, 'a')");
  await system.rows("update item set label = 'b' where id = 2");
  await system.rows("begin; select ancrage.mute(); insert into item values (3, 'import'); commit");
  await system.rows("select ancrage.trigger('ItemCreated', '1')");
  await system.receiver.until((requests) => requests.length === 3);
  await system.restart();
  await system.rows("insert into item values (4, 'c')");
  await system.receiver.until((requests) => requests.length === 4);
  Object.assign(system.options, { shutdown: { graceS: 0 }, batch: { maxOccurrences: 1 } });
  await system.restart();
  await system.rows("insert into item values (5, 'd')");
  await system.receiver.until((requests) => requests.length === 5);
  expect(dataOf(system)).toEqual(expect.arrayContaining([{ id: 2 }, { id: 2, was: "a" }, { id: 1 }, { id: 4 }, { id: 5 }]));

  // Nothing else asks for the outbox then.
  await looked.promise;
  // The rest of a transaction has no answer, as behind a dead network: that ends with a stop, and comes with the next start.
  const held = await system.database.connect();
  onCaptured = async () => {
    onCaptured = undefined;
    await held.query("begin; lock table ancrage.outbox_a, ancrage.outbox_b");
  };
  await system.rows("insert into item values (6, 'e'), (7, 'f')");
  const waiting = "select count(*) from pg_stat_activity where application_name = 'ancrage outbox' and wait_event_type = 'Lock'";
  await system.until(waiting, 1);
  const askedAtMs = performance.now();
  await system.ancrage().stop();
  expect(performance.now() - askedAtMs).toBeLessThan(20_000);
  await held.query("rollback");
  await system.restart();
  await system.receiver.until(() => dataOf(system).some((data) => (data as { id: number }).id === 7));
});

test("switched to the outbox and back while writers write, nothing is lost and nothing repeated", async () => {
  const system = await startSystem({ schema, events });
  cleanups.push(() => system.close());
  await subscribe(system, ["ItemCreated", "LineCreated"]);
  const writing = new AbortController();
  let last = 0;
  const writers = Promise.all(
    [1, 2, 3].map(async (number) => {
      const writer = await system.database.connect();
      for (let i = 0; !writing.signal.aborted; i++) {
        const id = i * 10 + number;
        // Some hold one table while they come to the other.
        if (i % 3 === 0)
          await writer.query(`begin; insert into item values (${id}); select pg_sleep(0.003); insert into line values (${id}); commit`);
        else await writer.query(`insert into item values (${id})`);
        last = Math.max(last, i);
      }
    }),
  );
  cleanups.push(async () => {
    writing.abort();
    await writers;
  });
  const isRead = async (): Promise<void> => {
    const [row] = await system.rows<{ id: number }>("select max(id) as id from item");
    await system.until(`select count(*) from ancrage.messages where event = 'ItemCreated' and key = '${row?.id}'`, 1);
  };
  await system.until("select count(*) > 20 from item", true);
  const switchTo = async (capture: "wal" | "outbox", isRunning: boolean): Promise<void> => {
    await isRead();
    if (!isRunning) await system.ancrage().stop();
    Object.assign(system.options, { capture });
    const { ran } = await migrate(system.options);
    expect(ran.at(-1)).toContain(`start with capture: "${capture}"`);
    // One that runs goes along by itself.
    if (isRunning) await isRead();
    await system.restart();
    await isRead();
  };
  await switchTo("outbox", true);
  await switchTo("wal", true);
  await switchTo("outbox", false);
  await switchTo("wal", false);
  writing.abort();
  await writers;
  const [expected] = await system.rows<{ n: number }>("select (select count(*) from item) + (select count(*) from line) as n");
  await system.until("select count(*) from ancrage.messages", expected?.n);
  await system.receiver.until((requests) => new Set(requests.map(({ headers }) => headers["webhook-id"])).size === Number(expected?.n));
  const [messages] = await system.rows<{ n: string; keys: string }>(
    "select count(*) as n, count(distinct (event, key)) as keys from ancrage.messages",
  );
  expect(messages).toEqual({ n: String(expected?.n), keys: String(expected?.n) });
  expect(last).toBeGreaterThan(10);
});

test("a switch back to the log that is cut off goes on: its slot is kept, its mark is read, and a slot that is lost first is made anew", async () => {
  const system = await startSystem({ schema, events, options: { capture: "outbox" } });
  cleanups.push(() => system.close());
  await subscribe(system, ["ItemCreated"]);
  const written = async (id: number): Promise<void> => {
    await system.rows("insert into item (id) values ($1)", [id]);
  };
  const arrived = (id: number): Promise<unknown> =>
    system.receiver.until((requests) => requests.some(({ body }) => (JSON.parse(body) as { data: { id: number } }).data.id === id));
  const last = "number = (select max(number) from ancrage.batches)";
  const switchBack = async (): Promise<void> => {
    await system.ancrage().stop();
    Object.assign(system.options, { capture: "wal" });
    await migrate(system.options);
  };
  /** As a process may, that ends while the switch is made: behind where the slot was made, or the mark was written. */
  const journaledLater = (): Promise<unknown> => system.rows(`update ancrage.batches set end_lsn = pg_current_wal_lsn() where ${last}`);
  const toOutbox = async (): Promise<void> => {
    Object.assign(system.options, { capture: "outbox" });
    await migrate(system.options);
    await system.restart();
  };
  await written(1);
  await arrived(1);
  await switchBack();
  await journaledLater();
  await written(2);
  await system.restart();
  await arrived(2);

  // The outbox is read to its end, but the log cannot be.
  const withoutLog = async (): Promise<void> => {
    await switchBack();
    Object.assign(system.options, { replicationUrl: "postgres://127.0.0.1:1/none" });
    await system.restart();
    await system.until(`select cursor like '%isSwitched%' from ancrage.batches where ${last}`, true);
    await system.ancrage().stop();
    Object.assign(system.options, { replicationUrl: undefined });
    await journaledLater();
  };
  await toOutbox();
  await written(3);
  await arrived(3);
  await withoutLog();
  await written(4);
  await system.restart();
  await arrived(4);

  await toOutbox();
  await written(5);
  await arrived(5);
  await withoutLog();
  await expect(migrate({ ...system.options, capture: "outbox" })).rejects.toMatchObject({
    hint: expect.stringContaining('capture: "wal"'),
  });
  await system.rows("select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()");
  await written(6);
  await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: false });
  await written(7);
  await system.restart();
  await arrived(7);
  expect(await system.rows("select reason from ancrage.gaps")).toEqual([{ reason: "slot-recreated" }]);
  expect(dataOf(system).map((data) => (data as { id: number }).id)).toEqual([1, 2, 3, 4, 5, 7]);
});
