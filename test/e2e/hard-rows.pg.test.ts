import pg from "pg";
import { pino } from "pino";
import { z } from "zod";
import { afterAll, beforeAll, expect, test } from "vitest";
import { migrate } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import type { TestDatabase } from "../database.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import { startSystem, type System } from "./system.ts";

/** Rows and tables that are no everyday ones, all in one database, whose encoding is LATIN1. */
let isMended = false;
const Told = defineEvent({
  table: "deal",
  on: ["insert", "update"],
  payload: (deal, { actor }) => ({ id: deal["id"], libelle: deal["libellé"], actor }),
});
const Noted = defineEvent({ example: {}, payload: ({ key, data }) => ({ key, data, sign: "€ 😀" }) });
const Thrown = defineEvent({
  example: {},
  payload() {
    throw new Error("no € and no 😀 in LATIN1");
  },
});
const Named = defineEvent({
  table: "item",
  on: "insert",
  payload: (item) => ({ item: item["id"], name: item[isMended ? "title" : "label"] }),
});
/** Of a table that is altered in mid-stream, as `isMended` knows it and not before. */
const Measured = defineEvent({
  table: "thing",
  on: "insert",
  where: (thing) => isMended || thing["kind"] !== "none",
  schema: z.object({ thing: z.number(), size: isMendedOr(z.number()), late: z.string().nullable() }),
  payload: (thing) => ({ thing: thing["id"] as number, size: thing["size"], late: (thing["late"] ?? null) as string | null }),
});
const Sent = defineEvent({
  table: "doc",
  on: "update",
  oldValues: false,
  where: (doc) => doc["state"] === "sent" && (doc["body"] as string).startsWith("<"),
  payload: (doc) => ({ doc: doc["id"], body: doc["body"], twice: doc["twice"] }),
});
const Sized = defineEvent({
  table: "sized",
  on: "insert",
  where: (sized) => (sized["b"] as number) > 2,
  payload: async (sized, { load }) => ({
    sized: sized["id"],
    b: sized["b"],
    c: sized["c"],
    loaded: (await load("sized", sized["id"]))?.["c"],
  }),
});
const Priced = defineEvent({
  table: "priced",
  on: { update: ["gross"] },
  payload: ({ id, gross }, { before }) => ({ priced: id, before: before?.["gross"], gross }),
});
const Travelled = defineEvent({
  table: "trip",
  on: ["enter", "leave"],
  where: (trip) => trip["state"] === "on",
  payload: (trip, { action }) => ({ trip: trip["id"], action }),
});
const Visited = defineEvent({ table: "visit", on: "insert", payload: (visit) => ({ visit: visit["id"] }) });

/** Whatever it is, once mended. */
function isMendedOr(schema: z.ZodType): z.ZodType {
  return z.unknown().refine((value) => isMended || schema.safeParse(value).success, "expected a number");
}

let server: OwnServer;
let system: System;
const logged: string[] = [];

/** From PostgreSQL 18 on the log carries stored generated columns, and there are virtual ones, which no log carries. */
let isNew: boolean;

beforeAll(async () => {
  server = await startOwnServer();
  const database = await createLatinDatabase();
  isNew = (await database.client.query<{ v: number }>("select current_setting('server_version_num')::integer as v")).rows[0]!.v >= 180_000;
  system = await startSystem({
    internals: { captureWatchMs: 100, log: pino({ level: "warn" }, { write: (line) => void logged.push(line) }) },
    database,
    schema: `create table deal (id text primary key, "libellé" text);
      create table item (id integer primary key, label text);
      create table thing (id integer primary key, size integer, kind text default 'k');
      -- What is computed of a row is in no log before PostgreSQL 18.
      create table doc (id integer primary key, state text, body text, twice integer generated always as (id * 2) stored);
      alter table doc alter body set storage external;
      create table sized (id integer primary key, a integer, b integer generated always as (a * 2) stored,
        c integer generated always as (a * 3) ${isNew ? "virtual" : "stored"});
      create table priced (id integer primary key, net integer, gross integer generated always as (net * 2) stored);
      create table trip (id integer, day integer, state text, primary key (id, day)) partition by list (day);
      create table trip_1 partition of trip for values in (1);
      create table visit (id integer, at date, primary key (id, at)) partition by range (at);
      create table visit_1 partition of visit for values from ('2026-01-01') to ('2026-07-01')`,
    events: { Told, Noted, Thrown, Named, Measured, Sent, Sized, ...(isNew ? { Priced } : {}), Travelled, Visited },
  });
  await system.call("POST", "/v1/subscriptions", {
    events: ["Told", "Noted", "Named", "Measured", "Sent", "Sized", ...(isNew ? ["Priced"] : []), "Travelled", "Visited"],
    url: system.receiver.url,
    format: "bare",
    order: "all",
  });
});
afterAll(async () => {
  await system.close();
  await server.remove();
});

