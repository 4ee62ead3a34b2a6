import { expect, test } from "vitest";
import { z } from "zod";
import { defineEvent } from "../event/define.ts";
import { track } from "../event/track.ts";
import { fire } from "./fire.ts";

const Created = defineEvent({
  table: "deal",
  on: "insert",
  where: (deal) => deal["is_project"] === true,
  schema: z.object({ label: z.string(), customerName: z.string().trim() }),
  async payload(deal, { load }) {
    const customer = await load("customer", deal["customer_id"]);
    return { label: deal["label"], customerName: customer?.["name"] ?? "" };
  },
});
const Won = defineEvent({
  table: "deal",
  on: "enter",
  where: (deal) => deal["status"] === "won",
  payload: (deal, { before, changed }) => ({ id: deal["id"], was: before?.["status"], isNewAmount: changed("amount") }),
});
const deal = { id: 42, label: "Roof", customer_id: 7, is_project: true, status: "open", amount: "1" };

test("an insert: the schema's output, with what load finds in rows", async () => {
  const { payloads, messages, rejections } = await fire(Created, { insert: deal, rows: { customer: [{ id: 7, name: " Colombe " }] } });
  expect(payloads).toEqual([{ label: "Roof", customerName: "Colombe" }]);
  expect(messages).toEqual([{ event: "Event", key: "42", payload: payloads[0] }]);
  expect(rejections).toEqual([]);
});

test.each([
  ["another action", { update: deal, before: deal }],
  ["where is false", { insert: { ...deal, is_project: false } }],
])("nothing happens: %s", async (_, happening) => {
  expect(await fire(Created, { ...happening, rows: { customer: [] } })).toEqual({ payloads: [], messages: [], rejections: [] });
});

test("enter asks the old row as well, and the payload sees it", async () => {
  const won = { ...deal, status: "won" };
  expect((await fire(Won, { update: { ...won, amount: "2" }, before: deal })).payloads).toEqual([
    { id: 42, was: "open", isNewAmount: true },
  ]);
  expect((await fire(Won, { update: { ...won, amount: "2" }, before: won })).payloads).toEqual([]);
  expect((await fire(Won, { insert: won })).payloads).toEqual([{ id: 42, isNewAmount: true }]);
});

test("a payload that writes into its record is a rejection, as in the running system; the test's own row stays as it is", async () => {
  const row = { id: 1, tags: ["b", "a"] };
  const Sorted = defineEvent({ table: "deal", on: "insert", payload: (deal) => (deal["tags"] as string[]).push("c") });
  const { rejections } = await fire(Sorted, { insert: row });
  expect(rejections).toMatchObject([{ reason: "payload-threw", error: expect.stringContaining("not extensible") }]);
  expect(row.tags.push("c")).toBe(3);
});

test("a delete has the old row; with oldValues: false its key alone, as the log", async () => {
  const options = { table: "deal", on: "delete", example: {}, payload: (old: object) => old } as const;
  expect((await fire(defineEvent(options), { delete: { id: 42, label: "Roof" } })).payloads).toEqual([{ id: 42, label: "Roof" }]);
  expect((await fire(defineEvent({ ...options, oldValues: false }), { delete: { id: 42, label: "Roof" } })).payloads).toEqual([{ id: 42 }]);
});

test("a trigger: data goes through its schema; the record is read by its key from rows", async () => {
  const Finished = defineEvent({
    data: z.object({ rows: z.coerce.number() }),
    example: {},
    payload: ({ key, data }) => ({ key, count: data.rows + 1 }),
  });
  expect((await fire(Finished, { trigger: "deals", data: { rows: "3" } })).payloads).toEqual([{ key: "deals", count: 4 }]);
  expect((await fire(Finished, { trigger: "deals" })).rejections).toMatchObject([{ key: "deals", reason: "data-invalid" }]);
  // An explicit trigger asks neither on nor where.
  const rows = { deal: [{ ...deal, is_project: false }], customer: [{ id: 7, name: "Colombe" }] };
  expect((await fire(Created, { trigger: 42, rows })).payloads).toEqual([{ label: "Roof", customerName: "Colombe" }]);
  expect((await fire(Created, { trigger: 43, rows })).rejections).toMatchObject([
    { reason: "record-missing", error: 'deal has no record with the key "43"' },
  ]);
});

