import { randomBytes } from "node:crypto";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CaptureWatch, type CaptureWatchOptions } from "../src/capture/capture-watch.ts";
import { checkDatabase } from "../src/capture/check.ts";
import { certifyFooting } from "../src/capture/footing.ts";
import { captureNames, sourceIdOf } from "../src/capture/wal/slot.ts";
import { systemClock } from "../src/clock.ts";
import { createAncrage, migrate, type Ancrage, type Internals } from "../src/create-ancrage.ts";
import { defineEvent } from "../src/event/define.ts";
import { formatLsn, parseLsn } from "../src/lsn.ts";
import type { AncrageOptions } from "../src/options.ts";
import { readResume } from "../src/read-resume.ts";
import { readServerIdentity, readSlot } from "../src/store/capture-state.ts";
import { readSettings } from "../src/store/settings.ts";
import { readTables } from "../src/store/tables.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { serverVersion } from "./server-version.ts";
import { catalogueOfTables, migrateCapture, type Reads } from "./wal-source.ts";

const log = pino({ level: process.env["LOG"] ?? "silent" });
const DealCreated = defineEvent({ table: "deal", on: "insert", payload: (deal) => ({ id: deal["id"] }) });
const DealChanged = defineEvent({ table: "deal", on: "update", payload: (deal) => ({ id: deal["id"] }) });
const Sized = defineEvent({ table: "sized", on: "update", payload: (row) => ({ id: row["id"] }) });
const VisitMade = defineEvent({ table: "visit", on: "insert", payload: (visit) => ({ id: visit["id"] }) });

type Events = NonNullable<AncrageOptions["events"]>;

let database: TestDatabase;
let started: Ancrage[];

beforeEach(async () => {
  database = await cloneDatabase();
  started = [];
  await database.client.query(`
    create table deal (id integer primary key, label text);
    create table visit (id integer primary key, note text);
    alter table visit replica identity nothing;
    create table other (id integer)`);
});
afterEach(async () => {
  await Promise.all(started.map((ancrage) => ancrage.stop()));
  await database.remove();
});

const optionsOf = (events: Events) => ({
  database: database.url,
  events,
  token: "a-token-of-the-operator",
  secretKey: randomBytes(32).toString("base64"),
  allowHttp: true,
  allowNetworks: ["127.0.0.0/8"],
});

async function start(events: Events, internals: Internals = {}): Promise<Ancrage> {
  const ancrage = createAncrage(optionsOf(events), { log, ...internals });
  started.push(ancrage);
  await ancrage.start();
  return ancrage;
}

async function check(reads: Readonly<Record<string, Reads>>): Promise<unknown> {
  return await checkDatabase(database.client, {
    catalogue: catalogueOfTables(await readTables(database.client), reads),
    environment: "production",
  });
}

