import { randomBytes } from "node:crypto";
import { pino } from "pino";
import { Webhook } from "standardwebhooks";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createAncrage, migrate, type Ancrage } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import { track } from "../../src/event/track.ts";
import { cloneDatabase, type TestDatabase } from "../database.ts";
import { startReceiver, type Receiver } from "../receiver.ts";

const log = pino({ level: process.env["LOG"] ?? "silent" });
const DealCreated = defineEvent({
  table: "deal",
  payload: async (deal, { load }) => {
    const customer = await load("customer", deal["customer_id"]);
    return { label: deal["label"], customer: customer?.["name"] ?? "" };
  },
});
const DealWon = defineEvent({
  table: "deal",
  on: "enter",
  where: (deal) => deal["status"] === "won",
  payload: (deal) => ({ id: deal["id"], status: deal["status"] }),
});
const CustomerDeleted = defineEvent({
  table: "customer",
  on: "delete",
  example: { name: "x" },
  payload: (customer) => ({ name: customer["name"] }),
});
const deals = track("deal", ({ action, key, trigger }) => {
  if (action === "insert") trigger("DealCreated", key);
});

let database: TestDatabase;
let receiver: Receiver;
let ancrage: Ancrage;

beforeEach(async () => {
  database = await cloneDatabase();
  receiver = await startReceiver();
  await database.client.query(`
    create table customer (id integer generated always as identity primary key, name text not null);
    create table deal (id integer generated always as identity primary key, customer_id integer, label text not null, status text not null default 'open')`);
  const options = {
    database: database.url,
    events: { DealCreated, DealWon, CustomerDeleted, deals },
    token: "a-token-of-the-operator",
    secretKey: randomBytes(32).toString("base64"),
    allowHttp: true,
    allowNetworks: ["127.0.0.0/8"],
  };
  await migrate(options);
  ancrage = createAncrage(options, { log });
  await ancrage.start();
});
afterEach(async () => {
  await ancrage.stop();
  await receiver.close();
  await database.remove();
});

test("a row that plain SQL wrote arrives, signed", async () => {
  const { subscription, secret } = await ancrage.subscriptions.create({ event: "DealCreated", url: `${receiver.url}/hook?a=1` });
  await database.client.query("insert into customer (name) values ('Colombe')");
  await database.client.query("insert into deal (customer_id, label) values (1, 'Été')");
  const [request] = await receiver.until((requests) => requests.length === 1);
  expect(request?.path).toBe("/hook?a=1");
  expect(request?.headers).toMatchObject({
    "ancrage-event": "DealCreated",
    "ancrage-subscription": subscription.id,
    "ancrage-attempt": "1",
  });
  expect(new Webhook(secret).verify(request!.body, { ...request!.headers })).toMatchObject({
    type: "DealCreated",
    id: request!.headers["webhook-id"],
    data: { label: "Été", customer: "Colombe" },
  });
});

test("enter fires once: another column of a won deal sends nothing; a deleted customer's event has the name", async () => {
  await ancrage.subscriptions.create({ events: ["DealWon", "CustomerDeleted"], url: receiver.url, format: "bare" });
  await database.client.query("insert into customer (name) values ('Colombe')");
  await database.client.query("insert into deal (label) values ('a')");
  await database.client.query("update deal set status = 'won'");
  await database.client.query("update deal set label = 'b'");
  await database.client.query("delete from customer");
  const requests = await receiver.until((all) => all.length === 2);
  expect(requests.map((request) => JSON.parse(request.body))).toEqual([{ id: 1, status: "won" }, { name: "Colombe" }]);
});

test("ten thousand rows of a COPY arrive once each", async () => {
  await ancrage.subscriptions.create({ event: "DealCreated", url: receiver.url, format: "bare" });
  await database.client.query("insert into deal (label) select 'deal ' || i from generate_series(1, 10000) i");
  await receiver.until((all) => all.length === 10_000);
  expect(new Set(receiver.requests.map((request) => request.headers["webhook-id"])).size).toBe(10_000);
});