async function createLatinDatabase(): Promise<TestDatabase> {
  const admin = await server.createDatabase("admin");
  await admin.client.query("create database latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'");
  const url = server.url("latin");
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url, application_name: "test" });
    client.on("error", () => undefined);
    await client.connect();
    return client;
  };
  // Sessions end with the server.
  return { url, name: "latin", client: await connect(), connect, remove: async () => undefined };
}

const bodies = async (isOne: (body: unknown) => boolean, count: number): Promise<unknown[]> => {
  const those = (all: readonly { readonly body: string }[]): unknown[] => all.map(({ body }) => JSON.parse(body) as unknown).filter(isOne);
  return those(await system.receiver.until((all) => those(all).length >= count));
};
const has = (name: string) => (body: unknown) => Object.hasOwn(body as object, name);

test("values, keys, column names, triggers and marks of a database in LATIN1 arrive as UTF-8", async () => {
  await system.rows(`begin; select ancrage.actor('Société'); insert into deal values ('clé-1', 'été à Noël'); commit`);
  await system.rows(`select ancrage.trigger('Noted', 'clé-2', '{"mot": "façade"}')`);
  expect(await bodies(has("libelle"), 1)).toEqual([{ id: "clé-1", libelle: "été à Noël", actor: "Société" }]);
  expect(await bodies(has("sign"), 1)).toEqual([{ key: "clé-2", data: { mot: "façade" }, sign: "€ 😀" }]);
});

test("what its encoding lacks, in the words of a rejection, does not hold the journal up", async () => {
  await system.rows(`select ancrage.trigger('Thrown', 'ä')`);
  await system.until("select count(*) from ancrage.rejections where event = 'Thrown'", 1);
  const { body } = await system.call("GET", "/v1/rejections?event=Thrown");
  expect(body.data).toMatchObject([{ key: "ä", error: expect.stringContaining("in LATIN1") }]);
});

test("an update of the key is told with the new one", async () => {
  await system.rows("update deal set id = 'clé-3'");
  expect((await bodies(has("libelle"), 2)).at(-1)).toMatchObject({ id: "clé-3" });
  expect(await system.rows("select key from ancrage.messages where event = 'Told' order by id")).toEqual([
    { key: "clé-1" },
    { key: "clé-3" },
  ]);
});

test("a column that is renamed under load rejects what no longer fits, by its name; the retry sends all, in order, none twice", async () => {
  const writer = await system.database.connect();
  for (let id = 1; id <= 40; id++) {
    if (id === 21) await system.rows("alter table item rename label to title");
    await writer.query("insert into item values ($1, 'a')", [id]);
    await system.rows("insert into visit values ($1, '2026-02-01')", [id]);
  }
  await system.until("select count(*) from ancrage.rejections where event = 'Named'", 20);
  // The rest flows.
  expect(await bodies(has("visit"), 40)).toHaveLength(40);
  const { body } = await system.call("GET", "/v1/rejections?event=Named&limit=1");
  expect(body.data).toMatchObject([{ reason: "payload-threw", error: expect.stringContaining('had no column "label"') }]);
  const { status, body: explained } = await system.call("GET", "/v1/events/Named/explain?key=21");
  expect({ status, ...explained }).toMatchObject({ status: 200, isFound: true, fires: false, rejection: { reason: "payload-threw" } });
  expect(explained.findings).toContainEqual(expect.stringContaining('"item" has no column "label" any more: it was dropped or renamed'));
  isMended = true;
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "retry", event: "Named" });
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  const items = (await bodies(has("item"), 40)) as { readonly item: number; readonly name: string }[];
  expect(items.map(({ item }) => item)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
});

test("columns that are added, retyped and dropped while others write: what fits flows, what does not is kept and sent in order", async () => {
  isMended = false;
  const writers = await Promise.all([system.database.connect(), system.database.connect()]);
  // The other one neither waits for the changes of the table nor for this.
  const stopping = new AbortController();
  const others = (async () => {
    for (let id = 100; !stopping.signal.aborted; id++) await writers[1].query("insert into visit values ($1, '2026-03-01')", [id]);
  })();
  const alterations: Readonly<Record<number, string>> = {
    11: "alter table thing add late text default 'l'",
    21: "alter table thing alter size type text using size || ' cm'",
    31: "alter table thing drop kind",
  };
  for (let id = 1; id <= 40; id++) {
    const alteration = alterations[id];
    if (alteration !== undefined) await system.rows(alteration);
    await writers[0].query("insert into thing (id, size) values ($1, $2)", [id, id <= 20 ? id : `${id} cm`]);
  }
  stopping.abort();
  await others;
  await system.until("select count(*) from ancrage.rejections where event = 'Measured'", 20);
  const { body } = await system.call("GET", "/v1/rejections?event=Measured&limit=50");
  const reasons = body.data.map(({ key, reason, error }: { key: string; reason: string; error: string }) => [Number(key), reason, error]);
  expect(reasons.filter(([key]: [number]) => key <= 30)).toHaveLength(10);
  expect(reasons).toContainEqual([21, "schema-refused", expect.stringContaining("size: expected a number")]);
  expect(reasons).toContainEqual([31, "where-threw", expect.stringContaining('had no column "kind"')]);
  isMended = true;
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "retry", event: "Measured" });
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  const things = (await bodies(has("thing"), 40)) as { readonly thing: number; readonly size: unknown; readonly late: unknown }[];
  expect(things.map(({ thing }) => thing)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
  expect([things[9], things[10], things[20], things[39]]).toEqual([
    { thing: 10, size: 10, late: null },
    { thing: 11, size: 11, late: "l" },
    { thing: 21, size: "21 cm", late: "l" },
    { thing: 40, size: "40 cm", late: "l" },
  ]);
});