describe("migrate", () => {
  test("makes the schema, the identities, the publications and last the slot, and does nothing a second time", async () => {
    await database.client.query("drop schema ancrage cascade");
    const { ran } = await migrate(optionsOf({ DealCreated, DealChanged, VisitMade }));
    const generated = (await serverVersion(database.client)) >= 180_000 ? ", publish_generated_columns = stored" : "";
    expect(ran.map((step) => step.replaceAll(/ancrage_\d+/g, "ancrage_oid"))).toEqual([
      "journal",
      `alter table "public"."deal" replica identity full`,
      `create publication "ancrage_oid" for table "public"."deal" with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true${generated})`,
      `create publication "ancrage_oid_inserts" for table "public"."visit" with (publish = 'insert, truncate', publish_via_partition_root = true${generated})`,
      `select pg_create_logical_replication_slot('ancrage_oid', 'pgoutput')`,
    ]);
    expect((await migrate(optionsOf({ DealCreated, DealChanged, VisitMade }))).ran).toEqual([]);
  });

  test("says the first time which environment the database belongs to; a process of another one does not send from it", async () => {
    await database.client.query("drop schema ancrage cascade");
    const options = optionsOf({ DealCreated });
    await migrate({ ...options, environment: "staging" });
    // A copy of production keeps its name, whoever migrates it.
    await migrate({ ...options, environment: "production" });
    const tried = createAncrage(options, { log });
    await expect(tried.start()).rejects.toMatchObject({
      code: "ANCRAGE_DATABASE_COPIED",
      message: expect.stringContaining('belongs to the environment "staging", and this process runs as "production"'),
      hint: expect.stringMatching(/--environment staging.*ancrage adopt/),
    });
    const staging = createAncrage({ ...options, environment: "staging" }, { log });
    started.push(tried, staging);
    await staging.start();
  });

  test("a table of which only inserts are read is published so that the application's own updates go on", async () => {
    await migrateCapture(database, { visit: "inserts", deal: "old values" });
    await database.client.query("insert into visit values (1, 'a')");
    expect((await database.client.query("update visit set note = 'b'")).rowCount).toBe(1);
    expect((await database.client.query("delete from visit")).rowCount).toBe(1);
  });

  test("a table without an identity gets one before its updates are published, old values or not", async () => {
    await database.client.query(`
      create table note (id integer, primary key (id) deferrable, label text);
      create table code (id integer primary key, code text not null unique);
      alter table code replica identity using index code_code_key`);
    const plan = await migrateCapture(database, { visit: "changes", note: "changes", code: "changes", deal: "changes" });
    expect(plan.filter((statement) => statement.includes("replica identity"))).toEqual([
      // Nothing; a deferrable key is no identity; and one of another index says not of which record.
      `alter table "public"."visit" replica identity full`,
      `alter table "public"."note" replica identity full`,
      `alter table "public"."code" replica identity full`,
    ]);
    for (const table of ["visit", "note", "deal"]) {
      await database.client.query(`insert into ${table} values (1)`);
      expect((await database.client.query(`update ${table} set id = 2`)).rowCount).toBe(1);
    }
  });

  test("a partitioned table is published as one, and each of its partitions has the identity", async () => {
    await database.client.query(`
      create table event_log (id integer, at date, primary key (id, at)) partition by range (at);
      create table event_log_1 partition of event_log for values from ('2026-01-01') to ('2026-07-01');
      create table event_log_2 partition of event_log for values from ('2026-07-01') to ('2027-01-01');
      alter table event_log_2 replica identity full`);
    const plan = await migrateCapture(database, { event_log: "old values" });
    expect(plan.slice(0, 2)).toEqual([
      // By the root's PostgreSQL says whether an old row is whole.
      `alter table "public"."event_log" replica identity full`,
      `alter table "public"."event_log_1" replica identity full`,
    ]);
    expect(plan[2]).toContain(`for table "public"."event_log" with`);
    expect(await migrateCapture(database, { event_log: "old values" })).toEqual([]);
  });

  test("names that need quotes are found again", async () => {
    await database.client.query(`create schema "a.b"; create table "a.b"."c ""d" (id integer primary key)`);
    const reads = { 'a.b.c "d': "old values", deal: "inserts" } as const;
    expect(await migrateCapture(database, reads)).toHaveLength(4);
    expect(await migrateCapture(database, reads)).toEqual([]);
  });
});

