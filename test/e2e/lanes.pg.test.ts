import type { ServerResponse } from "node:http";
import { afterEach, expect, test } from "vitest";
import { laneCapacity } from "../../src/deliver/memory.ts";
import { defineEvent } from "../../src/event/define.ts";
import { startReceiver, type ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

/** More than a lane holds. */
const count = laneCapacity + 5_000;
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });
const start = (): Promise<System> =>
  startSystem({
    schema: "create table item (id integer generated always as identity primary key)",
    events: { ItemCreated },
    options: { delivery: { timeoutMs: 120_000 } },
  });

let system: System;
afterEach(() => system.close());

const subscribe = async (url: string): Promise<string> =>
  (await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url, format: "bare" })).body.id;
const idsOf = (requests: readonly ReceivedRequest[]): readonly (string | undefined)[] =>
  requests.map(({ headers }) => headers["webhook-id"]);

test("beside a receiver that hangs a healthy one gets all; the other's wait in the journal, and arrive once each when it answers", async () => {
  system = await start();
  const hanging = await startReceiver();
  const hung: ServerResponse[] = [];
  hanging.answer((_: ReceivedRequest, response: ServerResponse): void => void hung.push(response));
  const id = await subscribe(hanging.url);
  await subscribe(system.receiver.url);

  let mostHeld = 0;
  for (let rows = 0; rows < count; rows += 1_000) {
    await system.rows("insert into item select from generate_series(1, 1000)");
    const { body } = await system.call("GET", "/v1/status");
    mostHeld = Math.max(mostHeld, body.details.deliveriesInMemory);
  }
  await system.receiver.until((all) => all.length === count);
  // Nobody waits for the one that hangs: all of its deliveries have a row, but for those in memory that are younger than a second.
  await system.until(`select count(*) from ancrage.deliveries where subscription_id = '${id}' and state = 'pending'`, count);
  const { details } = (await system.call("GET", "/v1/status")).body;
  expect(details.deliveriesInMemory).toBeLessThanOrEqual(laneCapacity);
  expect(details.lanesBehind).toBe(1);
  expect(mostHeld).toBeLessThanOrEqual(2 * laneCapacity);
  expect(hanging.requests.length).toBeLessThanOrEqual(64);

  hanging.answer(200);
  for (const response of hung) response.writeHead(200).end();
  await hanging.until((all) => all.length >= count);
  await system.until(`select count(*) from ancrage.deliveries where state = 'delivered'`, 2 * count);
  await system.ancrage().stop();
  for (const { requests } of [hanging, system.receiver]) {
    expect(requests.length).toBe(count);
    expect(new Set(idsOf(requests)).size).toBe(count);
  }
  await hanging.close();
}, 180_000);

test("twenty thousand rows at once overflow a receiver's lane, and arrive once each", async () => {
  system = await start();
  system.receiver.answer((_: ReceivedRequest, response: ServerResponse): void => void setTimeout(() => response.writeHead(200).end(), 2));
  await subscribe(system.receiver.url);
  await system.rows("insert into item select from generate_series(1, 20000)");
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", 20_000);
  await system.ancrage().stop();
  expect(new Set(idsOf(system.receiver.requests)).size).toBe(20_000);
  expect(system.receiver.requests.length).toBe(20_000);
});

/** Makes deliveries of a subscription as a process of before left them: `pending`, and in no memory. */
async function leaveBehind(subscriptionId: string, count: number, bytes = 2): Promise<void> {
  // Their day may not be today: what the server has to make it.
  await system.rows(
    "select ancrage.ensure_partitions(day) from unnest(array[(now() at time zone 'UTC')::date, (now() at time zone 'UTC')::date - 1]) as day",
  );
  await system.rows(
    `with made as (
       insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
       select 'msg_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint - 10000, 10) || lpad(i::text, 46, '0'), 'default',
         'ItemCreated', i::text, '0/1', '0/1', i, now(), convert_to(rpad('{"n":"', $3::integer - 2, 'x') || '"}', 'UTF8')
       from generate_series(1, $2::integer) as i returning id
     )
     insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, updated_at)
     select id, $1, 'default', 'pending', 1, 0, now() from made`,
    [subscriptionId, count, bytes],
  );
}

test("a deletion ends a large backlog in pages: a row that somebody has holds up neither the others nor the journal", async () => {
  system = await start();
  const id = await subscribe(`${system.receiver.url}/deleted`);
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is not null", 1);
  await system.ancrage().stop();
  await leaveBehind(id, 3_000);
  // Another session has one of them for as long as the test wants.
  const holder = await system.database.connect();
  await holder.query("begin");
  await holder.query("select from ancrage.deliveries where subscription_id = $1 order by message_id limit 1 for update", [id]);
  // Deleted while nobody led: an earlier process had begun, and never came to their end.
  await system.rows("update ancrage.subscriptions set state = 'deleted', revision = nextval('ancrage.revision')");
  await system.restart();
  await system.until("select count(*) from ancrage.deliveries where state = 'canceled'", 2_999);
  await holder.query("commit");
  await system.until("select count(*) from ancrage.deliveries where state = 'canceled'", 3_000);
  expect(system.receiver.requests).toEqual([]);
});

test("a backlog of large messages is read a few MiB at a time, and arrives whole", async () => {
  system = await start();
  const id = await subscribe(system.receiver.url);
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is not null", 1);
  await system.ancrage().stop();
  await leaveBehind(id, 40, 500_000);
  await system.restart();
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", 40);
  expect(new Set(idsOf(system.receiver.requests)).size).toBe(40);
});
