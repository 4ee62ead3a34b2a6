import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { defineEvent } from "../event/define.ts";
import { track } from "../event/track.ts";
import { startTest, type TestOptions, type TestRun } from "./start-test.ts";

const database = inject("serverUrl");
const DealCreated = defineEvent({ table: "deal", payload: (deal) => ({ id: deal["id"], label: deal["label"] }) });
const DealShouted = defineEvent({
  table: "deal",
  on: "insert",
  payload(deal) {
    if (deal["label"] === "quiet") throw new Error("no label to shout");
    return { shout: String(deal["label"]).toUpperCase() };
  },
});
const Done = defineEvent({ example: {}, payload: ({ key }) => ({ key }) });
const deals = track("deal", ({ action, key, trigger }) => {
  if (action === "insert") trigger("DealCreated", key);
});

let folder: string;
const running: TestRun[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  await chmod(folder, 0o755);
  await writeFile(
    join(folder, "schema.sql"),
    "create table deal (id serial primary key, label text not null, tenant text not null default 'a')",
  );
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((one) => one.stop()));
  await rm(folder, { recursive: true, force: true });
});

async function start(options: Partial<TestOptions> = {}): Promise<TestRun> {
  const run = await startTest({
    events: { DealCreated, DealShouted, Done, deals },
    schema: join(folder, "schema.sql"),
    database,
    ...options,
  });
  running.push(run);
  return run;
}

test("after settle all that was committed was received, in sql, text and triggers, and nothing of a rollback", async () => {
  const t = await start();
  await t.settle();
  expect(t.received()).toEqual([]);

  expect(await t.sql`insert into deal (label) values (${"Roof"}), (${"O'Hara"}) returning id`).toEqual([{ id: 1 }, { id: 2 }]);
  await t.query("begin; insert into deal (label) values ('never'); rollback");
  await t.query("select ancrage.trigger('Done', $1)", ["deals-2026"]);
  await t.settle();
  expect(sortedPayloads(t, "DealCreated")).toEqual(['{"id":1,"label":"Roof"}', `{"id":2,"label":"O'Hara"}`]);
  expect(t.received("Done")).toMatchObject([{ event: "Done", payload: { key: "deals-2026" }, headers: { "ancrage-event": "Done" } }]);
  expect(t.received()).toHaveLength(5);
  expect(new Set(t.received().map(({ id }) => id)).size).toBe(5);
});

test("settle waits for many messages, and for what another session committed before it", async () => {
  const t = await start();
  const other = new pg.Client({ connectionString: t.database });
  await other.connect();
  await other.query("insert into deal (label) select 'deal ' || n from generate_series(1, 1500) n");
  await other.end();
  await t.settle();
  expect(t.received("DealCreated")).toHaveLength(1500);
  expect(t.received("DealShouted")).toHaveLength(1500);
});

test("settle waits for no message that does not go to the receiver, such as its echo; a token of one's own is kept", async () => {
  const token = "a-token-of-the-tests-own";
  const t = await start({ options: { token, allowNetworks: ["10.0.0.0/8"] } });
  await t.sql`insert into deal (label) values ('A')`;
  await t.settle();
  const cause = t.received("DealCreated")[0]?.headers["ancrage-cause"] ?? "";
  await t.query("begin; select ancrage.caused_by('" + cause + "'); insert into deal (label) values ('echo'); commit");
  await t.settle();
  expect(t.received()).toHaveLength(2);
  expect(await t.query("select from ancrage.messages")).toHaveLength(4);

  expect(t.token).toBe(token);
  const status = await t.ancrage.fetch(new Request("http://localhost/v1/status", { headers: { authorization: `Bearer ${t.token}` } }));
  expect(status.status).toBe(200);
});

test("what cannot be sent is a rejection after settle", async () => {
  const t = await start();
  await t.sql`insert into deal (label) values ('quiet')`;
  await t.settle();
  expect(t.received("DealShouted")).toEqual([]);
  expect(await t.rejections("DealShouted")).toEqual([
    { event: "DealShouted", key: "1", reason: "payload-threw", error: expect.stringContaining("no label to shout") },
  ]);
  expect(await t.rejections("DealCreated")).toEqual([]);
});

test("a folder with its schema.sql and its config; of its projects those that are named are received", async () => {
  const library = new URL("../index.ts", import.meta.url).href;
  await mkdir(join(folder, "events"));
  const source = `import { defineEvent } from ${JSON.stringify(library)};
    export default defineEvent({ table: "deal", on: "insert", payload: (deal) => deal.label });`;
  await writeFile(join(folder, "events", "New.mjs"), source);
  await writeFile(
    join(folder, "ancrage.config.mjs"),
    `export default { project: (deal) => deal.tenant, database: "postgres://127.0.0.1:1/production" }`,
  );
  const t = await startTest({ events: folder, database, projects: ["b", "c"] });
  running.push(t);
  await t.query("insert into deal (label, tenant) values ('of a', 'a'), ('of b', 'b'), ('of c', 'c')");
  await t.settle();
  expect(sortedPayloads(t, "New")).toEqual(['"of b"', '"of c"']);
});

test("settle says why where capture has ended, rather than waiting for ever", async () => {
  const t = await start();
  await t.query(`select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where database = current_database()`);
  // Whoever reconnects finds no slot.
  await t.query(`
    do $$ begin
      loop
        begin
          perform pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database();
          return;
        exception when object_in_use then
          perform pg_terminate_backend(active_pid, 5000) from pg_replication_slots where database = current_database() and active_pid is not null;
        end;
      end loop;
    end $$`);
  await expect(t.settle()).rejects.toThrow("ANCRAGE_SLOT_LOST");
});

test("stop leaves no database and no slot behind, and may be called again", async () => {
  const t = await start();
  const name = new URL(t.database).pathname.slice(1);
  await t.stop();
  await t.stop();
  const admin = new pg.Client({ connectionString: database });
  await admin.connect();
  const { rows } = await admin.query(
    `select (select count(*)::integer from pg_database where datname = $1) as databases,
      (select count(*)::integer from pg_replication_slots where database = $1) as slots`,
    [name],
  );
  await admin.end();
  expect(rows).toEqual([{ databases: 0, slots: 0 }]);
});

test("a definition that is wrong is said at the start, and leaves nothing behind", async () => {
  const before = await databasesLeft();
  await expect(start({ events: { Wrong: defineEvent({ table: "deel", on: "insert", payload: () => 1 }) } })).rejects.toMatchObject({
    code: "ANCRAGE_DEFINITION_INVALID",
    message: expect.stringContaining('"deel"'),
  });
  expect(await databasesLeft()).toEqual(before);
});

/** No order is promised of what arrives. */
function sortedPayloads(t: TestRun, event: string): readonly string[] {
  return t
    .received(event)
    .map(({ payload }) => JSON.stringify(payload))
    .toSorted((a, b) => a.localeCompare(b));
}

async function databasesLeft(): Promise<readonly string[]> {
  const admin = new pg.Client({ connectionString: database });
  await admin.connect();
  const { rows } = await admin.query<{ name: string }>(
    `select datname as name from pg_database where datname ~ '^ancrage_throwaway_' order by 1`,
  );
  await admin.end();
  return rows.map(({ name }) => name);
}