test("several definitions: a tracking handler triggers events by their names", async () => {
  const deals = track("deal", ({ action, after, trigger }) => {
    if (action === "insert" && after["is_project"] === true) trigger("deal.created", after["id"]);
  });
  const definitions = { "deal.created": defineEvent({ table: "deal", payload: (record) => record["label"] }), Won, deals };
  expect((await fire(definitions, { table: "deal", insert: { ...deal, status: "won" } })).messages).toEqual([
    { event: "Won", key: "42", payload: { id: 42, isNewAmount: true } },
    { event: "deal.created", key: "42", payload: "Roof" },
  ]);
  const misspelt = track("deal", ({ key, trigger }) => trigger("deal.craeted", key));
  expect((await fire({ ...definitions, misspelt }, { table: "deal", insert: { id: 1 } })).rejections).toMatchObject([
    { event: "misspelt", reason: "handler-threw", error: expect.stringContaining("deal.craeted") },
  ]);
});

test("what the definition's own code or schema refuses is a rejection, as in the running system", async () => {
  expect((await fire(Created, { insert: { ...deal, label: null }, rows: { customer: [] } })).rejections).toMatchObject([
    { event: "Event", key: "42", reason: "schema-refused", error: expect.stringContaining("label") },
  ]);
  expect((await fire(Created, { insert: deal })).rejections).toMatchObject([
    { reason: "payload-threw", error: expect.stringContaining('load("customer", …): there is no such table') },
  ]);
});

test("load by columns, in rows that there are and in a table without any", async () => {
  const Counted = defineEvent({
    table: "deal",
    on: "insert",
    payload: async (record, { load }) => (await load.all("contact", { customer_id: record["customer_id"], left_at: null })).length,
  });
  const contact = [
    { id: 1, customer_id: 7, left_at: null },
    { id: 2, customer_id: 7, left_at: "2026-01-01" },
    { id: 3, customer_id: "7", left_at: null },
    { id: 4, customer_id: 8, left_at: null },
  ];
  expect((await fire(Counted, { insert: deal, rows: { contact } })).payloads).toEqual([2]);
  expect((await fire(Counted, { insert: deal, rows: { contact: [] } })).payloads).toEqual([0]);
});

test("load finds the changed row as it is after the change", async () => {
  const Self = defineEvent({
    table: "deal",
    on: ["update", "delete"],
    example: {},
    payload: async (record, { load }) => (await load("deal", record["id"])) ?? "gone",
  });
  const rows = { deal: [{ id: 42, label: "old" }] };
  const before = { id: 42, label: "old" };
  expect((await fire(Self, { update: { id: 42, label: "new" }, before, rows })).payloads).toEqual([{ id: 42, label: "new" }]);
  expect((await fire(Self, { delete: before, rows })).payloads).toEqual(["gone"]);
});

test("keys of several columns, and of another name", async () => {
  const Line = defineEvent({ table: "sales.line", on: "insert", payload: async (line, { load }) => load("order", line["order_no"]) });
  const fired = await fire(Line, {
    insert: { order_no: 7, number: 2 },
    rows: { order: [{ order_no: 7, label: "A" }] },
    keyColumns: { "sales.line": ["order_no", "number"], order: ["order_no"] },
  });
  expect(fired.messages).toEqual([{ event: "Event", key: '["7","2"]', payload: { order_no: 7, label: "A" } }]);
});

test("sql is answered by the test, and refused where it gives no answer", async () => {
  const Total = defineEvent({
    table: "deal",
    on: "insert",
    payload: async (record, { sql }) => (await sql`select sum(amount) as total from line where deal_id = ${record["id"]}`)[0]?.["total"],
  });
  const answered = await fire(Total, {
    insert: deal,
    sql: (text, values) => [{ total: `${text.includes("sum(amount)")} ${String(values[0])}` }],
  });
  expect(answered.payloads).toEqual(["true 42"]);
  expect((await fire(Total, { insert: deal })).rejections).toMatchObject([
    { reason: "payload-threw", error: expect.stringContaining("there is no database here") },
  ]);
});

test("a definition that is wrong is an error of the test", async () => {
  await expect(fire(defineEvent({ example: {}, on: "insert" as never, payload: () => 1 }), { trigger: 1 })).rejects.toMatchObject({
    code: "ANCRAGE_DEFINITION_INVALID",
  });
  await expect(fire(defineEvent({ example: {}, payload: () => 1 }), { insert: { id: 1 } } as never)).rejects.toMatchObject({
    code: "ANCRAGE_VALUE_INVALID",
    message: expect.stringContaining("the event has no table"),
  });
});
