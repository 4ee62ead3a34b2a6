import { finished } from "node:stream/promises";
import { from } from "pg-copy-streams";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { comparePositions, startOfLog, type Captured, type Change } from "../src/capture/change.ts";
import { SwitchingSource } from "../src/capture/switching-source.ts";
import { ReplicationStream } from "../src/capture/wal/stream.ts";
import { systemClock } from "../src/clock.ts";
import { parseLsn } from "../src/lsn.ts";
import { readSlot } from "../src/store/capture-state.ts";
import { readTypes, type ValueTypes } from "../src/store/types.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { commits, createWalSource, migrateCapture, startSource, type TestSource } from "./wal-source.ts";

let database: TestDatabase;
let running: TestSource[];

beforeEach(async () => {
  database = await cloneDatabase();
  running = [];
  await database.client.query("create table deal (id integer primary key, label text)");
});
afterEach(async () => {
  await Promise.all(running.map(({ source }) => source.stop()));
  await database.remove();
});

async function start(options?: Parameters<typeof startSource>[1]): Promise<TestSource> {
  const started = await startSource(database, options);
  running.push(started);
  return started;
}

const keysOf = (items: readonly Captured[]): readonly string[] => items.flatMap((item) => (item.kind === "change" ? [item.key] : []));
const changesOf = (items: readonly Captured[]): readonly Change[] => items.filter((item) => item.kind === "change");
const numbers = (from: number, to: number): readonly string[] => Array.from({ length: to - from + 1 }, (_, i) => String(from + i));

async function confirmedLsn({ names }: TestSource): Promise<bigint> {
  return parseLsn((await readSlot(database.client, names.slot))?.confirmedLsn ?? "0/0");
}

/** Ends the server's side of the replication session, as a restart or a failing network would. */
async function endWalSender({ names }: TestSource): Promise<void> {
  // In the list and not in the condition: the planner may ask there first, and end the sessions of every database's slots.
  const { rows } = await database.client.query<{ isEnded: boolean }>(
    `select pg_terminate_backend(active_pid) as "isEnded" from pg_replication_slots where slot_name = $1`,
    [names.slot],
  );
  expect(rows).toEqual([{ isEnded: true }]);
}

const insert = (from: number, to: number, label = "'deal ' || i"): Promise<unknown> =>
  database.client.query(`insert into deal select i, ${label} from generate_series(${from}, ${to}) i`);

test("rows of one multi-insert have positions of their own, in order, and the same ones when they are read again", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const first = await start();
  const copy = database.client.query(from("copy deal from stdin"));
  copy.end(
    numbers(1, 500)
      .map((id) => `${id}\tx\n`)
      .join(""),
  );
  await finished(copy);
  const items = changesOf(await first.until(commits(1)));
  expect(items.some((item) => item.position.ordinal > 0)).toBe(true);
  for (const [i, item] of items.slice(1).entries()) expect(comparePositions(items[i]!.position, item.position)).toBeLessThan(0);
  await first.source.stop();
  const second = await start();
  expect(changesOf(await second.until(commits(1))).map((item) => item.position)).toEqual(items.map((item) => item.position));
});

test("a slot that is read again goes on after what is journaled, inside a large transaction too", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const first = await start();
  const endLsn = await confirmedLsn(first);
  await insert(1, 2_000);
  const taken = changesOf(await first.until((items) => items.length >= 700, 100)).slice(0, 700);
  await first.source.stop();

  const second = await start({ resume: { endLsn, journaled: taken.at(-1)!.position } });
  await insert(2_001, 2_002);
  const rest = await second.until(commits(2), 100);
  expect([...keysOf(taken), ...keysOf(rest)]).toEqual(numbers(1, 2_002));
});

test("nothing is lost and nothing comes twice when the connection is lost: idle, between two transactions, and in one", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  await endWalSender(one);
  await insert(1, 10);
  const first = await one.until(commits(1));
  await insert(11, 20);
  // More than is held at once: reading stands still in the middle of this one.
  await insert(21, 20_020, "repeat('x', 1500)");
  const begun = await one.until((items) => keysOf(items).length > 100, 50);
  await endWalSender(one);
  const ended = await one.until(commits(1), 1_000);
  await endWalSender(one);
  await insert(20_021, 20_021);
  const last = await one.until(commits(1));
  const all = [...first, ...begun, ...ended, ...last];
  expect(keysOf(all)).toEqual(numbers(1, 20_021));
  expect(all.filter((item) => item.kind === "commit")).toHaveLength(4);
});

test("a reconnection confirms what is journaled, and not what was only received", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  const before = await confirmedLsn(one);
  await insert(1, 1);
  const [commit] = (await one.until(commits(1))).filter((item) => item.kind === "commit");
  await endWalSender(one);
  await insert(2, 2);
  await one.until(commits(1));
  expect(await confirmedLsn(one)).toBe(before);
  // The last word of a session is the same.
  one.source.confirm(commit!.endLsn);
  await one.source.stop();
  expect(await confirmedLsn(one)).toBe(commit!.endLsn);
});

