import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { defineEvent } from "../../src/event/define.ts";
import type { Answer, ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

const ItemAdded = defineEvent({
  table: "item",
  on: "insert",
  where(item) {
    if (item["is_hidden"] !== true && item["label"] === "torn") throw new Error("torn");
    return item["is_hidden"] !== true;
  },
  schema: z.object({ label: z.string().max(20) }),
  payload: (item, { reason }) => ({ label: `${String(item["label"])} ${reason}` }),
});

let system: System;
/** What capture waits for before it goes on with what it has read; undefined while it goes on. */
let captureHold: Promise<void> | undefined;
beforeAll(async () => {
  system = await startSystem({
    internals: { signal: (name) => (name === "captured" ? captureHold : undefined) },
    schema: `create table item (id integer generated always as identity primary key, label text not null, company text not null default 'acme',
      is_hidden boolean not null default false)`,
    events: { ItemAdded },
    options: {
      retry: { schedule: [0] },
      project(item) {
        if (item["company"] === "?") throw new Error(`of whom is ${String(item["label"])}?`);
        return String(item["company"]);
      },
    },
  });
});
afterAll(() => system.close());
beforeEach(() => system.receiver.answer(200));

const toItems = { event: "ItemAdded", format: "bare", project: "acme" };

async function subscribe(path: string, more: object = {}): Promise<string> {
  const { body, status } = await system.call("POST", "/v1/subscriptions", {
    ...toItems,
    url: system.receiver.url + path,
    ...more,
  });
  expect(status).toBe(201);
  await system.until(`select start_lsn is not null from ancrage.subscriptions where id = '${body.id}'`, true);
  return body.id as string;
}

const of =
  (path: string) =>
  (request: ReceivedRequest): boolean =>
    request.path === path;
const idsOf = (requests: readonly ReceivedRequest[], path: string): readonly (string | undefined)[] =>
  requests.filter(of(path)).map(({ headers }) => headers["webhook-id"]);

async function job(input: object): Promise<string> {
  const { body, status } = await system.call("POST", "/v1/jobs", input);
  expect({ status, body }).toMatchObject({ status: 201, body: { state: "waiting" } });
  return body.id as string;
}

const ended = async (id: string, state = "done") => {
  await system.until(`select state from ancrage.jobs where id = '${id}'`, state);
  return (await system.call("GET", `/v1/jobs/${id}`)).body;
};

const past = (): string => new Date(Date.now() - 3_600_000).toISOString();

test("recover sends what was exhausted again, with the same id and bytes, and what a disabled subscription never had", async () => {
  const id = await subscribe("/recover");
  system.receiver.answer(500);
  await system.rows("insert into item (label) values ('one'), ('two')");
  await system.until(`select count(*) from ancrage.deliveries where subscription_id = '${id}' and state = 'exhausted'`, 2);
  const first = system.receiver.requests.filter(of("/recover"));
  // Not by the API: what disables is not its matter. It never had the third.
  await system.rows(`insert into item (label) values ('three')`);
  await system.until(`select count(*) from ancrage.deliveries where subscription_id = '${id}' and state = 'exhausted'`, 3);
  await system.rows(
    `delete from ancrage.deliveries where subscription_id = $1 and message_id = (select max(message_id) from ancrage.deliveries where subscription_id = $1)`,
    [id],
  );

  system.receiver.answer(200);
  const asked = { since: past() };
  expect((await system.call("POST", `/v1/subscriptions/${id}/recover`, { ...asked, dryRun: true })).body).toEqual({
    dryRun: true,
    total: 3,
  });
  const { body, status } = await system.call("POST", `/v1/subscriptions/${id}/recover`, asked);
  expect(status).toBe(201);
  expect(await ended(body.id)).toMatchObject({ kind: "recover", total: 3, done: 3, failed: 0, unfinished: 0, exhausted: 0 });
  const all = system.receiver.requests.filter(of("/recover"));
  expect(all).toHaveLength(6);
  const again = all.slice(3);
  expect(new Set(again.map(({ headers }) => headers["webhook-id"]))).toEqual(
    new Set(all.slice(0, 3).map(({ headers }) => headers["webhook-id"])),
  );
  for (const request of first) expect(again.map(({ body }) => body)).toContain(request.body);
  expect(
    await system.rows(`select state, round, attempts, job_id from ancrage.deliveries where subscription_id = $1 order by message_id`, [id]),
  ).toEqual([
    { state: "delivered", round: 2, attempts: 1, job_id: body.id },
    { state: "delivered", round: 2, attempts: 1, job_id: body.id },
    { state: "delivered", round: 1, attempts: 1, job_id: body.id },
  ]);
});

test("replay gives a subscription what it never had, once; with again all of it", async () => {
  const before = await subscribe("/first");
  await system.rows("insert into item (label) values ('a'), ('b'), ('c')");
  await system.receiver.until((all) => all.filter(of("/first")).length === 3);
  const later = await subscribe("/later");
  const { body: deliveries } = await system.call("GET", `/v1/messages?limit=200`);
  const total = deliveries.data.length as number;

  const replay = { kind: "replay", subscriptionId: later, from: past() };
  expect(await ended(await job(replay))).toMatchObject({ done: total, total });
  expect(new Set(idsOf(system.receiver.requests, "/later")).size).toBe(total);
  expect(await ended(await job(replay))).toMatchObject({ done: 0, total: 0 });
  expect(await ended(await job({ ...replay, again: true }))).toMatchObject({ done: total, total });
  const requests = system.receiver.requests.filter(of("/later"));
  expect(requests).toHaveLength(total * 2);
  expect(new Set(requests.map(({ body, headers }) => `${headers["webhook-id"]} ${body}`)).size).toBe(total);
  // The first success has a row of its own now.
  const [row] = await system.rows<{ message_id: string }>(`select message_id from ancrage.deliveries where subscription_id = $1 limit 1`, [
    later,
  ]);
  const { body } = await system.call("GET", `/v1/deliveries?messageId=${row?.message_id}&subscriptionId=${later}`);
  expect(
    body.data[0].attempts.map(({ round, number, status, reason }: Readonly<Record<string, unknown>>) => ({
      round,
      number,
      status,
      reason,
    })),
  ).toEqual([
    { round: 1, number: 1, status: 200, reason: null },
    { round: 2, number: 1, status: 200, reason: null },
  ]);
  expect(before).not.toBe(later);

  // What it made happen itself is not sent back to it: by its name, by its delivery, around for ever.
  const echoed = await subscribe("/echoed", { ignoredActors: ["itself"] });
  const ids = await system.rows<{ id: string }>("select id from ancrage.messages order by id limit 3");
  for (const [index, { id }] of ids.entries()) {
    await system.rows("update ancrage.messages set actor = $2, caused_by = $3, depth = $4 where id = $1", [
      id,
      index === 0 ? "itself" : null,
      index === 1 ? echoed : null,
      index === 2 ? 5 : 0,
    ]);
  }
  expect(await ended(await job({ ...replay, subscriptionId: echoed }))).toMatchObject({ done: total - 3 });
});

test("one delivery is sent again by hand; in states in which it cannot be, the answer says why", async () => {
  const id = await subscribe("/resend");
  await system.rows("insert into item (label) values ('again')");
  await system.receiver.until((all) => all.some(of("/resend")));
  await system.until(`select state from ancrage.deliveries where subscription_id = '${id}'`, "delivered");
  const { body: list } = await system.call("GET", `/v1/deliveries?subscriptionId=${id}`);
  const path = `/v1/deliveries/${list.data[0].id}/resend`;
  let release = (): void => undefined;
  system.receiver.answer((request: ReceivedRequest): Answer =>
    of("/resend")(request) ? (_, response) => (release = () => response.writeHead(200).end()) : 200,
  );
  expect(await system.call("POST", path)).toMatchObject({ status: 200, body: { state: "pending" } });
  await system.receiver.until((all) => all.filter(of("/resend")).length === 2);
  expect(await system.call("POST", path)).toMatchObject({
    status: 409,
    body: { code: "job-refused", detail: expect.stringContaining("pending") },
  });
  release();
  await system.until(`select state::text || round from ancrage.deliveries where subscription_id = '${id}'`, "delivered2");
  expect(new Set(idsOf(system.receiver.requests, "/resend")).size).toBe(1);
  await system.rows(`update ancrage.subscriptions set state = 'disabled', state_reason = 'gone' where id = $1`, [id]);
  expect(await system.call("POST", path)).toMatchObject({ status: 409, body: { detail: expect.stringContaining("disabled (gone)") } });
  await system.call("DELETE", `/v1/subscriptions/${id}`);
  expect(await system.call("POST", path)).toMatchObject({ status: 409, body: { detail: expect.stringContaining("deleted") } });
  expect(await system.call("POST", "/v1/deliveries/dlv_1_2/resend")).toMatchObject({ status: 404 });
});

test("an outcome of the round before comes too late: what was begun by hand stands", async () => {
  const id = await subscribe("/late");
  const held: (() => void)[] = [];
  system.receiver.answer((request: ReceivedRequest): Answer =>
    of("/late")(request) ? (_, response) => held.push(() => response.writeHead(500).end()) : 200,
  );
  await system.rows("insert into item (label) values ('late')");
  await system.receiver.until((all) => all.some(of("/late")));
  await system.until(`select state from ancrage.deliveries where subscription_id = '${id}'`, "pending");
  expect((await system.call("POST", "/v1/deliveries/cancel", { subscriptionId: id, dryRun: true })).body.total).toBe(1);
  const { body: cancel } = await system.call("POST", "/v1/deliveries/cancel", { subscriptionId: id });
  expect(await ended(cancel.id)).toMatchObject({ kind: "cancel", done: 1 });
  expect(await system.rows("select state from ancrage.deliveries where subscription_id = $1", [id])).toEqual([{ state: "canceled" }]);
  const { body: list } = await system.call("GET", `/v1/deliveries?subscriptionId=${id}`);
  expect(await system.call("POST", `/v1/deliveries/${list.data[0].id}/resend`)).toMatchObject({ status: 200 });
  held.shift()?.();
  await system.until(`select count(*) from ancrage.attempts where subscription_id = '${id}' and round = 1 and is_late`, 1);
  await system.receiver.until((all) => all.filter(of("/late")).length === 2);
  expect(await system.rows("select state, round, attempts from ancrage.deliveries where subscription_id = $1", [id])).toEqual([
    { state: "pending", round: 2, attempts: 0 },
  ]);
  for (const release of held) release();
  await system.call("DELETE", `/v1/subscriptions/${id}`);
});

test("a cancellation ends, and a replay sends, what was committed before it, also where capture has not come to it yet", async () => {
  const id = await subscribe("/behind");
  await system.call("POST", `/v1/subscriptions/${id}/pause`);
  const { promise, resolve: release } = Promise.withResolvers<void>();
  captureHold = promise;
  await system.rows("insert into item (label) values ('behind')");
  const { body: cancel } = await system.call("POST", "/v1/deliveries/cancel", { subscriptionId: id });
  await system.until(`select state <> 'waiting' from ancrage.jobs where id = '${cancel.id}'`, true);
  // One of a subscription that was made too late to get it.
  const late = await system.call("POST", "/v1/subscriptions", { ...toItems, url: `${system.receiver.url}/too-late` });
  const replay = await job({ kind: "replay", subscriptionId: late.body.id, from: new Date(Date.now() - 30_000).toISOString() });
  await system.until(`select state <> 'waiting' from ancrage.jobs where id = '${replay}'`, true);
  // Another one is made and done meanwhile: it has had its turn to end.
  const { body: other } = await system.call("POST", "/v1/jobs", { kind: "retry", event: "ItemAdded", from: past() });
  await ended(other.id);
  for (const held of [cancel.id, replay]) expect((await system.call("GET", `/v1/jobs/${held}`)).body.state).toBe("running");
  captureHold = undefined;
  release();
  await ended(cancel.id);
  await ended(replay);
  expect(system.receiver.requests.filter(of("/too-late")).map(({ body }) => body)).toContain('{"label":"behind change"}');
  expect(await system.rows("select state from ancrage.deliveries where subscription_id = $1", [id])).toEqual([{ state: "canceled" }]);
  await system.call("DELETE", `/v1/subscriptions/${id}`);
});

test("a backfill makes messages of the rows that are there, of its project and for which where holds, and rejections of the rest", async () => {
  await system.rows("insert into item (label, company) values ('of others', 'other')");
  await system.rows("insert into item (label, is_hidden) values ('hidden', true), ('much too long a label for it', false)");
  // Not hidden any more they would have been rejected when they were inserted.
  await system.rows(
    "insert into item (label, company, is_hidden) values ('torn', 'acme', true), ('torn', 'acme', true), ('torn', 'acme', true), ('secret', '?', true)",
  );
  await system.rows("update item set is_hidden = false where label in ('torn', 'secret')");
  const id = await subscribe("/backfill");
  const other = await subscribe("/bystander");
  const request = { kind: "backfill", subscriptionId: id, event: "ItemAdded" };
  const [count] = await system.rows<{ count: number }>("select count(*)::integer as count from item");
  expect((await system.call("POST", "/v1/jobs", { ...request, dryRun: true })).body).toEqual({ dryRun: true, total: count?.count });
  const done = await ended(await job(request));
  expect(done).toMatchObject({ done: (count?.count ?? 0) - 1, total: count?.count, failed: 5 });
  // How many records all projects have is not one project's to see.
  const { body: token } = await system.call("POST", "/v1/tokens", { name: "Acme", project: "acme" });
  const asAcme = { authorization: `Bearer ${token.token}` };
  expect((await system.call("GET", `/v1/jobs/${done.id}`, undefined, asAcme)).body).toMatchObject({ total: null, done: done.done });
  expect((await system.call("POST", "/v1/jobs", { ...request, dryRun: true }, asAcme)).body).toEqual({ dryRun: true, total: null });
  const bodies = system.receiver.requests.filter(of("/backfill")).map(({ body }) => body);
  expect(bodies).toHaveLength((count?.count ?? 0) - 7);
  expect(bodies).toContain('{"label":"one backfill"}');
  expect(system.receiver.requests.some(of("/bystander"))).toBe(false);
  expect(await system.rows("select count(*)::integer as count from ancrage.job_records")).toEqual([{ count: 0 }]);
  // Of the last one nobody knows whose it is: no project sees that it is there.
  const rejections = await system.rows<{ id: string; reason: string }>(
    "select id, reason from ancrage.rejections where convert_from(occurrence, 'UTF8') like '%backfill%' order by key::integer",
  );
  expect(rejections.map(({ reason }) => reason)).toEqual(["schema-refused", "where-threw", "where-threw", "where-threw"]);

  const [secret] = await system.rows<{ id: number }>("select id from item where label = 'secret'");
  for (const key of [secret?.id, "no number"]) {
    expect(await system.call("POST", "/v1/events/ItemAdded/trigger?project=acme", { key })).toMatchObject({ status: 404 });
  }

  // Mended, a record is asked anew whose it is, whether it is meant, and whether it is wanted.
  const [long, ...torn] = rejections;
  const [moved, hidden, unwanted] = await system.rows<{ id: number }>("select id from item where label = 'torn' order by id");
  await system.rows("update item set label = 'mended', company = 'other' where id = $1", [moved?.id]);
  await system.rows("update item set label = 'mended', is_hidden = true where id = $1", [hidden?.id]);
  await system.rows("update item set label = 'mended' where id = $1", [unwanted?.id]);
  await system.call("PATCH", `/v1/subscriptions/${id}`, { filter: { label: { ne: "mended backfill" } } });
  for (const { id: rejection } of torn) {
    expect(await system.call("POST", `/v1/rejections/${rejection}/retry`)).toMatchObject({ status: 200, body: { outcome: "nothing" } });
  }

  // Mended, it goes to the one subscription that it was for.
  await system.rows("update item set label = 'short' where label like 'much%'");
  const retried = await system.call("POST", `/v1/rejections/${long?.id}/retry`);
  expect(retried).toMatchObject({ status: 200, body: { outcome: "messages" } });
  await system.receiver.until((all) => all.some(({ path, body }) => path === "/backfill" && body === '{"label":"short backfill"}'));
  expect(await system.rows("select 1 from ancrage.deliveries where subscription_id = $1", [other])).toEqual([]);

  expect(await ended(await job({ ...request, where: "label = 'two' -- and no more" }))).toMatchObject({ done: 1, total: 1 });
  // A name that no event has is told to be one, and not to be another subscription's.
  const misspelt = await system.call("POST", "/v1/jobs", { ...request, event: "ItmAdded" });
  expect(misspelt).toMatchObject({ status: 404, body: { code: "unknown-event", detail: expect.stringContaining("did you mean") } });
  for (const where of ["lable = 'two'", "true); delete from item; select (1"]) {
    const { status, body } = await system.call("POST", "/v1/jobs", { ...request, where });
    expect({ where, status, pointer: body.errors?.[0].pointer }).toEqual({ where, status: 422, pointer: "/where" });
  }
  // After a crash nothing of it is fanned out to others.
  await system.restart();
  await system.rows("insert into item (label) values ('live')");
  await system.receiver.until((all) => all.some(({ path, body }) => path === "/bystander" && body.includes("live")));
  expect(system.receiver.requests.filter(of("/bystander"))).toHaveLength(1);
});

test("a job is gone on with after a restart, and canceled within a second", async () => {
  await system.rows("delete from item");
  await system.rows("insert into item (label, is_hidden) select 'row ' || n, true from generate_series(1, 2000) n");
  await system.rows("update item set is_hidden = false");
  const id = await subscribe("/many");
  const request = { kind: "backfill", subscriptionId: id, event: "ItemAdded", ratePerSecond: 400 };
  const first = await job(request);
  const second = await job({ ...request, where: "id < 0" });
  await system.receiver.until((all) => all.filter(of("/many")).length >= 100);
  await system.restart();
  const seen = new Set(idsOf(system.receiver.requests, "/many")).size;
  await system.receiver.until((all) => new Set(idsOf(all, "/many")).size >= seen + 100);
  // One after another.
  expect((await system.call("GET", `/v1/jobs/${second}`)).body.state).toBe("waiting");
  // Other work on the machine makes it longer; alone it takes some tens of milliseconds.
  const startedAt = performance.now();
  expect(await system.call("POST", `/v1/jobs/${first}/cancel`)).toMatchObject({ status: 200, body: { state: "canceled" } });
  await system.until(`select count(*) from ancrage.deliveries where job_id = '${first}' and state in ('pending', 'retrying')`, 0);
  expect(performance.now() - startedAt).toBeLessThan(1_000);
  expect(await ended(second)).toMatchObject({ done: 0 });
  const { done, total } = (await system.call("GET", `/v1/jobs/${first}`)).body;
  expect(total).toBe(2_000);
  expect(done).toBeLessThan(2_000);
  const [row] = await system.rows<{ count: number }>(
    "select count(*)::integer as count from ancrage.messages where committed_at = (select created_at from ancrage.jobs where id = $1)",
    [first],
  );
  expect(row?.count).toBeLessThanOrEqual(done);
  expect(await system.call("POST", `/v1/jobs/${first}/cancel`)).toMatchObject({
    status: 409,
    body: { detail: expect.stringContaining("canceled") },
  });
  const { body } = await system.call("GET", `/v1/jobs?subscriptionId=${id}`);
  expect(body.data.map(({ id, state }: Readonly<Record<string, unknown>>) => [id, state])).toEqual([
    [second, "done"],
    [first, "canceled"],
  ]);
});

test("a day that goes while an attempt is under way: the outcome is kept as late, and the journal goes on", async () => {
  const id = await subscribe("/gone");
  let release = (): void => undefined;
  system.receiver.answer((request: ReceivedRequest): Answer =>
    of("/gone")(request) ? (_, response) => (release = () => response.writeHead(500).end()) : 200,
  );
  await system.rows("insert into item (label) values ('gone')");
  await system.receiver.until((all) => all.some(of("/gone")));
  await system.until(`select state from ancrage.deliveries where subscription_id = '${id}'`, "pending");
  await system.rows(
    "select ancrage.drop_partition(name, (now() at time zone 'UTC')::date) from unnest(array['messages', 'deliveries', 'attempts']) name",
  );
  release();
  await system.until(`select count(*) from ancrage.attempts where subscription_id = '${id}' and is_late`, 1);
  system.receiver.answer(200);
  await system.rows("insert into item (label) values ('after')");
  await system.until(`select count(*) from ancrage.deliveries where subscription_id = '${id}' and state = 'delivered'`, 1);
  await expect.poll(async () => (await system.call("GET", "/v1/status")).body).toMatchObject({ isReady: true });
});
