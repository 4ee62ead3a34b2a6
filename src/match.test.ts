import { expect, test } from "vitest";
import type { Change, Row } from "./capture/change.ts";
import { buildCatalogue, type Catalogue } from "./event/catalogue.ts";
import type { EventDefinition, Rule } from "./event/define.ts";
import type { TrackedChange, TrackingHandler } from "./event/track.ts";
import { matchChange, matchTrigger } from "./match.ts";
import type { TableInfo } from "./store/tables.ts";

const column = (name: string) => ({ name, typeOid: 25, typeName: "text", castType: "text", isNullable: true, isGenerated: false });
const tableNamed = (name: string): TableInfo => ({
  oid: 1,
  schema: "public",
  table: name,
  name,
  columns: ["id", "status", "label", "data"].map(column),
  keyColumns: ["id"],
  replicaIdentity: "f",
  isPartitioned: false,
});
const transaction = { xid: 7, commitLsn: 100n, committedAtUs: 0n };
const position = { commitLsn: 100n, changeLsn: 90n, ordinal: 0 };
const change = (action: Change["action"], before: Row | undefined, after: Row | undefined): Change => ({
  kind: "change",
  transaction,
  position,
  table: "deal",
  action,
  key: String((after ?? before)?.["id"]),
  before,
  after,
});
const won = (row: Row): boolean => row["status"] === "won";
const event = (over: Partial<EventDefinition>): EventDefinition => ({
  kind: "event",
  table: "deal",
  example: {},
  payload: () => ({}),
  ...over,
});

function catalogueOf(
  events: Readonly<Record<string, EventDefinition>>,
  handle?: (change: TrackedChange) => unknown,
  keyColumns: readonly string[] = ["id"],
): Catalogue {
  const handler = { kind: "tracking", table: "deal", handle } as unknown as TrackingHandler;
  return buildCatalogue({
    events: Object.entries(events).map(([name, definition]) => ({ name, file: `events/${name}.ts`, definition })),
    tracking: handle === undefined ? [] : [{ file: "tracking/deal.ts", handler }],
    tables: [{ ...tableNamed("deal"), keyColumns }, tableNamed("customer")],
  });
}
const fires = (on: Rule | readonly Rule[], one: Change, where?: (row: Row) => boolean): boolean =>
  matchChange(one, catalogueOf({ E: event({ on, ...(where === undefined ? {} : { where }) }) })).occurrences.length === 1;

const open = { id: 1, status: "open", label: "a", data: { x: [1] } };
const closed = { ...open, status: "won" };

test.each<[Rule, Change, boolean]>([
  ["insert", change("insert", undefined, closed), true],
  ["insert", change("insert", undefined, open), false],
  ["insert", change("update", open, closed), false],
  ["update", change("update", open, closed), true],
  ["update", change("update", closed, open), false],
  ["delete", change("delete", closed, undefined), true],
  ["delete", change("delete", open, undefined), false],
  ["enter", change("insert", undefined, closed), true],
  ["enter", change("update", open, closed), true],
  ["enter", change("update", closed, { ...closed, label: "b" }), false],
  ["enter", change("delete", closed, undefined), false],
  ["leave", change("update", closed, open), true],
  ["leave", change("update", open, { ...open, label: "b" }), false],
  ["leave", change("delete", closed, undefined), true],
  ["leave", change("insert", undefined, open), false],
])("on %j: %#", (rule, one, expected) => {
  expect(fires(rule, one, won)).toBe(expected);
});

test("a list of columns fires when one of them has another value, by value and not by reference", () => {
  expect(fires({ update: ["label", "data"] }, change("update", open, { ...open, data: { x: [1] } }))).toBe(false);
  expect(fires({ update: ["label", "data"] }, change("update", open, { ...open, data: { x: [2] } }))).toBe(true);
  expect(fires({ update: ["label"] }, change("update", open, closed))).toBe(false);
});

test("at most once for one change, event and key, however many rules and handlers name it", () => {
  const catalogue = catalogueOf({ E: event({ on: ["insert", "enter"], where: won }) }, ({ trigger }) => {
    trigger("E", 1);
    trigger("E", "1");
    trigger("E", 2);
  });
  const { occurrences } = matchChange(change("insert", undefined, closed), catalogue);
  expect(occurrences.map(({ key, reason, record }) => [key, reason, record])).toEqual([
    ["1", "change", closed],
    ["2", "trigger", undefined],
  ]);
});