test("an idle position is given while nothing is outstanding, and covers what other tables wrote", async () => {
  await migrateCapture(database, { deal: "inserts" });
  await database.client.query("create table other (id integer)");
  const one = await start({ senderTimeoutMs: 1_000 });
  await insert(1, 1);
  const items = await one.until(commits(1));
  const { endLsn } = items.find((item) => item.kind === "commit")!;
  expect(one.source.idleLsn()).toBeUndefined();
  one.source.confirm(endLsn);
  await database.client.query("set synchronous_commit = on");
  await database.client.query("insert into other select generate_series(1, 1000)");
  const { rows } = await database.client.query<{ lsn: string }>("select pg_current_wal_flush_lsn()::text as lsn");
  const target = parseLsn(rows[0]!.lsn);
  // The server says how far it has read when it next speaks.
  while ((one.source.idleLsn() ?? 0n) < target) await new Promise((resolve) => setImmediate(resolve));
  expect(await one.source.take(10)).toEqual([]);
});

test("reading stops while nobody takes, and the server goes on hearing of us", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start({ senderTimeoutMs: 1_000 });
  await insert(1, 30_000, "repeat('x', 1500)");
  const sender = async (): Promise<{ pid: number; repliedMs: number; isBehind: boolean }> => {
    const { rows } = await database.client.query<{ pid: number; replied: number; behind: boolean }>(
      `select r.pid, extract(epoch from r.reply_time)::float8 * 1000 as replied, r.sent_lsn < pg_current_wal_flush_lsn() as behind
       from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid where s.slot_name = $1`,
      [one.names.slot],
    );
    const [row] = rows;
    return { pid: row?.pid ?? 0, repliedMs: row?.replied ?? 0, isBehind: row?.behind ?? false };
  };
  const first = await sender();
  let last = first;
  // Three of its timeouts: a server that heard nothing would have ended the session.
  while (last.repliedMs < first.repliedMs + 3_000) last = await sender();
  expect(last).toMatchObject({ pid: first.pid, isBehind: true });
  expect(keysOf(await one.until(commits(1), 1_000))).toEqual(numbers(1, 30_000));
});

test("a transaction of 200,000 rows passes through a bounded memory", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  const begin = process.memoryUsage();
  await insert(1, 200_000, "repeat('x', 200)");
  let peak = 0;
  let turn = 0;
  let count = 0;
  let isWhole = false;
  while (!isWhole) {
    if (!one.source.hasWork()) {
      await new Promise<void>((resolve) => one.source.onWork(resolve));
      continue;
    }
    const items = await one.source.take(1_000);
    count += keysOf(items).length;
    isWhole = items.some((item) => item.kind === "commit");
    // What is held, and not what the collector has not come to yet.
    if (++turn % 20 !== 0) continue;
    globalThis.gc?.();
    const { heapUsed, external } = process.memoryUsage();
    peak = Math.max(peak, heapUsed + external - begin.heapUsed - begin.external);
  }
  expect(count).toBe(200_000);
  // All of it at once takes 150 MB and more.
  expect(peak).toBeLessThan(120 * 1024 * 1024);
});

test("the slot is waited for while the session of before lets it go, and not for ever", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  const holder = one.names;
  await one.source.stop();
  const streamOf = (): ReplicationStream =>
    new ReplicationStream(
      {
        connectionString: database.url,
        slot: holder.slot,
        publications: [holder.publication, holder.insertPublication],
        startLsn: 0n,
        senderTimeoutMs: 10_000,
        clock: systemClock,
      },
      { onData: () => undefined, onKeepalive: () => undefined, onEnd: () => undefined, confirmedLsn: () => 0n },
    );
  const stale = streamOf();
  await stale.start();
  await expect(start({ senderTimeoutMs: 250 })).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_SLOT_BUSY" }));
  // Only that one start has failed: no loop of it is left that would take the slot as soon as it is free.
  await stale.stop();
  const again = streamOf();
  await again.start();
  const warned = Promise.withResolvers<void>();
  const log = pino({ level: "warn" }, { write: (line: string) => line.includes("the replication slot is in use") && warned.resolve() });
  const starting = start({ log });
  await warned.promise;
  await again.stop();
  await insert(1, 1);
  expect(keysOf(await (await starting).until(commits(1)))).toEqual(["1"]);
});

test("a start that waits for the slot ends with stop, and takes it no more", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  const warned = Promise.withResolvers<void>();
  const log = pino({ level: "warn" }, { write: (line: string) => line.includes("the replication slot is in use") && warned.resolve() });
  const { source: waiting } = await createWalSource(database, { log });
  const switching = new SwitchingSource({
    sourceId: waiting.sourceId,
    first: "wal",
    wal: () => waiting,
    outbox: () => expect.fail("nothing was switched"),
    onLogLeft: () => Promise.resolve(),
    log,
  });
  const started = Promise.allSettled([switching.start({ endLsn: 0n, journaled: startOfLog })]);
  await warned.promise;
  await switching.stop();
  await one.source.stop();
  expect(await started).toMatchObject([{ status: "rejected", reason: { code: "ANCRAGE_SLOT_BUSY" } }]);
});

