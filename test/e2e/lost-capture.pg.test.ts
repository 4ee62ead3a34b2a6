import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { adopt } from "../../src/adopt.ts";
import { runProgram } from "../../src/cli/program.ts";
import { createAncrage, migrate, type Ancrage } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import { readOptions } from "../../src/options.ts";
import { recreateSlot } from "../../src/recreate-slot.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import { startSystem, type System } from "./system.ts";

/** Each way in which capture can be lost, brought about on a real server: what is said, what goes on, and the way back. */
const ItemChanged = defineEvent({ table: "item", on: ["insert", "update"], payload: (item) => ({ id: item["id"] }) });
const schema = "create table item (id integer primary key, note text)";

let system: System;
afterEach(() => system.close());

const start = async (more: Partial<Parameters<typeof startSystem>[0]> = {}): Promise<void> => {
  system = await startSystem({
    schema,
    events: { ItemChanged },
    options: { retry: { schedule: [0, ...Array<number>(2_000).fill(0.05)], jitter: 0 } },
    internals: { captureWatchMs: 50 },
    ...more,
  });
};
const subscribe = (): Promise<unknown> =>
  system.call("POST", "/v1/subscriptions", { event: "ItemChanged", url: system.receiver.url, format: "bare" });
const insert = (id: number): Promise<unknown> => system.rows("insert into item values ($1, 'a')", [id]);
const received = (id: number): Promise<void> =>
  system.until(`select state from ancrage.deliveries d join ancrage.messages m on m.id = d.message_id where m.key = '${id}'`, "delivered");

interface Shown {
  readonly isReady: boolean;
  readonly problems: readonly { readonly code: string; readonly message: string; readonly hint?: string }[];
}

async function statusOf(ancrage: Ancrage = system.ancrage()): Promise<Shown> {
  const headers = { authorization: `Bearer ${String(system.options.token)}` };
  return (await (await ancrage.fetch(new Request("http://ancrage.test/v1/status", { headers }))).json()) as Shown;
}

async function untilLost(): Promise<Shown> {
  for (;;) {
    const status = await statusOf();
    // The gap is noted a moment after capture has stopped.
    if (!status.isReady && status.problems.some(({ code }) => code === "gap")) return status;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** One that no receiver takes before capture is lost, and one does after. */
async function deliveryGoesOn(lose: () => Promise<unknown>): Promise<Shown> {
  await subscribe();
  await insert(1);
  await received(1);
  system.receiver.answer(500);
  await insert(2);
  await system.until("select count(*) from ancrage.messages", 2);
  await lose();
  const status = await untilLost();
  expect((await system.call("GET", "/readyz")).status).toBe(503);
  system.receiver.answer(200);
  await received(2);
  return status;
}

const gaps = (): Promise<{ reason: string; ended: boolean; well: boolean }[]> =>
  system.rows(
    "select reason, to_lsn is not null as ended, from_at <= now() and from_lsn <= coalesce(to_lsn, from_lsn) as well from ancrage.gaps",
  );
const publication = async (): Promise<string> =>
  (await system.rows<{ name: string }>("select 'ancrage_' || oid as name from pg_database where datname = current_database()"))[0]!.name;
const isOld = async (): Promise<boolean> =>
  (await system.rows<{ old: boolean }>("select current_setting('server_version_num')::integer < 180000 as old"))[0]!.old;

describe("what capture stands on is changed while it runs", () => {
  test.each([
    ["a publication is dropped", (name: string) => `drop publication "${name}"`],
    ["a table is taken out of it", (name: string) => `alter publication "${name}" drop table item`],
    ["an identity is changed", () => "alter table item replica identity default"],
  ])("%s: capture stops with a gap, and goes on after migrate and a restart", async (_, sql) => {
    await start();
    const status = await deliveryGoesOn(async () => {
      await system.rows(sql(await publication()));
      // Before PostgreSQL 18 the log itself cannot be decoded any more once something is changed.
      await insert(3);
    });
    expect(status.problems[0]).toMatchObject({
      code: "ANCRAGE_CAPTURE_ALTERED",
      message: expect.stringMatching(/Changes committed after [0-9A-F]+\/[0-9A-F]+ \(\d{4}-.*Z\) are not captured/),
      hint: expect.stringContaining("ancrage migrate"),
    });
    expect(await gaps()).toEqual([{ reason: "capture-altered", ended: false, well: true }]);
    // A start before it was mended says the same, and delivers.
    await system.restart();
    expect(await statusOf()).toMatchObject({ isReady: false, problems: [{ code: "ANCRAGE_CAPTURE_ALTERED" }, { code: "gap" }] });

    await system.ancrage().stop();
    await migrate(system.options);
    if (await isOld()) await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: true });
    await system.restart();
    await insert(4);
    await received(4);
    expect(await statusOf()).toMatchObject({
      isReady: true,
      problems: [{ code: "gap", hint: expect.stringContaining("ancrage gaps resolve") }],
    });
    expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
  });

  test("a table that is renamed", async () => {
    await start();
    const status = await deliveryGoesOn(() => system.rows("alter table item rename to thing"));
    expect(status.problems[0]).toMatchObject({
      code: "ANCRAGE_CAPTURE_ALTERED",
      message: expect.stringContaining(`add table "public"."item"`),
    });
  });

  test("a table that nothing tracks comes into a publication: nothing is wrong, also for a start", async () => {
    await start();
    await subscribe();
    await system.rows(`create table more (id integer primary key); alter publication "${await publication()}" add table more`);
    await system.restart();
    await insert(1);
    await received(1);
    expect(await statusOf()).toMatchObject({ isReady: true, problems: [] });
  });
});

