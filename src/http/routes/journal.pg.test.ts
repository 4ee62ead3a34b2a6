import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestApi, type TestApi } from "../../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../../test/database.ts";
import { listDeliveries } from "../../store/deliveries.ts";
import { listMessages, readFeed } from "../../store/messages.ts";
import { listRejections } from "../../store/rejections.ts";
import { hashToken } from "../../tokens.ts";
import { formatDeliveryId, parseDeliveryId } from "./deliveries.ts";

/** Messages, deliveries, attempts and rejections, as the journal holds them, through the API that reads them. */

const dayMs = 86_400_000;
let database: TestDatabase;
let api: TestApi;
const now = Date.now();
let ids: { hour: string; yesterday: string; other: string; tenDays: string };
const sub = `sub_${"1".repeat(26)}`;

beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database);
  await database.client.query(`insert into ancrage.tokens (id, project, name, hash) values ('tok_1', 'acme', 'Acme', $1)`, [
    hashToken("acme-token"),
  ]);
  ids = {
    hour: await insertMessage({ ageMs: 3_600_000, project: "acme", event: "deal.won", key: "1" }),
    yesterday: await insertMessage({ ageMs: dayMs, project: "acme", event: "NewOpportunity", key: "2" }),
    other: await insertMessage({ ageMs: dayMs + 1000, project: "globex", event: "deal.won", key: "1" }),
    tenDays: await insertMessage({ ageMs: 10 * dayMs, project: "acme", event: "deal.won", key: "3" }),
  };
  await database.client.query(
    `insert into ancrage.deliveries
       (message_id, subscription_id, project, state, round, attempts, next_attempt_at, last_status, last_reason, duration_ms, updated_at)
     values
       ($1, $4, 'acme', 'delivered', 1, 2, null, 200, null, 12, '2026-11-24T10:00:00.012Z'),
       ($2, $4, 'acme', 'retrying', 1, 1, '2026-11-24T11:00:00Z', 503, 'status', 30, '2026-11-24T10:00:00Z'),
       ($3, $5, 'globex', 'exhausted', 1, 1, null, null, 'timeout', 15000, '2026-11-24T10:00:00Z')`,
    [ids.hour, ids.yesterday, ids.other, sub, `sub_${"2".repeat(26)}`],
  );
  await database.client.query(
    `insert into ancrage.attempts (message_id, subscription_id, round, number, at, status, reason, duration_ms, response)
     values ($1, $3, 1, 1, '2026-11-24T09:59:00Z', 500, 'status', 20, '\\x6f00ff'),
       ($2, $3, 1, 1, '2026-11-24T10:00:00Z', 503, 'status', 30, 'busy')`,
    [ids.hour, ids.yesterday, sub],
  );
  // A journal that is never behind.
  await database.client.query(
    `insert into ancrage.leaders (source, epoch, process) values ('test', 1, 'test');
     insert into ancrage.batches (source, number, epoch, journaled_commit_lsn, journaled_change_lsn, journaled_ordinal,
       settled_commit_lsn, settled_change_lsn, settled_ordinal, end_lsn)
     values ('test', 1, 1, '0/1', '0/1', 0, '0/1', '0/1', 0, 'FFFFFFFF/0')`,
  );
  await insertRejection("acme", 1000);
  await insertRejection("globex", 2000);
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

async function insertMessage(message: { ageMs: number; project: string; event: string; key: string }): Promise<string> {
  const ms = now - message.ageMs;
  await database.client.query(`select ancrage.ensure_partitions((to_timestamp($1) at time zone 'UTC')::date)`, [ms / 1000]);
  const { rows } = await database.client.query<{ id: string }>(
    `insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
     values ('msg_' || ancrage.base32($1::bigint, 10) || repeat('0', 46), $2, $3, $4, '0/1', '0/1', 0, to_timestamp($1::bigint / 1000.0), '{"a":1}')
     returning id`,
    [ms, message.project, message.event, message.key],
  );
  return rows[0]!.id;
}

async function insertRejection(project: string, ageMs: number): Promise<void> {
  await database.client.query(`select ancrage.ensure_partitions((to_timestamp($1) at time zone 'UTC')::date)`, [(now - ageMs) / 1000]);
  await database.client.query(
    `insert into ancrage.rejections (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, reason, error, occurrence)
     values ('rej_' || ancrage.base32($1::bigint, 10) || repeat('0', 46), $2, 'deal.won', '9', '0/1', '0/1', 0, '2026-11-24T10:00:00Z',
       'payload-threw', '\\x6f6f7073', '\\x7b7d')`,
    [now - ageMs, project],
  );
}