test("a handler's trigger for the change's own row carries the row as committed, and its data", () => {
  const catalogue = catalogueOf({ E: event({}) }, ({ key, trigger }) => trigger("E", key, { why: "x" }));
  const [occurrence] = matchChange(change("update", open, closed), catalogue).occurrences;
  expect(occurrence).toMatchObject({ key: "1", reason: "trigger", action: "update", before: open, record: closed, data: { why: "x" } });
});

test("a handler's trigger for the change's own row is known by the row's values, too", () => {
  const at = "2023-10-31T00:00:00.000000Z";
  const given = { ...change("delete", { id: 7, data: at }, undefined), key: '["7","2023-10-31 00:00:00+00"]' };
  const handle = ({ before, trigger }: TrackedChange): void => trigger("Gone", [String(before?.["id"]), String(before?.["data"])]);
  const catalogue = catalogueOf({ Gone: event({}) }, handle, ["id", "data"]);
  expect(matchChange(given, catalogue).occurrences).toMatchObject([{ key: given.key, record: given.before, action: "delete" }]);
});

test("what throws is a rejection, and hides nothing else", () => {
  const catalogue = catalogueOf(
    {
      Broken: event({
        on: "insert",
        where: () => {
          throw new Error("no such thing");
        },
      }),
      Fine: event({ on: "insert" }),
    },
    ({ trigger }) => trigger("Fien", 1),
  );
  const { occurrences, unmatched } = matchChange(change("insert", undefined, open), catalogue);
  expect(occurrences.map((one) => one.event.name)).toEqual(["Fine"]);
  expect(unmatched.map(({ event, cause }) => [event.name, cause])).toEqual([
    ["Broken", "where-threw"],
    ["tracking/deal.ts", "handler-threw"],
  ]);
  expect(String(unmatched[1]?.error)).toContain('trigger("Fien", …): no file defines this event; known are Broken, Fine');
});

test("an asynchronous handler is a rejection", () => {
  const catalogue = catalogueOf({ E: event({}) }, () => Promise.reject(new Error("later")));
  const { unmatched } = matchChange(change("insert", undefined, open), catalogue);
  expect(String(unmatched[0]?.error)).toContain("must be synchronous");
});

test.each([
  ["that comes to false", () => Promise.resolve(false)],
  ["that fails, which would end the process as unhandled", () => Promise.reject(new Error("later"))],
])("a where that returns a promise %s is a rejection, never true", async (_, promise) => {
  const catalogue = catalogueOf({ E: event({ on: "insert", where: promise as unknown as () => boolean }) });
  const { occurrences, unmatched } = matchChange(change("insert", undefined, open), catalogue);
  expect(occurrences).toEqual([]);
  expect(unmatched).toMatchObject([{ event: { name: "E" }, cause: "where-threw" }]);
  expect(String(unmatched[0]?.error)).toContain("where must be synchronous: it returned a promise");
  // Unhandled rejections are told by then, and fail the test.
  await new Promise((resolve) => setImmediate(resolve));
});

test("a project that returns a promise is an error of the definition, and its failure ends nothing", async () => {
  const project = (() => Promise.reject(new Error("later"))) as unknown as () => string;
  const catalogue = catalogueOf({ E: event({ on: "insert", project }) });
  const known = catalogue.events.get("E");
  expect(known).toBeDefined();
  expect(() => known && catalogue.projectOf(known, open)).toThrow("project must be synchronous: it returned a promise");
  await new Promise((resolve) => setImmediate(resolve));
});

test("an explicit trigger asks neither on nor where; of an unknown event it is a rejection", () => {
  const catalogue = catalogueOf({ E: event({ on: "insert", where: () => false }) });
  const mark = { kind: "trigger", transaction, position, id: "u", event: "E", key: "9", data: 1 } as const;
  expect(matchTrigger(mark, catalogue).occurrences).toMatchObject([{ key: "9", reason: "trigger", data: 1, record: undefined }]);
  expect(matchTrigger({ ...mark, event: "F" }, catalogue).unmatched).toMatchObject([{ event: { name: "F" }, cause: "event-unknown" }]);
});
