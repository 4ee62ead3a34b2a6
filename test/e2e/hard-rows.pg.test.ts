import pg from "pg";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
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
const Visited = defineEvent({ table: "visit", on: "insert", payload: (visit) => ({ visit: visit["id"] }) });

let server: OwnServer;
let system: System;
const logged: string[] = [];

beforeAll(async () => {
  server = await startOwnServer();
  system = await startSystem({
    internals: { log: pino({ level: "warn" }, { write: (line) => void logged.push(line) }) },
    database: await createLatinDatabase(),
    schema: `create table deal (id text primary key, "libellé" text);
      create table item (id integer primary key, label text);
      create table visit (id integer, at date, primary key (id, at)) partition by range (at);
      create table visit_1 partition of visit for values from ('2026-01-01') to ('2026-07-01')`,
    events: { Told, Noted, Thrown, Named, Visited },
  });
  await system.call("POST", "/v1/subscriptions", {
    events: ["Told", "Noted", "Named", "Visited"],
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
  isMended = true;
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "retry", event: "Named" });
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  const items = (await bodies(has("item"), 40)) as { readonly item: number; readonly name: string }[];
  expect(items.map(({ item }) => item)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
});

test("a partition that is attached while it runs is its root, and a truncation makes no event but a warning", async () => {
  await system.rows(`create table visit_2 (id integer not null, at date not null); insert into visit_2 values (50, '2026-08-01');
    alter table visit attach partition visit_2 for values from ('2026-07-01') to ('2027-01-01');
    truncate visit; insert into visit values (51, '2026-08-02')`);
  expect((await bodies(has("visit"), 41)).at(-1)).toEqual({ visit: 51 });
  expect(logged.map((line) => JSON.parse(line) as object)).toContainEqual(expect.objectContaining({ tables: ["visit"] }));
});
