import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import type { Row } from "../src/capture/change.ts";
import { buildCatalogue, type Catalogue } from "../src/event/catalogue.ts";
import { defineEvent, type EventDefinition } from "../src/event/define.ts";
import { track } from "../src/event/track.ts";
import { explain, type ExplainDeps, type ExplainedSubscription } from "../src/explain.ts";
import { createRecordReaders } from "../src/payload/record-readers.ts";
import { createSqlReader } from "../src/payload/sql.ts";
import { createPool } from "../src/store/database.ts";
import { readTables } from "../src/store/tables.ts";
import { readTypes } from "../src/store/types.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
let pool: pg.Pool;
let catalogue: Catalogue;
let deps: ExplainDeps;
const subscriptions: ExplainedSubscription[] = [
  { id: "sub_1", url: "https://a.example.com/", state: "enabled" },
  { id: "sub_2", url: "https://b.example.com/", state: "disabled", stateReason: "410 Gone" },
];

beforeAll(async () => {
  database = await cloneDatabase();
  await database.client.query(`
    create table deal (id integer primary key, label text, company text not null, is_won boolean);
    alter table deal replica identity full;
    insert into deal values (1, 'first', 'acme', true), (2, 'second', 'acme', false), (3, null, 'globex', true);
  `);
  const events: Readonly<Record<string, EventDefinition>> = {
    "deal.won": defineEvent({
      table: "deal",
      on: ["enter", { update: ["label"] }],
      where: (deal: Row) => deal["is_won"] === true,
      schema: z.object({ label: z.string() }),
      payload: (deal: Row) => ({ label: deal["label"] as string }),
    }),
    "deal.gone": defineEvent({ table: "deal", on: "delete", example: "gone", payload: () => undefined }),
    "deal.broken": defineEvent({
      table: "deal",
      on: "insert",
      where: (deal: Row) => (deal["label"] as string).length > 0,
      payload: (deal: Row) => deal["label"],
    }),
    Ping: defineEvent({ example: 1, payload: () => 1, project: () => "acme" }),
  };
  catalogue = buildCatalogue({
    events: Object.entries(events).map(([name, definition]) => ({ name, file: `events/${name}.ts`, definition })),
    tracking: [{ file: "tracking/deal.ts", handler: track("deal", () => undefined) }],
    tables: await readTables(database.client),
    config: { project: (record: Row) => record["company"] },
  });
  const types = await readTypes(database.client);
  pool = createPool({ connectionString: database.url, applicationName: "ancrage explain", size: 2, onIdleError: () => undefined });
  deps = {
    catalogue,
    readers: createRecordReaders(pool, types),
    sql: createSqlReader({ pool, types }),
    subscriptionsOf: async (project) => Promise.resolve(project === "acme" ? subscriptions : []),
  };
});

afterAll(async () => {
  await pool.end();
  await database.remove();
});

test("a record that it would happen for, and who would receive it", async () => {
  const explanation = await explain("deal.won", { key: "1" }, deps);
  expect(explanation).toMatchObject({ fires: true, project: "acme", isFound: true, where: { holds: true }, payload: { label: "first" } });
  expect(explanation.findings).toEqual([
    "deal.won (events/deal.won.ts) for deal 1:",
    "where is true for this record as it is.",
    "As it is, it does not happen on enter: where holds already, it must become false first.",
    "It may happen on update of label: when one of them gets another value, if where holds for it.",
    "Changes of deal are also handled by tracking/deal.ts, which may trigger it.",
    "It is of the project acme.",
    'It would send {"label":"first"}',
    "It would go to https://a.example.com/ (sub_1).",
    "It would not go to https://b.example.com/ (sub_2): disabled: 410 Gone.",
  ]);
  expect(JSON.parse(JSON.stringify(explanation))).toEqual(explanation);
});

test("a where that is false, and what must change", async () => {
  const { where, rules } = await explain("deal.won", { key: "2" }, deps);
  expect(where).toEqual({ holds: false });
  expect(rules.map(({ kind, mayHappen }) => [kind, mayHappen])).toEqual([
    ["enter", true],
    ["update-columns", false],
  ]);
});

test("what does not fire is said to send nothing by itself", async () => {
  // deal.broken without its tracking handler: a rule on insert alone, whose where is false.
  const quiet = { ...catalogue, tables: new Map([...catalogue.tables].map(([name, table]) => [name, { ...table, handlers: [] }])) };
  const event = catalogue.events.get("deal.broken");
  if (event === undefined) throw new Error("no deal.broken");
  const events = new Map([["Quiet", { ...event, name: "Quiet", definition: { ...event.definition, where: () => false } }]]);
  const { fires, findings } = await explain("Quiet", { key: "1" }, { ...deps, catalogue: { ...quiet, events } });
  expect(fires).toBe(false);
  expect(findings).toEqual([
    "Quiet (events/deal.broken.ts) for deal 1:",
    "where is false for this record as it is.",
    "As it is, it does not happen on insert: when a record of deal is inserted, if where holds for it.",
    "It is of the project acme.",
    'Triggered by hand, it would send "first"',
    "If it happened, it would go to https://a.example.com/ (sub_1).",
    "It would not go to https://b.example.com/ (sub_2): disabled: 410 Gone.",
  ]);
});

