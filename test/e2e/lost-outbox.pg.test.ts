import { EventEmitter, once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { adopt } from "../../src/adopt.ts";
import { createAncrage, migrate } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import { readOptions } from "../../src/options.ts";
import { startSystem, type System } from "./system.ts";

/** What an outbox stands on is changed under it: the triggers that write it, which PostgreSQL lets the owner of a table take away. */
const ItemChanged = defineEvent({ table: "item", on: ["insert", "update"], payload: (item) => ({ id: item["id"] }) });
const PartCreated = defineEvent({ table: "part", on: "insert", payload: (part) => ({ id: part["id"] }) });

let system: System;
const looks = new EventEmitter();
beforeAll(async () => {
  system = await startSystem({
    schema: `create table item (id integer primary key, note text);
      create table part (id integer primary key) partition by range (id);
      create table part_1 partition of part for values from (0) to (1000)`,
    events: { ItemChanged, PartCreated },
    options: { capture: "outbox" },
    internals: { captureWatchMs: 50, signal: (name) => void looks.emit(name) },
  });
  const { status } = await system.call("POST", "/v1/subscriptions", {
    events: ["ItemChanged", "PartCreated"],
    url: system.receiver.url,
    format: "bare",
  });
  expect(status).toBe(201);
});
afterAll(() => system.close());

interface Shown {
  readonly isReady: boolean;
  readonly problems: readonly { readonly code: string; readonly message: string; readonly hint?: string }[];
}
const status = async (): Promise<Shown> => (await system.call("GET", "/v1/status")).body as Shown;
const received = (id: number): Promise<unknown> => system.receiver.until((all) => all.some(({ body }) => body === `{"id":${id}}`));
const gaps = (): Promise<{ reason: string; ended: boolean; well: boolean }[]> =>
  system.rows(
    `select reason, to_lsn is not null as ended, from_at <= now() and from_lsn <= coalesce(to_lsn, from_lsn) as well
     from ancrage.gaps where resolved_at is null`,
  );
const resolve = (): Promise<unknown> => system.rows("update ancrage.gaps set resolved_at = now()");

let id = 0;

test("adopt refuses while a process leads: what it would empty is being read", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  await mkdir(join(folder, "tracking"));
  const options = { ...readOptions({ ...system.options, events: folder, environment: "staging" }), database: system.database.url };
  const adopting = adopt(options, { keepsSending: false, onStep: () => undefined });
  await expect(adopting).rejects.toMatchObject({
    code: "ANCRAGE_SLOT_BUSY",
    message: expect.stringMatching(/:\d+ leads on this database/),
  });
  expect((await system.call("GET", "/v1/subscriptions")).body.data).toMatchObject([{ state: "enabled" }]);
  await rm(folder, { recursive: true });
});