test("a slot that is gone is lost", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const { rows } = await database.client.query<{ slot_name: string }>(
    "select slot_name, pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
  );
  expect(rows).toHaveLength(1);
  await expect(start()).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_SLOT_LOST" }));
});

test("a slot that is dropped while it is read is lost: take says so, and reading has ended", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  await database.client.query(`select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = $1`, [
    one.names.slot,
  ]);
  // Whoever comes first, this or the reconnection: a slot in use cannot be dropped.
  for (;;) {
    const dropped = await database.client.query("select pg_drop_replication_slot($1)", [one.names.slot]).then(
      () => true,
      () => false,
    );
    if (dropped) break;
    await database.client.query(`select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = $1`, [
      one.names.slot,
    ]);
  }
  while (!one.source.hasWork()) await new Promise<void>((resolve) => one.source.onWork(resolve));
  await expect(one.source.take(10)).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_SLOT_LOST" }));
});

test("what was committed before a change that cannot be read is taken; only then the failure is told", async () => {
  await database.client.query("create table poison (id integer primary key, place point)");
  await migrateCapture(database, { deal: "inserts", poison: "inserts" });
  const types = await readTypes(database.client);
  const pointOid = 600;
  const parser: ValueTypes["parser"] = (oid) => {
    if (oid === pointOid) throw new RangeError("a point that nobody can read");
    return types.parser(oid);
  };
  const one = await start({ types: { ...types, parser } });
  await insert(1, 1);
  await insert(2, 2);
  await database.client.query("begin; insert into deal values (3, 'x'); insert into poison values (1, '(1,2)'); commit");
  await insert(4, 4);
  // A source that has failed lets its slot go.
  while ((await readSlot(database.client, one.names.slot))?.activePid !== null);

  const taken: Captured[] = [];
  const takeAll = async (): Promise<never> => {
    for (;;) {
      if (one.source.hasWork()) taken.push(...(await one.source.take(2)));
      else await new Promise<void>((resolve) => one.source.onWork(resolve));
    }
  };
  await expect(takeAll()).rejects.toThrow("a point that nobody can read");
  expect(taken.filter((item) => item.kind === "commit")).toHaveLength(2);
  expect(keysOf(taken)).toEqual(["1", "2", "3"]);
});

test("the session that asks for visibility may end at any time: nothing but a moment is lost", async () => {
  await migrateCapture(database, { deal: "inserts" });
  const one = await start();
  await insert(1, 1);
  expect(keysOf(await one.until(commits(1)))).toEqual(["1"]);
  const end = async (): Promise<void> => {
    await database.client.query(
      "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'ancrage snapshots' and datname = current_database()",
    );
  };
  await end();
  await insert(2, 2);
  expect(keysOf(await one.until(commits(1)))).toEqual(["2"]);
  // While its question is under way.
  await insert(3, 3);
  while (!one.source.hasWork()) await new Promise<void>((resolve) => one.source.onWork(resolve));
  const [taken] = await Promise.all([one.source.take(10), end()]);
  const rest = keysOf(taken).length === 0 ? await one.until(commits(1)) : [];
  expect([...keysOf(taken), ...keysOf(rest)]).toEqual(["3"]);
});

test("explicit triggers and their forgeries: what is signed in its transaction counts, and nothing else", async () => {
  await migrateCapture(database, {});
  const one = await start();
  const { rows } = await database.client.query<{ id: string }>(`select ancrage.trigger('NewDeal', '42', '{"by": "hand"}') as id`);
  await database.client.query("begin; select ancrage.trigger('NewDeal', '43'); rollback");
  await database.client.query("select pg_logical_emit_message(true, 'ancrage.trigger', repeat('x', 40))");
  await database.client.query("select pg_logical_emit_message(false, 'ancrage.trigger', repeat('x', 40))");
  await database.client.query("select pg_logical_emit_message(true, 'ancrage.trigger', '')");
  await database.client.query("select pg_logical_emit_message(true, 'somebody else', 'x')");
  await database.client.query("select ancrage.trigger('NewDeal', '44')");
  const items = await one.until(commits(5));
  expect(items.filter((item) => item.kind === "trigger")).toMatchObject([
    { id: rows[0]!.id, event: "NewDeal", key: "42", data: { by: "hand" } },
    { event: "NewDeal", key: "44", data: undefined },
  ]);
  expect(one.source.ignoredMarks).toBe(3);
});

test("a source that stopped has let its slot go, each time, and stops again", async () => {
  await migrateCapture(database, {});
  for (let turn = 0; turn < 10; turn++) {
    const one = await start();
    await one.source.stop();
    expect((await readSlot(database.client, one.names.slot))?.activePid).toBeNull();
    await one.source.stop();
  }
});