test("a publication that was dropped and made again between two runs is a gap from before the last run's end", async () => {
  await start();
  await subscribe();
  await insert(1);
  await received(1);
  await system.ancrage().stop();
  if (await isOld()) return;
  const name = await publication();
  await system.rows(`drop publication "${name}"`);
  await insert(2);
  await migrate(system.options);
  await system.restart();
  await insert(3);
  await received(3);
  expect(await statusOf()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
  expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
});

test("a slot that somebody drops while it is read", async () => {
  await start();
  const status = await deliveryGoesOn(async () => {
    const slots = "from pg_replication_slots where database = current_database()";
    for (let isDropped = false; !isDropped;) {
      await system.rows(`select pg_terminate_backend(active_pid) ${slots} and active_pid is not null`);
      isDropped = await system.rows(`select pg_drop_replication_slot(slot_name) ${slots}`).then(
        () => true,
        () => false,
      );
    }
  });
  expect(status.problems[0]).toMatchObject({
    code: "ANCRAGE_SLOT_LOST",
    message: expect.stringMatching(/is gone\. Changes committed after/),
  });
  await system.ancrage().stop();
  const recreated = await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: false });
  expect(recreated).toMatchObject({ events: ["ItemChanged"], gap: { reason: "slot-dropped" } });
  await system.restart();
  await insert(4);
  await received(4);
});