describe.each([
  ["the trigger is dropped", `drop trigger "00_ancrage" on item`],
  ["it is disabled", `alter table item disable trigger "00_ancrage"`],
  ["all are disabled, and enabled again at once", "alter table item disable trigger all; alter table item enable trigger all"],
  ["that of a partition is disabled", "alter table part_1 disable trigger user"],
  ["the function is another one", "drop function ancrage.capture_%d() cascade"],
  ["the table is made anew", "drop table item; create table item (id integer primary key, note text)"],
])("%s while it runs", (_, sql) => {
  test("capture stops with a gap, says what it lacks, and goes on after migrate and a restart", async () => {
    await system.rows("insert into item values ($1)", [++id]);
    await received(id);
    const [item] = await system.rows<{ oid: number }>("select 'item'::regclass::oid as oid");
    await system.rows(sql.replace("%d", String(item?.oid)));
    let shown = await status();
    // The gap is noted a moment after capture has stopped.
    while (shown.problems.length < 2 || shown.isReady) {
      await new Promise((done) => setTimeout(done, 50));
      shown = await status();
    }
    expect(shown).toMatchObject({
      isReady: false,
      problems: [
        {
          code: "ANCRAGE_CAPTURE_ALTERED",
          message: expect.stringMatching(/the trigger on "public"\."\w+" .*It lacks:.*Changes committed after [0-9A-F]+\/[0-9A-F]+/s),
          hint: expect.stringContaining("ancrage migrate"),
        },
        { code: "gap" },
      ],
    });
    expect((await system.call("GET", "/readyz")).status).toBe(503);
    // A start before it is mended says the same.
    if (sql.startsWith("drop trigger")) await system.restart();
    await expect.poll(() => status()).toMatchObject({ isReady: false, problems: [{ code: "ANCRAGE_CAPTURE_ALTERED" }, { code: "gap" }] });
    await system.ancrage().stop();
    await migrate(system.options);
    await system.restart();
    await system.rows("insert into item values ($1)", [++id]);
    await received(id);
    await system.rows("insert into part values ($1)", [++id]);
    await received(id);
    await expect.poll(() => status()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
    expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
    await resolve();
  });
});

test("taken away and put back between two runs is a gap, also where migrate put it back", async () => {
  await system.ancrage().stop();
  await system.rows(`drop trigger "00_ancrage" on item; insert into item values (${++id})`);
  await expect(createAncrage({ ...system.options, logLevel: "silent" }).start()).rejects.toMatchObject({ code: "ANCRAGE_NOT_MIGRATED" });
  await migrate(system.options);
  await system.restart();
  await system.rows("insert into item values ($1)", [++id]);
  await received(id);
  await expect.poll(() => status()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
  expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
  await resolve();
});

test("a table that is made anew between two runs is a gap, also where migrate gave the new one its trigger", async () => {
  await system.ancrage().stop();
  await system.rows(`alter table item rename to item_before; create table item (id integer primary key, note text);
    insert into item values (${++id}); drop table item_before`);
  await migrate(system.options);
  await system.restart();
  await system.rows("insert into item values ($1)", [++id]);
  await received(id);
  await expect.poll(() => status()).toMatchObject({ isReady: true, problems: [{ code: "gap" }] });
  expect(await gaps()).toEqual([{ reason: "capture-altered", ended: true, well: true }]);
  await resolve();
});

test("what migrate changes for the next release, or grants, is no alteration for the process that runs", async () => {
  const PartGone = defineEvent({ table: "part", on: "delete", payload: (part) => ({ id: part["id"] }), example: { id: 1 } });
  await migrate({ ...system.options, events: { ItemChanged, PartCreated, PartGone } });
  await system.rows("grant execute on all functions in schema ancrage to pg_monitor");
  await system.rows("insert into part values ($1)", [++id]);
  await received(id);
  for (let look = 0; look < 3; look++) await once(looks, "watched");
  const { isReady, problems } = await status();
  expect(isReady).toBe(true);
  // Which gaps there are is kept for a moment.
  expect(problems.filter(({ code }) => code !== "gap")).toEqual([]);
  expect(await gaps()).toEqual([]);
});

test("a mark in a transaction that is read-only, also by default, changes nothing and breaks nothing; a trigger there is refused", async () => {
  const session = await system.database.connect();
  await session.query("set default_transaction_read_only = on");
  await session.query("begin");
  await session.query("select ancrage.actor('integration:zapier'), ancrage.caused_by(null), ancrage.mute()");
  expect((await session.query("select id from item limit 1")).rowCount).toBe(1);
  await expect(session.query("select ancrage.trigger('ItemChanged', '1')")).rejects.toMatchObject({ code: "25006" });
  await session.query("rollback");
  // What is marked may be a report, in one snapshot.
  await session.query("begin isolation level repeatable read");
  await session.query("select ancrage.actor('integration:zapier'), count(*) from item");
  await session.query("commit");
  await session.query("begin read write");
  await session.query("select ancrage.mute()");
  await session.query("insert into item values ($1)", [++id]);
  await session.query("commit");
  await system.rows("insert into item values ($1)", [++id]);
  await received(id);
  expect(system.receiver.requests.some(({ body }) => body === `{"id":${id - 1}}`)).toBe(false);
});