const idsOf = (body: { data: readonly { id: string }[] }): string[] => body.data.map((one) => one.id);

describe("messages", () => {
  test("are listed newest first, those of the last 7 days, with their payload", async () => {
    const { body } = await api.call("GET", "/v1/messages");
    expect(idsOf(body)).toEqual([ids.hour, ids.yesterday, ids.other]);
    expect(body.next).toBeNull();
    expect(body.data[0]).toEqual({
      id: ids.hour,
      project: "acme",
      event: "deal.won",
      key: "1",
      committedAt: new Date(now - 3_600_000).toISOString(),
      payload: { a: 1 },
    });
  });

  test("by event, key, project and range", async () => {
    expect(idsOf((await api.call("GET", "/v1/messages?event=NewOpportunity")).body)).toEqual([ids.yesterday]);
    expect(idsOf((await api.call("GET", "/v1/messages?key=1&project=globex")).body)).toEqual([ids.other]);
    const from = new Date(now - 11 * dayMs).toISOString();
    const to = new Date(now - 2 * dayMs).toISOString();
    expect(idsOf((await api.call("GET", `/v1/messages?from=${from}&to=${to}`)).body)).toEqual([ids.tenDays]);
  });

  test.each([
    ["from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z", "?from", "expected a range of at most 31 days, got 59"],
    ["from=2026-03-01T00:00:00Z&to=2026-01-01T00:00:00Z", "?from", "expected a time before to"],
    ["from=yesterday", "?from", "expected a time in ISO 8601"],
    ["order=up", "?order", "expected newest or oldest"],
  ])("refuse %s", async (query, pointer, detail) => {
    const answer = await api.call("GET", `/v1/messages?${query}`);
    expect(answer).toMatchObject({ status: 422, body: { errors: [{ pointer, detail: expect.stringContaining(detail) }] } });
  });

  test("in pages", async () => {
    const first = await api.call("GET", "/v1/messages?limit=2");
    expect(idsOf(first.body)).toEqual([ids.hour, ids.yesterday]);
    const second = await api.call("GET", `/v1/messages?limit=2&after=${first.body.next}`);
    expect(idsOf(second.body)).toEqual([ids.other]);
    expect(second.body.next).toBeNull();
  });

  test("one of another project is not found", async () => {
    expect((await api.call("GET", `/v1/messages/${ids.other}`)).body.project).toBe("globex");
    expect((await api.call("GET", `/v1/messages/${ids.other}`, { token: "acme-token" })).status).toBe(404);
    expect(idsOf((await api.call("GET", "/v1/messages", { token: "acme-token" })).body)).toEqual([ids.hour, ids.yesterday]);
  });

  test("can be pulled, oldest first: next leads on, however long the reader was away, and stays where nothing is new", async () => {
    const start = await api.call("GET", "/v1/messages?order=oldest&limit=1");
    expect(idsOf(start.body)).toEqual([ids.other]);
    const further = await api.call("GET", `/v1/messages?order=oldest&after=${start.body.next}`);
    expect(idsOf(further.body)).toEqual([ids.yesterday, ids.hour]);
    const nothing = await api.call("GET", `/v1/messages?order=oldest&after=${further.body.next}`);
    expect(nothing.body).toEqual({ data: [], next: ids.hour });
    const away = await api.call("GET", `/v1/messages?order=oldest&after=msg_0`);
    expect(idsOf(away.body)).toEqual([ids.tenDays, ids.other, ids.yesterday, ids.hour]);
  });

  test("a token of one project is told no id of another's: where a list goes on is sealed, for it and that list", async () => {
    const asAcme = (path: string) => api.call("GET", path, { token: "acme-token" });
    const pages = ["order=newest", "order=oldest"].map(async (order) => {
      const { body: first } = await asAcme(`/v1/messages?${order}&limit=1`);
      expect(first.next).toMatch(/^cur_/);
      const { body: second } = await asAcme(`/v1/messages?${order}&limit=2&after=${first.next}`);
      expect([idsOf(first), idsOf(second)].flat().toSorted()).toEqual([ids.yesterday, ids.hour].toSorted());
      return second.next as string | null;
    });
    const [newest, oldest] = await Promise.all(pages);
    expect(newest).toBeNull();
    expect((await asAcme(`/v1/messages?order=oldest&after=${oldest}`)).body).toEqual({ data: [], next: oldest });
    for (const refused of [
      await api.call("GET", `/v1/messages?after=${oldest}`),
      await asAcme(`/v1/rejections?after=${oldest}`),
      await asAcme(`/v1/messages?after=${oldest?.slice(0, -4)}AAAA`),
    ]) {
      expect(refused).toMatchObject({ status: 422, body: { errors: [{ pointer: "?after" }] } });
    }
    // Whoever has an id of its own may go on from that.
    expect(idsOf((await asAcme(`/v1/messages?order=oldest&after=${ids.yesterday}`)).body)).toEqual([ids.hour]);
    const { body: deliveries } = await asAcme("/v1/deliveries?limit=1");
    expect(idsOf((await asAcme(`/v1/deliveries?limit=1&after=${deliveries.next}`)).body)).toHaveLength(1);
  });

  test("what a later message may come before is held back from those who pull: capture may be far behind", async () => {
    const young = await insertMessage({ ageMs: -60_000, project: "acme", event: "deal.won", key: "young" });
    const to = new Date(now + 600_000).toISOString();
    const pull = async () => idsOf((await api.call("GET", `/v1/messages?order=oldest&key=young&to=${to}`)).body);
    expect(await pull()).toEqual([]);
    expect((await api.call("GET", `/v1/messages/${young}`)).status).toBe(200);
    // Two seconds of commit time later, whatever the clock says: the newer one is held back now.
    const newer = await insertMessage({ ageMs: -63_000, project: "acme", event: "deal.won", key: "young" });
    expect(await pull()).toEqual([young]);
    // A backfill's own message, of the job's time, says nothing of how far capture has come.
    const backfilled = await insertMessage({ ageMs: -70_000, project: "acme", event: "deal.won", key: "old" });
    await database.client.query("update ancrage.messages set commit_lsn = '0/0' where id = $1", [backfilled]);
    expect(await pull()).toEqual([young]);
    await database.client.query("delete from ancrage.messages where id = any($1)", [[young, newer, backfilled]]);
  });
});

