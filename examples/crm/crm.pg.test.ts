import { fileURLToPath } from "node:url";
import { startTest, type TestRun } from "ancrage/testing";
import { afterAll, beforeAll, expect, test } from "vitest";

// The whole way: a database with the tables of schema.sql, the events of this folder, a receiver.

let t: TestRun;
beforeAll(async () => {
  t = await startTest({ events: fileURLToPath(new URL(".", import.meta.url)) });
});
afterAll(() => t?.stop());

test("a deal needs no more than a label, and its opportunity is sent", async () => {
  await t.sql`insert into deal (label) values (${"Toiture"})`;
  await t.settle();
  expect(t.received("NewOpportunity")).toMatchObject([
    { payload: { label: "Toiture", customerName: "", creationDate: expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/) } },
  ]);
});

test("one transaction, whatever is in it; nothing of one that is rolled back", async () => {
  await t.query(`
    begin;
    insert into customer (id, name, kind) values (7, 'Colombe', 'prospect');
    insert into contact (customer_id, name) values (7, 'Mme Colombe');
    insert into deal (customer_id, label, status, is_project) values (7, 'Cave', 'Won', false);
    select ancrage.trigger('ImportFinished', 'deals-2026-11', '{"source": "ERP", "rows": 1}');
    commit`);
  await t.query("begin; insert into customer (name) values ('Nobody'); rollback");
  await t.settle();
  expect(t.received("NewProspect")).toMatchObject([{ payload: { name: "Colombe" } }]);
  expect(t.received("DealWon")).toMatchObject([{ payload: { label: "Cave", customerName: "Colombe", contacts: ["Mme Colombe"] } }]);
  expect(t.received("ImportFinished")).toMatchObject([{ payload: { import: "deals-2026-11", rows: 1 } }]);
  expect(t.received("NewCustomer")).toEqual([]);
});

test("a customer that is deleted is sent as it was", async () => {
  await t.sql`insert into customer (id, name) values (8, 'Dijon')`;
  await t.sql`delete from customer where id = 8`;
  await t.settle();
  expect(t.received("CustomerDeleted")).toMatchObject([{ payload: { name: "Dijon", kind: "customer" } }]);
  expect(await t.rejections()).toEqual([]);
});