describe("start refuses, and prints the SQL", () => {
  const reads = { deal: "old values", visit: "inserts" } as const;
  const oid = async (): Promise<number> =>
    (await database.client.query<{ oid: number }>("select oid from pg_database where datname = current_database()")).rows[0]!.oid;

  test("where nothing lacks it does not", async () => {
    await migrateCapture(database, reads);
    expect(await check(reads)).toMatchObject({ names: { slot: `ancrage_${await oid()}` } });
  });

  test.each([
    ["a publication", 'drop publication "ancrage_{oid}_inserts"', 'create publication "ancrage_{oid}_inserts" for table "public"."visit"'],
    ["a table in it", 'alter publication "ancrage_{oid}" drop table deal', 'alter publication "ancrage_{oid}" add table "public"."deal"'],
    ["an action", `alter publication "ancrage_{oid}" set (publish = 'insert')`, `set (publish = 'insert, update, delete, truncate'`],
    [
      "the slot",
      "select pg_drop_replication_slot('ancrage_{oid}')",
      "select pg_create_logical_replication_slot('ancrage_{oid}', 'pgoutput')",
    ],
    ["old values", "alter table deal replica identity default", 'alter table "public"."deal" replica identity full'],
    ["the schema", "drop schema ancrage cascade", "0001-journal"],
    ["a migration", "delete from ancrage.migrations", "0001-journal"],
    ["the settings", "delete from ancrage.settings", "ancrage.settings"],
  ])("%s", async (_, sql, expected) => {
    await migrateCapture(database, reads);
    const withOid = (text: string, number: number): string => text.replaceAll("{oid}", String(number));
    const number = await oid();
    await database.client.query(withOid(sql, number));
    await expect(check(reads)).rejects.toThrow(
      expect.objectContaining({
        code: "ANCRAGE_NOT_MIGRATED",
        message: expect.stringContaining(withOid(expected, number)) as string,
        hint: expect.stringContaining("ancrage migrate") as string,
      }),
    );
  });

  test("on a copy of the database, which must not send what the first one sends", async () => {
    await migrateCapture(database, reads);
    await database.client.query("update ancrage.settings set system_identifier = '7000000000000000001'");
    await expect(check(reads)).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_DATABASE_COPIED" }));
    await expect(start({ DealCreated })).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_DATABASE_COPIED" }));
  });

  test("old values are read of a table with stored generated columns, and its own updates go through", async () => {
    await database.client.query("create table sized (id integer primary key, a integer, b integer generated always as (a * 2) stored)");
    await migrate(optionsOf({ Sized }));
    await database.client.query("insert into sized (id, a) values (1, 1)");
    await expect(database.client.query("update sized set a = 2")).resolves.toMatchObject({ rowCount: 1 });
  });

  test("old values are refused of a table with virtual generated columns, whose updates the server would refuse", async ({ skip }) => {
    skip((await serverVersion(database.client)) < 180_000, "virtual generated columns come with PostgreSQL 18");
    await database.client.query("create table sized (id integer primary key, a integer, c integer generated always as (a * 3) virtual)");
    const refusal = expect.objectContaining({
      code: "ANCRAGE_NOT_MIGRATED",
      message: expect.stringContaining("sized (c): a virtual generated column") as string,
      hint: expect.stringContaining('"oldValues: false"') as string,
    });
    await expect(migrate(optionsOf({ Sized }))).rejects.toThrow(refusal);
    await expect(start({ Sized })).rejects.toThrow(refusal);
  });
});

/** Until the message of this key is in the journal. */
async function untilJournaled(key: string): Promise<void> {
  for (;;) {
    const { rowCount } = await database.client.query("select 1 from ancrage.messages where key = $1", [key]);
    if (rowCount === 1) return;
  }
}

const countBatches = async (): Promise<number> =>
  Number((await database.client.query<{ n: string }>("select count(*) as n from ancrage.batches")).rows[0]?.n);

test("an idle position is journaled once in ten seconds, however much else is written", async () => {
  await migrate(optionsOf({ DealCreated }));
  let offsetMs = 0;
  const clock = { nowMs: systemClock.nowMs, monotonicMs: () => systemClock.monotonicMs() + offsetMs };
  await start({ DealCreated }, { clock });
  await database.client.query("set synchronous_commit = on; insert into deal values (1, 'a')");
  await untilJournaled("1");
  const before = await countBatches();
  // Each of these moves the log, and each is told by a keepalive.
  for (let i = 0; i < 300; i++) await database.client.query("insert into other values (1)");
  expect((await countBatches()) - before).toBeLessThanOrEqual(1);
  const end = async (): Promise<bigint> =>
    parseLsn((await database.client.query<{ lsn: string }>("select max(end_lsn)::text as lsn from ancrage.batches")).rows[0]!.lsn);
  const position = await end();
  offsetMs += 11_000;
  while ((await end()) === position) await database.client.query("insert into other values (1)");
  expect((await countBatches()) - before).toBeLessThanOrEqual(2);
});

test("nothing is ever confirmed that the journal does not have, whatever happens to the connection", async () => {
  await migrate(optionsOf({ DealCreated }));
  const first = formatLsn(await confirmed());
  await start({ DealCreated });
  await database.client.query("set synchronous_commit = on");
  const seen = new Set<bigint>();
  for (let i = 0; i < 400; i++) {
    await database.client.query(`insert into deal values (${i}, 'a')`);
    if (i % 40 === 39) {
      await untilJournaled(String(i));
      // The session that follows says at once what is confirmed.
      await database.client.query(
        "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where database = current_database() and active_pid is not null",
      );
    }
    // In this order: the journal may only have gone on meanwhile.
    const slot = await confirmed();
    const { rows } = await database.client.query<{ lsn: string | null }>("select max(end_lsn)::text as lsn from ancrage.batches");
    const journaled = parseLsn(rows[0]?.lsn ?? first);
    expect(slot).toBeLessThanOrEqual(journaled);
    seen.add(slot);
  }
  await untilJournaled("399");
  const { rows } = await database.client.query<{ n: string }>("select count(*) as n from ancrage.messages");
  expect(rows[0]?.n).toBe("400");
  expect(seen.size).toBeGreaterThan(2);
});