describe("deliveries", () => {
  test("are listed with their attempts, the success among them, without answers", async () => {
    const { body } = await api.call("GET", "/v1/deliveries");
    expect(body.data.map((one: { messageId: string }) => one.messageId)).toEqual([ids.hour, ids.yesterday, ids.other]);
    expect(body.data[0]).toEqual({
      id: `dlv_${ids.hour.slice(4)}_${sub.slice(4)}`,
      project: "acme",
      messageId: ids.hour,
      subscriptionId: sub,
      event: "deal.won",
      key: "1",
      state: "delivered",
      attempts: [
        { round: 1, number: 1, at: "2026-11-24T09:59:00.000Z", status: 500, reason: "status", durationMs: 20, response: null },
        { round: 1, number: 2, at: "2026-11-24T10:00:00.000Z", status: 200, reason: null, durationMs: 12, response: null },
      ],
      jobId: null,
      nextAttemptAt: null,
    });
  });

  test("one has the answers, whatever bytes they were", async () => {
    const answer = await api.call("GET", `/v1/deliveries/dlv_${ids.hour.slice(4)}_${sub.slice(4)}`);
    expect(answer.body.attempts[0].response).toBe("o\u0000\ufffd");
    const waiting = await api.call("GET", `/v1/deliveries/dlv_${ids.yesterday.slice(4)}_${sub.slice(4)}`);
    expect(waiting.body).toMatchObject({
      state: "retrying",
      nextAttemptAt: "2026-11-24T11:00:00.000Z",
      attempts: [{ number: 1, status: 503, response: "busy" }],
    });
  });

  test("by state, event, message and subscription", async () => {
    const listed = async (query: string) =>
      (await api.call("GET", `/v1/deliveries?${query}`)).body.data.map((one: { messageId: string }) => one.messageId);
    expect(await listed("state=retrying")).toEqual([ids.yesterday]);
    expect(await listed("event=deal.won")).toEqual([ids.hour, ids.other]);
    expect(await listed(`messageId=${ids.other}`)).toEqual([ids.other]);
    expect(await listed(`subscriptionId=${sub}`)).toEqual([ids.hour, ids.yesterday]);
  });

  test("in pages", async () => {
    const first = await api.call("GET", "/v1/deliveries?limit=2");
    const second = await api.call("GET", `/v1/deliveries?limit=2&after=${first.body.next}`);
    expect([first, second].flatMap(({ body }) => body.data.map((one: { messageId: string }) => one.messageId))).toEqual([
      ids.hour,
      ids.yesterday,
      ids.other,
    ]);
    expect(second.body.next).toBeNull();
    expect((await api.call("GET", "/v1/deliveries?after=5")).status).toBe(422);
  });

  test("one of another project is not found", async () => {
    const path = `/v1/deliveries/dlv_${ids.other.slice(4)}_${"2".repeat(26)}`;
    expect((await api.call("GET", path)).status).toBe(200);
    expect((await api.call("GET", path, { token: "acme-token" })).status).toBe(404);
    expect((await api.call("GET", "/v1/deliveries", { token: "acme-token" })).body.data).toHaveLength(2);
    expect((await api.call("GET", "/v1/deliveries/dlv_1")).status).toBe(404);
  });

  test("ids are read as they are written", () => {
    const key = { messageId: ids.hour, subscriptionId: sub };
    expect(parseDeliveryId(formatDeliveryId(key))).toEqual(key);
    expect(parseDeliveryId("dlv_1_2_3")).toBeUndefined();
    expect(parseDeliveryId("msg_1_2")).toBeUndefined();
  });
});