describe("on a server of its own", () => {
  let server: OwnServer;
  let folder: string;
  beforeAll(async () => {
    server = await startOwnServer({ max_slot_wal_keep_size: "1MB", min_wal_size: "32MB", max_wal_size: "64MB" });
    folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
    await mkdir(join(folder, "events"));
    const library = new URL("../../src/index.ts", import.meta.url).href;
    await writeFile(
      join(folder, "events", "ItemChanged.ts"),
      `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "item", on: ["insert", "update"], payload: (item) => ({ id: item.id }) });\n`,
    );
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
    await server.remove();
  });

  const cli = async (...words: readonly string[]): Promise<{ code: number; text: string }> => {
    const text: string[] = [];
    const code = await runProgram(words, {
      env: { DATABASE_URL: system.database.url },
      workingFolder: folder,
      print: (line) => text.push(line),
      note: (line) => text.push(line),
      stopping: AbortSignal.abort(),
    });
    return { code, text: text.join("\n") };
  };

  test("a copy in another database neither captures nor sends until it is adopted, and then without the first one's subscriptions", async () => {
    await start({ database: await server.createDatabase("first") });
    await subscribe();
    system.receiver.answer(500);
    await insert(1);
    await system.until("select count(*) from ancrage.deliveries where state in ('pending', 'retrying')", 1);
    await system.ancrage().stop();
    await system.database.client.end();
    const admin = await server.createDatabase("admin");
    await admin.client.query("create database copy template first");
    const options = { ...system.options, database: server.url("copy") };
    const copy = createAncrage({ ...options, logLevel: "silent" });
    await expect(copy.start()).rejects.toMatchObject({
      code: "ANCRAGE_DATABASE_COPIED",
      message: expect.stringContaining("this database is a copy: it was migrated as the database with the oid"),
      hint: expect.stringContaining("ancrage adopt"),
    });
    await expect(migrate(options)).rejects.toMatchObject({ code: "ANCRAGE_DATABASE_COPIED" });
    const checked = { ...readOptions(options), database: options.database };
    const how = { keepsSending: false, onStep: () => undefined };
    expect(await adopt(checked, how)).toMatchObject({ pausedSubscriptions: 1, canceledDeliveries: 1 });
    expect(await adopt(checked, how)).toMatchObject({ found: undefined });
    const adopted = createAncrage({ ...options, logLevel: "silent" });
    await adopted.start();
    const status = await statusOf(adopted);
    expect(status).toMatchObject({
      isReady: true,
      problems: [{ code: "gap", message: expect.stringContaining("a copy that was adopted") }],
    });
    await adopted.stop();
    await copy.stop();
  });

  test("another timeline with the slot in its place loses nothing: a backup restored with its slots, a failover slot", async () => {
    await start({ database: await server.createDatabase("promoted") });
    await subscribe();
    await insert(1);
    await received(1);
    await system.ancrage().stop();
    await server.restart(() => writeFile(join(server.directory, "recovery.signal"), ""), {
      restore_command: "/bin/false",
      max_slot_wal_keep_size: "-1",
    });
    const session = await system.database.connect();
    await session.query("insert into item values (2, 'on timeline 2')");
    const next = system.another();
    await next.start();
    await system.receiver.until((all) => all.some(({ body }) => body === '{"id":2}'));
    expect((await session.query("select timeline from ancrage.settings")).rows).toEqual([{ timeline: 2 }]);
    await next.stop();
    await server.restart();
  });

  test("a slot that PostgreSQL gave up: a start captures nothing and says since when, delivers, and goes on from a slot made anew", async () => {
    await start({ database: await server.createDatabase("lost") });
    await subscribe();
    system.receiver.answer(500);
    await insert(1);
    await system.until("select count(*) from ancrage.messages", 1);
    await system.ancrage().stop();
    expect(await cli("slot", "status")).toMatchObject({ code: 0 });
    expect(await cli("slot", "recreate", folder)).toMatchObject({
      code: 1,
      text: expect.stringContaining("nothing is wrong with the replication slot"),
    });
    const lost = "select wal_status from pg_replication_slots where database = current_database()";
    while ((await system.rows<{ wal_status: string }>(lost))[0]?.wal_status !== "lost") {
      await system.rows("select pg_logical_emit_message(true, 'filler', repeat('x', 1000000)), pg_switch_wal()");
      await system.rows("checkpoint");
    }
    system.receiver.answer(200);
    await system.restart();
    await received(1);
    const status = await untilLost();
    expect(status.problems[0]).toMatchObject({
      code: "ANCRAGE_SLOT_LOST",
      message: expect.stringMatching(/was invalidated \(wal_removed\).*Changes committed after [0-9A-F]+\/[0-9A-F]+ \(\d{4}-/),
      hint: expect.stringMatching(/max_slot_wal_keep_size.*ancrage slot recreate/),
    });
    expect((await cli("slot", "status", "--json")).code).toBe(3);
    expect(await cli("doctor", folder)).toMatchObject({ code: 3, text: expect.stringContaining("was invalidated") });
    expect(await cli("gaps", "resolve", "--all")).toMatchObject({ code: 1 });

    // The process that has lost it does not hold it.
    const recreated = await cli("slot", "recreate", folder);
    expect(recreated).toMatchObject({
      code: 0,
      text: expect.stringMatching(/Gap \d+: changes between .*ancrage backfill ItemChanged.*ancrage gaps resolve/s),
    });
    await system.restart();
    await insert(2);
    await received(2);
    expect(await statusOf()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
    expect(await cli("gaps", "list")).toMatchObject({ code: 0, text: expect.stringContaining("open") });
    expect(await cli("gaps", "resolve", "--all")).toMatchObject({ code: 0 });
    expect(await gaps()).toEqual([{ reason: "slot-invalidated", ended: true, well: true }]);
  });
});