test("what a process journals while its place is looked up makes no log that went back", async () => {
  await migrate(optionsOf({ DealCreated }));
  await start({ DealCreated });
  await database.client.query("set synchronous_commit = on");
  const server = await readServerIdentity(database.client);
  const { slot: slotName } = captureNames(server.databaseOid);
  const slot = await readSlot(database.client, slotName);
  await database.client.query("insert into deal values (1, 'a')");
  await untilJournaled("1");
  const settings = (await readSettings(database.client))!;
  const sourceId = sourceIdOf({ ...server, generation: settings.generation });
  expect(await readResume(database.client, { sourceId, slotName, slot, server, settings })).toMatchObject({ kind: "resume" });
});

async function confirmed(): Promise<bigint> {
  const { rows } = await database.client.query<{ lsn: string }>(
    "select confirmed_flush_lsn::text as lsn from pg_replication_slots where database = current_database()",
  );
  return parseLsn(rows[0]!.lsn);
}

describe("the looks at what capture stands on", () => {
  const watch = async (how: Partial<CaptureWatchOptions>): Promise<CaptureWatch> => {
    const { databaseOid } = await readServerIdentity(database.client);
    return new CaptureWatch({
      db: database.client,
      names: captureNames(databaseOid),
      catalogue: catalogueOfTables(await readTables(database.client), { deal: "inserts" }),
      reads: () => "log",
      seenRight: { lsn: 0n, at: new Date(0) },
      isCapturing: () => true,
      onAltered: () => undefined,
      intervalMs: 10,
      clock: systemClock,
      log,
      ...how,
    });
  };

  test("the first one compares with what the start has certified: what was put back meanwhile is seen", async () => {
    await migrateCapture(database, { deal: "inserts" });
    const altered = Promise.withResolvers<string>();
    const one = await watch({ onAltered: altered.resolve });
    const { databaseOid } = await readServerIdentity(database.client);
    const catalogue = catalogueOfTables(await readTables(database.client), { deal: "inserts" });
    await certifyFooting(database.client, { reads: "log", catalogue, names: captureNames(databaseOid) });
    await database.client.query(`drop publication "ancrage_${databaseOid}_inserts"`);
    await migrateCapture(database, { deal: "inserts" });
    one.start();
    expect(await altered.promise).toContain("was taken away and put back while capture ran");
    await one.stop();
  });

  test("those that fail for a minute are told once, and stand in the status until one does not", async () => {
    await migrateCapture(database, { deal: "inserts" });
    const lines: { readonly level: number; readonly msg: string }[] = [];
    let nowMs = 0;
    let isSilent = true;
    let onLook = (): void => undefined;
    const looked = (): Promise<void> => new Promise((resolve) => (onLook = () => resolve()));
    const one = await watch({
      db: {
        query: ((...words: unknown[]) =>
          isSilent ? Promise.reject(new Error("no answer")) : (database.client.query as (...all: unknown[]) => unknown)(...words)) as never,
      },
      clock: { nowMs: () => nowMs, monotonicMs: () => nowMs },
      onLook: () => onLook(),
      log: pino({ level: "info" }, { write: (line: string) => lines.push(JSON.parse(line)) }),
    });
    one.start();
    await looked();
    expect([one.problems, lines]).toEqual([[], []]);
    nowMs = 61_000;
    await looked();
    await looked();
    await looked();
    expect(one.problems).toMatchObject([{ code: "capture-unwatched", message: expect.stringContaining("for 61 s") }]);
    expect(lines).toMatchObject([{ level: 40, msg: "could not look at what capture stands on for 61 s" }]);
    isSilent = false;
    await looked();
    await looked();
    expect(one.problems).toEqual([]);
    expect(lines.slice(1)).toMatchObject([{ level: 30, msg: "what capture stands on is looked at again" }]);
    await one.stop();
  });
});
