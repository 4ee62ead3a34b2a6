import { EventEmitter, once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { adopt } from "../../src/adopt.ts";
import { runProgram } from "../../src/cli/program.ts";
import { createAncrage, migrate, type Ancrage } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import { readOptions, type AncrageOptions } from "../../src/options.ts";
import { recreateSlot } from "../../src/recreate-slot.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import { serverVersion } from "../server-version.ts";
import { startSystem, type System } from "./system.ts";

/** Each way in which capture can be lost, brought about on a real server: what is said, what goes on, and the way back. */
const ItemChanged = defineEvent({ table: "item", on: ["insert", "update"], payload: (item) => ({ id: item["id"] }) });
const schema = "create table item (id integer primary key, note text)";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  await mkdir(join(folder, "events"));
  const library = new URL("../../src/index.ts", import.meta.url).href;
  await writeFile(
    join(folder, "events", "ItemChanged.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "item", on: ["insert", "update"], payload: (item) => ({ id: item.id }) });\n`,
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

let system: System;

/** The command line, in this process. */
const cli = async (...words: readonly string[]): Promise<{ code: number; text: string }> => {
  const text: string[] = [];
  const code = await runProgram(words, {
    env: {
      DATABASE_URL: system.database.url,
      ANCRAGE_TOKEN: String(system.options.token),
      ANCRAGE_SECRET_KEY: String(system.options.secretKey),
    },
    workingFolder: folder,
    print: (line) => text.push(line),
    note: (line) => text.push(line),
    heedStopping: () => (words[0] === "start" ? new AbortController().signal : AbortSignal.abort()),
  });
  return { code, text: text.join("\n") };
};

const start = async (more: Partial<Parameters<typeof startSystem>[0]> = {}): Promise<void> => {
  system = await startSystem({
    schema,
    events: { ItemChanged },
    options: { retry: { schedule: [0, ...Array<number>(2_000).fill(0.05)], jitter: 0 } },
    internals: { captureWatchMs: 20 },
    ...more,
  });
};
const subscribe = (): Promise<unknown> =>
  system.call("POST", "/v1/subscriptions", { event: "ItemChanged", url: system.receiver.url, format: "bare" });
let lastId = 0;
async function insert(): Promise<number> {
  await system.rows("insert into item values ($1, 'a')", [++lastId]);
  return lastId;
}
const count = (id: number): number => system.receiver.requests.filter(({ body }) => body === `{"id":${id}}`).length;
const received = (id: number): Promise<unknown> => system.receiver.until(() => count(id) > 0);
const goesThrough = async (): Promise<unknown> => received(await insert());

interface Shown {
  readonly isReady: boolean;
  readonly problems: readonly { readonly code: string; readonly message: string; readonly hint?: string }[];
}

async function statusOf(ancrage: Ancrage = system.ancrage()): Promise<Shown> {
  const headers = { authorization: `Bearer ${String(system.options.token)}` };
  return (await (await ancrage.fetch(new Request("http://ancrage.test/v1/status", { headers }))).json()) as Shown;
}

async function untilLost(ancrage?: Ancrage): Promise<Shown> {
  for (;;) {
    const status = await statusOf(ancrage);
    // The gap is noted a moment after capture has stopped, and its words are those of the loss after that. (Not ready it also is while the
    // journal refuses, on a machine that stands still.)
    const isTold = status.problems.some(({ message }) => message.includes("are not captured"));
    if (!status.isReady && isTold && status.problems.some(({ code }) => code === "gap")) return status;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** One that no receiver takes before capture is lost, and one does after. */
async function deliveryGoesOn(lose: () => Promise<unknown>): Promise<Shown> {
  await goesThrough();
  system.receiver.answer(500);
  const id = await insert();
  await received(id);
  await lose();
  const status = await untilLost();
  expect((await system.call("GET", "/readyz")).status).toBe(503);
  const before = count(id);
  system.receiver.answer(200);
  await system.receiver.until(() => count(id) > before);
  return status;
}

/** What was missed comes by a backfill, once. */
async function backfill(id: number): Promise<void> {
  const { body: subscriptions } = await system.call("GET", "/v1/subscriptions");
  const asked = { kind: "backfill", event: "ItemChanged", subscriptionId: subscriptions.data[0].id, where: `id = ${id}` };
  const { status, body: job } = await system.call("POST", "/v1/jobs", asked);
  expect(status).toBe(201);
  await received(id);
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  await system.until(`select count(*) from ancrage.messages where key = '${id}'`, 1);
  expect(count(id)).toBe(1);
}

const gaps = (): Promise<{ reason: string; ended: boolean; well: boolean }[]> =>
  system.rows(
    `select reason, to_lsn is not null as ended, from_at <= now() and from_lsn <= coalesce(to_lsn, from_lsn) as well
     from ancrage.gaps where resolved_at is null`,
  );
const resolve = (): Promise<unknown> => system.rows("update ancrage.gaps set resolved_at = now() where to_lsn is not null");
const publication = async (): Promise<string> =>
  (await system.rows<{ name: string }>("select 'ancrage_' || oid as name from pg_database where datname = current_database()"))[0]!.name;
/** Before PostgreSQL 18 a slot cannot be read across a time without its publication: it must be made anew. */
const isSlotBroken = async (): Promise<boolean> => (await serverVersion(system.database.client)) < 180_000;

/** Starts where the log cannot be read, and does what is said there: the code, and whether the hint names the command. */
async function mendSlot(): Promise<readonly unknown[]> {
  await system.restart();
  const [problem] = (await untilLost()).problems;
  await system.ancrage().stop();
  await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: false });
  return [problem?.code, problem?.hint?.includes("ancrage slot recreate")];
}
const slot = `(select slot_name from pg_replication_slots where database = current_database())`;
const move = `select pg_replication_slot_advance(${slot}, pg_current_wal_lsn())`;

describe("one system that loses capture again and again", () => {
  beforeAll(async () => {
    await start();
    await subscribe();
  });
  afterAll(() => system.close());
  // What a test before it left is dealt with, and all is well.
  beforeEach(async () => {
    await resolve();
  });

  test.each([
    ["a publication is dropped", (name: string) => `drop publication "${name}"`],
    ["a table is taken out of it", (name: string) => `alter publication "${name}" drop table item`],
    ["an identity is changed", () => "alter table item replica identity default"],
  ])("%s while it runs: capture stops with a gap, and goes on after migrate and a restart", async (_, sql) => {
    const status = await deliveryGoesOn(async () => {
      await system.rows(sql(await publication()));
      // Before PostgreSQL 18 the log itself cannot be decoded any more once something is changed.
      await insert();
    });
    expect(status.problems[0]).toMatchObject({
      code: "ANCRAGE_CAPTURE_ALTERED",
      message: expect.stringMatching(/Changes committed after [0-9A-F]+\/[0-9A-F]+ \(\d{4}-.*Z\) are not captured/),
      hint: expect.stringContaining("ancrage migrate"),
    });
    expect(await gaps()).toEqual([{ reason: "capture-altered", ended: false, well: true }]);
    // A start before it was mended says the same, and delivers.
    await system.restart();
    await expect.poll(() => statusOf()).toMatchObject({ isReady: false, problems: [{ code: "ANCRAGE_CAPTURE_ALTERED" }, { code: "gap" }] });

    await system.ancrage().stop();
    await migrate(system.options);
    if (await isSlotBroken()) await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: true });
    await system.restart();
    await goesThrough();
    await expect
      .poll(() => statusOf())
      .toMatchObject({
        isReady: true,
        problems: [{ code: "gap", hint: expect.stringContaining("ancrage gaps resolve") }],
      });
    expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
  });

  test("a table that is renamed", async () => {
    const status = await deliveryGoesOn(() => system.rows("alter table item rename to thing"));
    expect(status.problems[0]).toMatchObject({
      code: "ANCRAGE_CAPTURE_ALTERED",
      message: expect.stringContaining(`add table "public"."item"`),
    });
    await system.rows("alter table thing rename to item");
    await system.restart();
    await goesThrough();
  });

  test("a table that nothing tracks comes into a publication: nothing is wrong, also for a start", async () => {
    await system.rows(`create table more (id integer primary key); alter publication "${await publication()}" add table more`);
    await system.restart();
    await goesThrough();
    await expect.poll(() => statusOf()).toMatchObject({ isReady: true, problems: [] });
  });

  test("a publication that was dropped and made again between two runs is a gap from before the last run's end", async () => {
    await goesThrough();
    await system.ancrage().stop();
    await system.rows(`drop publication "${await publication()}"`);
    await insert();
    await migrate(system.options);
    const isBroken = await isSlotBroken();
    const told = isBroken ? await mendSlot() : [];
    await system.restart();
    await goesThrough();
    expect(told).toEqual(isBroken ? ["ANCRAGE_CAPTURE_ALTERED", true] : []);
    // A slot that could not be read is a gap of its own.
    const lost = Array.from({ length: isBroken ? 2 : 1 }, () => ({ reason: "capture-altered", ended: true, well: true }));
    await expect.poll(() => statusOf()).toMatchObject({ isReady: true, problems: lost.map(() => ({ code: "gap" })) });
    expect(await gaps()).toEqual(lost);
  });

  test("a slot that somebody drops while it is read", async () => {
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
    const recreated = await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: false });
    expect(recreated).toMatchObject({ events: ["ItemChanged"], gap: { reason: "slot-dropped" } });
    await system.restart();
    await goesThrough();
  });

  test("a slot that somebody drops after a start has looked at it, and before it is read", async () => {
    const status = await deliveryGoesOn(async () => {
      await system.ancrage().stop();
      // A start reads them once it has found the slot in its place.
      const held = await system.database.connect();
      await held.query("begin; lock table ancrage.subscriptions");
      const restarted = system.restart();
      await system.until("select count(*) from pg_locks where relation = 'ancrage.subscriptions'::regclass and not granted", 1);
      await system.rows(`select pg_drop_replication_slot(${slot})`);
      await held.query("commit");
      await restarted;
    });
    expect(status.problems[0]).toMatchObject({ code: "ANCRAGE_SLOT_LOST", message: expect.stringContaining("is gone. Changes committed") });
    await recreateSlot({ ...readOptions(system.options), database: system.database.url }, { isForced: false });
    await system.restart();
    await goesThrough();
  });

  test.each([
    ["somebody drops it", "slot-dropped", `select pg_drop_replication_slot(${slot})`, /replication slot "ancrage_\d+" is gone\./],
    [
      "somebody moves it on",
      "slot-moved",
      move,
      /was moved to [0-9A-F]+\/[0-9A-F]+ by somebody else; the journal ends at [0-9A-F]+\/[0-9A-F]+\./,
    ],
    [
      "another one has its name",
      "slot-foreign",
      `select pg_drop_replication_slot(${slot});
       select pg_create_logical_replication_slot('ancrage_' || oid, 'test_decoding') from pg_database where datname = current_database()`,
      /is not ours: it is of the plugin "test_decoding"/,
    ],
  ])(
    "the slot while nothing runs: %s: nothing is captured, and what was missed comes by a backfill, once",
    async (_, reason, sql, words) => {
      await system.ancrage().stop();
      const missed = await insert();
      await system.rows(sql);
      await system.restart();
      const status = await untilLost();
      expect(status.problems[0]).toMatchObject({
        code: "ANCRAGE_SLOT_LOST",
        message: expect.stringMatching(
          new RegExp(`${words.source}.*Changes committed after [0-9A-F]+/[0-9A-F]+ \\(\\d{4}-.*Z\\) are not captured`),
        ),
        hint: expect.stringContaining("ancrage slot recreate FOLDER"),
      });
      expect((await system.call("GET", "/readyz")).status).toBe(503);
      expect(await gaps()).toEqual([{ reason, ended: false, well: true }]);
      expect(await cli("slot", "status")).toMatchObject({ code: 3, text: expect.stringMatching(words) });
      expect(await cli("doctor", folder)).toMatchObject({ code: 3, text: expect.stringMatching(words) });
      expect(await cli("slot", "recreate", folder)).toMatchObject({
        code: 0,
        text: expect.stringContaining("ancrage backfill ItemChanged"),
      });
      await system.restart();
      await goesThrough();
      await backfill(missed);
      await expect.poll(() => statusOf()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
      expect(await gaps()).toEqual([{ reason, ended: true, well: true }]);
      expect(await cli("gaps", "resolve", "--all")).toMatchObject({ code: 0 });
      expect(await gaps()).toEqual([]);
    },
  );

  test("the log has gone back behind the journal: nothing is captured until it is adopted", async () => {
    await goesThrough();
    await system.ancrage().stop();
    // As where the log was reset (pg_resetwal): a journal that is newer than it.
    await system.rows("update ancrage.batches set end_lsn = end_lsn + 1000000000");
    await system.restart();
    expect((await untilLost()).problems[0]).toMatchObject({
      code: "ANCRAGE_SLOT_LOST",
      message: expect.stringMatching(/the journal ends at .*, but the server's log only at .*went back in time/),
      hint: expect.stringContaining("ancrage adopt FOLDER"),
    });
    expect(await gaps()).toMatchObject([{ reason: "log-went-back", ended: false }]);
    expect((await cli("slot", "status")).code).toBe(3);
    await system.ancrage().stop();
    expect(await cli("adopt", folder, "--keep-sending")).toMatchObject({ code: 0, text: expect.stringContaining("went back in time") });
    await system.restart();
    await goesThrough();
  });

  // The last ones: they leave the log.
  test("a slot that is lost before a switch to the outbox: migrate notes the gap, drops the slot, and nothing stands in the way", async () => {
    await goesThrough();
    await system.ancrage().stop();
    const missed = await insert();
    await system.rows(move);
    const outbox = { ...system.options, capture: "outbox" } as const;
    const { ran } = await migrate(outbox);
    expect(ran.join("\n")).toMatch(
      /GAP: changes between .* were not seen: somebody else had moved the replication slot.*pg_drop_replication_slot/s,
    );
    expect(await gaps()).toEqual([{ reason: "slot-moved", ended: true, well: true }]);
    const next = createAncrage({ ...outbox, logLevel: "silent" });
    await next.start();
    await goesThrough();
    await expect.poll(() => statusOf(next)).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
    expect(await system.rows("select from pg_replication_slots where database = current_database()")).toEqual([]);
    expect(count(missed)).toBe(0);
    await next.stop();
    await migrate(system.options);
    await system.restart();
    await goesThrough();
  });

  describe("after a switch to the outbox, before the log was read to it", () => {
    const switched = async (sql: string): Promise<{ outbox: AncrageOptions; missed: number; kept: number }> => {
      await goesThrough();
      await system.ancrage().stop();
      const missed = await insert();
      const outbox: AncrageOptions = { ...system.options, capture: "outbox", logLevel: "silent" };
      await migrate(outbox);
      const kept = await insert();
      await system.rows(sql);
      return { outbox, missed, kept };
    };
    /** What is in the outbox is sent, and what was only in the log is told as missed. */
    const goesOn = async (next: Ancrage, { missed, kept }: { readonly missed: number; readonly kept: number }): Promise<void> => {
      await received(kept);
      await expect.poll(() => statusOf(next)).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
      expect(await gaps()).toMatchObject([{ ended: true, well: true }]);
      expect(count(missed)).toBe(0);
      await goesThrough();
      await next.stop();
    };

    test("a slot that is lost: migrate once more leads out", async () => {
      const { outbox, ...ids } = await switched(move);
      const stuck = createAncrage(outbox);
      await stuck.start();
      expect((await untilLost(stuck)).problems[0]).toMatchObject({
        code: "ANCRAGE_SLOT_LOST",
        hint: expect.stringMatching(
          /written to the outbox since the switch.*Run "ancrage migrate FOLDER", which notes the gap and leaves the log/,
        ),
      });
      expect((await migrate(outbox)).ran.join("\n")).toMatch(/GAP: .*pg_drop_replication_slot/s);
      await stuck.stop();
      const next = createAncrage(outbox);
      await next.start();
      await goesOn(next, ids);
      await migrate(system.options);
      await system.restart();
    });

    test("a slot that is dropped: a start goes on by itself, and notes the gap", async () => {
      const { outbox, ...ids } = await switched(`select pg_drop_replication_slot(${slot})`);
      const next = createAncrage(outbox);
      await next.start();
      expect((await statusOf(next)).problems).toMatchObject([{ code: "gap" }]);
      await goesOn(next, ids);
    });
  });
});

describe("a system of its own", () => {
  afterEach(() => system.close());

  test("a newer migrate while an older process runs: it goes on, is told of, and may be started again; the newer one takes over", async () => {
    const ItemMade = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });
    const MoreMade = defineEvent({ table: "more", on: "insert", payload: (more) => ({ more: more["id"] }) });
    const looks = { count: 0 };
    await start({
      events: { ItemMade },
      schema: `${schema}; create table more (id integer primary key)`,
      internals: { captureWatchMs: 20, signal: (kind) => void (kind === "watched" && looks.count++) },
    });
    await system.call("POST", "/v1/subscriptions", { event: "ItemMade", url: system.receiver.url, format: "bare" });
    const newer = { ...system.options, events: { ItemMade, ItemChanged, MoreMade } };
    const steps: string[] = [];
    await migrate(newer, { onStep: (step) => steps.push(step) });
    expect(steps).toContainEqual(expect.stringMatching(/^a process reads the log with the definitions that it began with: restart it/));
    expect(steps).toContainEqual(expect.stringMatching(/^left for a time when no process reads the log: .* drop table "public"."item"/));
    await system.rows("insert into item values (1); insert into more values (1); update item set note = 'b'");
    await received(1);
    for (const before = looks.count; looks.count < before + 3;) await new Promise((resolve) => setTimeout(resolve, 20));
    await expect.poll(() => statusOf()).toMatchObject({ isReady: true, problems: [] });
    // Then all of it: the older one finds its table in the publication that has more.
    await system.ancrage().stop();
    await migrate(newer);
    await system.restart();
    await system.rows("insert into item values (2, 'a')");
    await received(2);
    const next = createAncrage(newer);
    await next.start();
    await system.ancrage().stop();
    await system.rows("insert into more values (2)");
    await system.until("select count(*) from ancrage.messages where event = 'MoreMade'", 1);
    await next.stop();
    expect(await system.rows("select key from ancrage.messages order by id")).toEqual([{ key: "1" }, { key: "2" }, { key: "2" }]);
  });

  test("what was written before a table was renamed, and not read yet, is read under its new name; one that is made anew is a gap", async () => {
    const on = (table: string) => ({ ItemMade: defineEvent({ table, on: "insert", payload: (item) => ({ id: item["id"] }) }) });
    await start({ events: on("item") });
    await system.call("POST", "/v1/subscriptions", { event: "ItemMade", url: system.receiver.url, format: "bare" });
    await system.rows("insert into item values (1)");
    await received(1);
    await system.ancrage().stop();
    await system.rows("insert into item values (2); alter table item rename to thing");
    Object.assign(system.options, { events: on("thing") });
    await migrate(system.options);
    await system.restart();
    await received(2);
    await system.rows("insert into thing values (3)");
    await received(3);
    expect(await gaps()).toEqual([]);

    await system.ancrage().stop();
    await system.rows(`insert into thing values (4); alter table thing rename to thing_before;
      create table thing (id integer primary key, note text); insert into thing values (5); drop table thing_before`);
    await migrate(system.options);
    await system.restart();
    await system.rows("insert into thing values (6)");
    await received(6);
    expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
    expect(system.receiver.requests.map(({ body }) => body)).toEqual(expect.arrayContaining(['{"id":4}']));
  });
});