test("large values that 1,000 updates of one transaction leave untouched are read anew; of a row that is gone that is said", async () => {
  await system.rows("insert into doc (id, state, body) select i, 'new', '<' || repeat(md5(i::text), 100) from generate_series(0, 1000) i");
  await system.rows("begin; update doc set state = 'sent'; delete from doc where id = 0; commit");
  const docs = (await bodies(has("doc"), 1_000)) as { readonly doc: number }[];
  const rows = await system.rows("select id as doc, body, twice from doc order by id");
  expect(docs.toSorted((a, b) => a.doc - b.doc)).toEqual(rows);
  await system.until("select count(*) from ancrage.rejections where event = 'Sent'", 1);
  const { body } = await system.call("GET", "/v1/rejections?event=Sent");
  expect(body.data).toMatchObject([
    { key: "0", error: expect.stringMatching(/column "body" of "doc".* the row 0, which has it, is gone/) },
  ]);
});

test("generated columns: a record, its samples and load have the same; a rule that would compare what no log carries is refused", async () => {
  await system.rows("insert into sized (id, a) values (1, 1), (2, 2)");
  const sent = { sized: 2, b: 4, c: 6, loaded: 6 };
  expect(await bodies(has("sized"), 1)).toEqual([sent]);
  expect((await system.call("GET", "/v1/events/Sized/samples?format=bare")).body).toEqual([sent]);
  const Compared = defineEvent({ table: "sized", on: { update: ["c"] }, payload: (sized) => ({ c: sized["c"] }) });
  await expect(migrate({ ...system.options, events: { Compared } })).rejects.toMatchObject({
    code: "ANCRAGE_DEFINITION_INVALID",
    message: expect.stringContaining('the column "c" of "sized" is generated, and the log does not carry it'),
  });
  if (!isNew) return;
  await system.rows("insert into priced (id, net) values (1, 1); update priced set id = 2; update priced set net = 2");
  expect(await bodies(has("priced"), 1)).toEqual([{ priced: 2, before: 2, gross: 4 }]);
});

test("a partition that brings no old values: what compares them is a rejection, all else flows, and what to run is said", async () => {
  await system.rows(`create table trip_2 partition of trip for values in (2);
    insert into trip values (1, 1, 'off'), (2, 2, 'off'), (3, 2, 'off'), (4, 1, null)`);
  await system.rows("update trip set state = 'on' where id <= 2");
  // PostgreSQL calls this old row whole, and has null for what it lacks.
  await system.rows("delete from trip where id = 2; delete from trip where id = 1");
  // Two requests may overtake each other.
  const trips = async (count: number): Promise<readonly string[]> =>
    ((await bodies(has("trip"), count)) as { trip: number; action: string }[]).map(({ trip, action }) => `${trip} ${action}`).toSorted();
  expect(await trips(2)).toEqual(["1 delete", "1 update"]);
  const problem = { code: "partition-identity", message: expect.stringMatching(/^trip_2: a partition without "replica identity full"/) };
  await expect.poll(async () => (await system.call("GET", "/v1/status")).body).toMatchObject({ isReady: true, problems: [problem] });
  // Nobody who attaches a partition at night knows of us.
  await system.restart();
  const { body } = await system.call("GET", "/v1/rejections?event=Travelled");
  const lacks = expect.stringContaining('did not carry column "state" of "trip" as it was before this change') as string;
  expect(body.data).toMatchObject([
    { key: '["2","2"]', reason: "where-threw", error: lacks },
    { key: '["2","2"]', reason: "where-threw", error: lacks },
  ]);
  await system.rows("update trip set state = 'off' where id = 3");
  await system.until("select count(*) from ancrage.rejections where event = 'Travelled'", 3);
  await system.rows("alter table trip_2 replica identity full");
  await system.rows("update trip set state = 'on' where id = 3; delete from trip");
  expect(await trips(4)).toEqual(["1 delete", "1 update", "3 delete", "3 update"]);
});

test("a partition that is attached while it runs is its root, and a truncation makes no event but a warning", async () => {
  await system.rows(`create table visit_2 (id integer not null, at date not null); insert into visit_2 values (50, '2026-08-01');
    alter table visit attach partition visit_2 for values from ('2026-07-01') to ('2027-01-01');
    truncate visit; insert into visit values (51, '2026-08-02')`);
  await bodies((body) => (body as { readonly visit?: number }).visit === 51, 1);
  expect(logged.map((line) => JSON.parse(line) as object)).toContainEqual(expect.objectContaining({ tables: ["visit"] }));
});