describe("rejections", () => {
  test("are listed newest first, those of one's own project only", async () => {
    const { body } = await api.call("GET", "/v1/rejections");
    expect(body.data.map((one: { project: string }) => one.project)).toEqual(["acme", "globex"]);
    expect(body.data[0]).toEqual({
      id: expect.stringMatching(/^rej_/),
      project: "acme",
      event: "deal.won",
      key: "9",
      committedAt: "2026-11-24T10:00:00.000Z",
      reason: "payload-threw",
      error: "oops",
    });
    expect((await api.call("GET", "/v1/rejections", { token: "acme-token" })).body.data).toHaveLength(1);
    expect((await api.call("GET", "/v1/rejections?event=NewOpportunity")).body.data).toEqual([]);
  });
});

describe("a look at a list", () => {
  const range = { fromMs: now - 11 * dayMs, toMs: now + dayMs };
  const all = { project: undefined, range };

  test("sees as many rows as it may, finds those that are meant, and says how far it has come", async () => {
    const messages = await listMessages(api.pool, { ...all, key: "3" }, { limit: 10, most: 2 });
    expect(messages).toEqual({ rows: [], to: ids.yesterday, isEnd: false });
    const further = await listMessages(api.pool, { ...all, key: "3", after: ids.yesterday }, { limit: 10, most: 3 });
    expect(further).toMatchObject({ rows: [{ id: ids.tenDays, key: "3" }], to: ids.tenDays, isEnd: true });
    const feed = await readFeed(api.pool, { ...all, key: "2", beforeMs: now }, { limit: 10, most: 2 });
    expect(feed).toEqual({ rows: [], to: ids.other, isEnd: false });

    const other = { messageId: ids.other, subscriptionId: `sub_${"2".repeat(26)}` };
    const yesterday = { messageId: ids.yesterday, subscriptionId: sub };
    for (const filter of [{ subscriptionId: other.subscriptionId }, { project: "globex" }]) {
      const first = await listDeliveries(api.pool, { ...all, ...filter }, { limit: 10, most: 2 });
      expect(first).toEqual({ rows: [], to: yesterday, isEnd: false });
      const second = await listDeliveries(api.pool, { ...all, ...filter, after: yesterday }, { limit: 10, most: 2 });
      expect(second).toMatchObject({ rows: [other], to: other, isEnd: true });
    }
    // What has an index is looked for there.
    const failed = await listDeliveries(api.pool, { ...all, state: "exhausted" }, { limit: 10, most: 1 });
    expect(failed).toMatchObject({ rows: [other], to: other });
    const rejections = await listRejections(api.pool, { ...all, project: "globex" }, { limit: 10, most: 1 });
    expect(rejections).toMatchObject({ rows: [], to: expect.stringMatching(/^rej_/), isEnd: false });
  });

  test("returns no more than was asked for", async () => {
    const { rows } = await listMessages(api.pool, all, { limit: 2, most: 100 });
    expect(rows.map(({ id }) => id)).toEqual([ids.hour, ids.yesterday]);
    expect((await listDeliveries(api.pool, { ...all, event: "deal.won" }, { limit: 1, most: 100 })).rows).toMatchObject([
      { messageId: ids.hour },
    ]);
  });
});