describe("on a server of its own", () => {
  let server: OwnServer;
  beforeAll(async () => {
    server = await startOwnServer({
      max_slot_wal_keep_size: "48MB",
      min_wal_size: "32MB",
      max_wal_size: "64MB",
      max_prepared_transactions: "4",
    });
  });
  afterAll(() => server.remove());
  afterEach(() => system.close());
  beforeEach(() => {
    lastId = 0;
  });

  test("a copy in another database neither captures nor sends until it is adopted, and then without the first one's subscriptions", async () => {
    await start({ database: await server.createDatabase("first") });
    await subscribe();
    system.receiver.answer(500);
    await insert();
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
    const refused = { code: 3, text: expect.stringMatching(/this database is a copy.*ancrage adopt/s) };
    expect(await cli("start", folder, "--port", "0", "--database", options.database)).toMatchObject(refused);
    const looked = await cli("doctor", folder, "--database", options.database);
    expect(looked).toMatchObject(refused);
    // Which would refuse.
    expect(looked.text).not.toContain("ancrage migrate");
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

  test.each([
    ["pauses and cancels what the first one sends itself", false],
    ["goes on with --keep-sending, also with what the first one had only in memory", true],
  ])("a copy of a database whose process was in the middle of it %s", async (_, keepsSending) => {
    const name = keepsSending ? "moved" : "staged";
    await start({ database: await server.createDatabase(name) });
    await subscribe();
    system.receiver.answer(500);
    await insert();
    await system.receiver.until((all) => all.length > 0);
    await system.ancrage().stop();
    await system.database.client.end();
    const admin = await server.createDatabase(`admin_of_${name}`);
    await admin.client.query(`create database copy_of_${name} template ${name}`);
    const session = await server.connect(`copy_of_${name}`);
    // As it is while a delivery has neither an outcome nor been open for a second: there is no row of it.
    await session.query(`delete from ancrage.deliveries; update ancrage.batches set settled_commit_lsn = '0/0', settled_change_lsn = '0/0',
      settled_ordinal = 0, unsettled_from = (select min(id) from ancrage.messages);
      insert into ancrage.jobs (id, kind, input) values ('job_left', 'cancel', '{}'); update ancrage.leaders set is_given_back = false`);
    const options = { ...system.options, database: server.url(`copy_of_${name}`) };
    const adopted = await adopt({ ...readOptions(options), database: options.database }, { keepsSending, onStep: () => undefined });
    expect(adopted).toMatchObject(
      keepsSending
        ? { pausedSubscriptions: 0, canceledDeliveries: 0, canceledJobs: 0, keptDeliveries: 1 }
        : { pausedSubscriptions: 1, canceledDeliveries: 0, canceledJobs: 1, keptDeliveries: 0 },
    );
    // What changes a subscription would wait for whoever led the first one.
    expect((await session.query("select from ancrage.leaders where not is_given_back")).rowCount).toBe(0);
    system.receiver.answer(200);
    const before = system.receiver.requests.length;
    const copy = createAncrage({ ...options, logLevel: "silent" });
    await copy.start();
    await session.query("insert into item values (2, 'of the copy')");
    const journaled = async (): Promise<boolean> => (await session.query("select from ancrage.messages where key = '2'")).rowCount === 1;
    while (!(await journaled())) await new Promise((done) => setTimeout(done, 20));
    if (keepsSending) await system.receiver.until((all) => all.length === before + 2);
    await copy.stop();
    const sent = system.receiver.requests.slice(before).map(({ body }) => body);
    expect(sent.toSorted()).toEqual(keepsSending ? ['{"id":1}', '{"id":2}'] : []);
  });

  test("another timeline with the slot in its place loses nothing: a backup restored with its slots, a failover slot", async () => {
    await start({ database: await server.createDatabase("promoted") });
    await subscribe();
    await goesThrough();
    await system.ancrage().stop();
    await server.restart(() => writeFile(join(server.directory, "recovery.signal"), ""), {
      restore_command: "/bin/false",
      max_slot_wal_keep_size: "-1",
      // As it was: recovery takes no less.
      max_prepared_transactions: "4",
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

  test("near its bound, behind, and held up by old transactions: metrics, status, log and doctor say so, until it has passed", async () => {
    const looks = new EventEmitter();
    const lines: { readonly level: number; readonly msg: string; readonly problem?: string }[] = [];
    await start({
      database: await server.createDatabase("near"),
      internals: {
        captureWatchMs: 100,
        healthLimits: { behindS: 0.5, behindBytes: 1_000_000, oldTransactionS: 0.3 },
        signal: (name) => void looks.emit(name),
        log: pino({ level: "info" }, { write: (line: string) => lines.push(JSON.parse(line)) }),
      },
    });
    await subscribe();
    const [prepared, report, lock] = [await system.database.connect(), await system.database.connect(), await system.database.connect()];
    await prepared.query("begin; insert into item values (1000); prepare transaction 'left over'");
    await report.query("set application_name = 'report'; begin isolation level repeatable read; select count(*) from item");
    await lock.query("begin; lock table ancrage.batches in share mode");
    const id = await insert();
    const untilProblems = async (codes: readonly string[], meanwhile: () => Promise<unknown>): Promise<Shown["problems"]> => {
      for (;;) {
        const { problems } = await statusOf();
        if (problems.map(({ code }) => code).join() === codes.join()) return problems;
        await meanwhile();
        await once(looks, "watched");
      }
    };
    const fill = (): Promise<unknown> => system.rows("select pg_logical_emit_message(true, 'filler', repeat('x', 1000000))");
    // With it PostgreSQL says from where on the log is still needed.
    const passOn = async (): Promise<void> => {
      await system.rows("checkpoint");
      await insert();
    };
    expect(await untilProblems(["slot-near-its-bound", "capture-behind", "vacuum-held-back"], fill)).toMatchObject([
      {
        message: expect.stringMatching(
          /PostgreSQL keeps [\d.]+ MiB of its log for the replication slot, and gives the slot up in about \d+ (?:s|min):/,
        ),
        hint: expect.stringContaining("max_slot_wal_keep_size"),
      },
      { message: expect.stringMatching(/capture is [\d.]+ MiB and \d+ s behind the end of the log/) },
      {
        message: expect.stringMatching(/the prepared transaction 'left over' has been open for \d+ s: vacuum/),
        hint: expect.stringContaining("rollback prepared"),
      },
    ]);
    // It reads and delivers what it can: an alarm, and no fault of this process.
    expect((await system.call("GET", "/readyz")).status).toBe(200);
    const headers = { authorization: `Bearer ${String(system.options.token)}` };
    const metrics = await (await system.ancrage().fetch(new Request("http://ancrage.test/metrics", { headers }))).text();
    const metric = (name: string): number => Number(new RegExp(`^ancrage_${name} (.*)$`, "m").exec(metrics)?.[1]);
    expect(metric("capture_lag_seconds")).toBeGreaterThan(0.5);
    expect(metric("capture_lag_bytes")).toBeGreaterThan(1_000_000);
    expect(metric("slot_seconds_left")).toBeLessThan(3_600);
    expect(metric("slot_safe_bytes")).toBeLessThan(64 * 1024 * 1024);
    expect(metric("oldest_transaction_seconds")).toBeGreaterThan(0.3);
    const { text } = await cli("doctor", folder);
    expect(text).toMatch(/a process reads it; [\d.]+ MiB are not journaled, .*; after [\d.]+ MiB more of it the slot is given up/);
    expect(text).toMatch(/the prepared transaction 'left over' is the oldest that is open: for \d+ s/);

    await lock.query("rollback");
    await received(id);
    await prepared.query("rollback prepared 'left over'");
    await untilProblems(["vacuum-held-back"], passOn);
    expect((await statusOf()).problems).toMatchObject([
      { message: expect.stringMatching(/the transaction of report \(pid \d+\) has been open for/) },
    ]);
    await report.query("rollback");
    await untilProblems([], passOn);
    for (const problem of ["slot-near-its-bound", "capture-behind", "vacuum-held-back"]) {
      const told = lines.filter((line) => line.problem === problem);
      expect(told[0]).toMatchObject({ level: 40, msg: expect.stringMatching(/^(?:PostgreSQL keeps|capture is|the prepared transaction)/) });
      expect(told.at(-1)).toMatchObject({ level: 30, msg: "this has passed" });
    }
  });

  test("a slot that PostgreSQL gave up: a start captures nothing and says since when, delivers, and goes on from a slot made anew", async () => {
    await start({ database: await server.createDatabase("lost") });
    await subscribe();
    system.receiver.answer(500);
    await insert();
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
    await system.until("select state from ancrage.deliveries", "delivered");
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
    await goesThrough();
    await expect.poll(() => statusOf()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
    expect(await cli("gaps", "list")).toMatchObject({ code: 0, text: expect.stringContaining("open") });
    expect(await gaps()).toEqual([{ reason: "slot-invalidated", ended: true, well: true }]);
    expect(await cli("gaps", "resolve", "--all")).toMatchObject({ code: 0 });
  });
});