test("the rejection that it would be", async () => {
  const explanation = await explain("deal.won", { key: "3" }, deps);
  expect(explanation).toMatchObject({
    fires: false,
    payload: null,
    rejection: { reason: "schema-refused", error: expect.stringContaining("label: ") },
  });
  expect(explanation.findings.at(-1)).toBe("No subscription of the project globex takes it: it would be journaled and sent to nobody.");
});

test("a where that throws, and a payload that says that nothing happened", async () => {
  const broken = await explain("deal.broken", { key: "3" }, deps);
  expect(broken.where).toMatchObject({ holds: false, error: expect.stringContaining("TypeError") });
  expect(broken.rules).toMatchObject([{ kind: "insert", mayHappen: false }]);
  const gone = await explain("deal.gone", { key: "1" }, deps);
  expect(gone).toMatchObject({ fires: false, payload: null, rejection: null });
  expect(gone.findings).toContain("Its payload function returns undefined for this record: nothing happens.");
});

test.each(["9", "abc"])("no record with the key %s", async (key) => {
  const explanation = await explain("deal.won", { key }, deps);
  expect(explanation).toMatchObject({ isFound: false, fires: false, project: null, payload: null, subscriptions: [] });
  expect(explanation.findings).toEqual([
    `deal.won (events/deal.won.ts) for deal ${key}:`,
    `deal has no record with the key "${key}".`,
    "It happens on enter: when where becomes true.",
    "It happens on update of label: when one of them gets another value, if where holds for it.",
    "Changes of deal are also handled by tracking/deal.ts, which may trigger it.",
  ]);
});

test("another project's record is none", async () => {
  const explanation = await explain("deal.won", { key: "1", project: "globex" }, deps);
  expect(explanation).toMatchObject({ isFound: false, project: null, payload: null, subscriptions: [] });
  expect(JSON.stringify(explanation)).not.toContain("first");
  expect(await explain("deal.won", { key: "1", project: "acme" }, deps)).toMatchObject({ isFound: true, project: "acme" });
});

test("a subscription whose filter does not want the payload does not receive it", async () => {
  const subscriptionsOf = async (): Promise<readonly ExplainedSubscription[]> =>
    Promise.resolve([
      { id: "sub_1", url: "https://a.example/", state: "enabled", filter: { label: "first" } },
      { id: "sub_2", url: "https://b.example/", state: "enabled", filter: { label: "second" } },
    ]);
  const { subscriptions, findings } = await explain("deal.won", { key: "1" }, { ...deps, subscriptionsOf });
  expect(subscriptions).toMatchObject([
    { receives: true, reason: null },
    { receives: false, reason: `its filter {"label":"second"} does not want this payload` },
  ]);
  expect(findings.at(-1)).toContain("It would not go to https://b.example/ (sub_2): its filter");
});

test("a parked event does not fire, and its code is still tried", async () => {
  const explanation = await explain("deal.won", { key: "1" }, { ...deps, isParked: (event) => event === "deal.won" });
  expect(explanation).toMatchObject({ isParked: true, fires: false, payload: { label: "first" } });
});

test("an event without a table happens when it is triggered", async () => {
  const explanation = await explain("Ping", { key: "any", project: "acme" }, deps);
  expect(explanation).toMatchObject({
    isFound: null,
    fires: true,
    project: "acme",
    subscriptions: [{ receives: true }, { receives: false }],
  });
});

test("an event that no file defines", async () => {
  await expect(explain("deal.wonn", { key: "1" }, deps)).rejects.toMatchObject({
    code: "ANCRAGE_TRIGGER_UNKNOWN_EVENT",
    hint: expect.stringContaining('Did you mean "deal.won"?'),
  });
});

test("columns that are gone since the definitions were checked: what reads one, a rule that names one, and the key's own", async () => {
  await database.client.query("alter table deal rename label to title");
  const { findings, rejection, rules } = await explain("deal.won", { key: "2" }, deps);
  const gone = '"deal" has no column "label" any more: it was dropped or renamed';
  expect(rejection).toMatchObject({ reason: "payload-threw", error: expect.stringContaining(gone) });
  expect(rules[1]).toMatchObject({ kind: "update-columns", mayHappen: false });
  expect(findings).toContain('As it is, it does not happen on update of label: there is no "label" any more.');
  await database.client.query("alter table deal rename id to deal_id");
  const unread = await explain("deal.won", { key: "2" }, deps);
  expect(unread).toMatchObject({ isFound: false, fires: false });
  expect(unread.findings[1]).toMatch(/^deal could not be read: .*"deal" has no column "id" any more/);
});
