import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createTestApi, type TestApi } from "../../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../../test/database.ts";
import { AncrageError } from "../../errors.ts";
import type { Explanation } from "../../explain.ts";
import { emitTrigger } from "../../store/triggers.ts";
import { hashToken } from "../../tokens.ts";
import type { Services, Triggered, TriggerOptions } from "../services.ts";
import { parseWait } from "./events.ts";

let database: TestDatabase;
let api: TestApi;
let asked: unknown[] = [];
let triggered: Triggered | undefined;
let samplesFault: Error | undefined;
const explanation: Explanation = {
  event: "deal.won",
  file: "events/deal/won.ts",
  key: "42",
  table: "deal",
  project: "acme",
  fires: false,
  isFound: true,
  where: { holds: false },
  rules: [
    { kind: "insert", mayHappen: false, words: "on insert" },
    { kind: "update-columns", columns: ["status"], mayHappen: false, words: "on update" },
  ],
  trackingFiles: [],
  isParked: false,
  rejection: null,
  findings: ["The record is there.", "where is false."],
  payload: null,
  subscriptions: [{ id: "sub_1", url: "https://example.com/", receives: false, reason: "paused" }],
};
const given: Partial<Services> = {
  async samples(event, options) {
    asked.push({ event, ...options });
    if (samplesFault !== undefined) throw samplesFault;
    return [{ type: event }];
  },
  async explain(event, options) {
    asked.push({ event, ...options });
    return explanation;
  },
  async trigger(event, options: TriggerOptions) {
    asked.push({ event, ...options });
    return triggered;
  },
};
const uuid = "0b1e3ad0-98f5-4a1e-9d3c-9a3c8f0f5c11";
const messageId = `msg_${"0".repeat(56)}`;

beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database, given);
  await database.client.query(`insert into ancrage.tokens (id, project, name, hash) values ('tok_1', 'acme', 'Acme', $1)`, [
    hashToken("acme-token"),
  ]);
  await database.client.query(`select ancrage.ensure_partitions('1970-01-01')`);
  await database.client.query(
    `insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
     values ($1, 'acme', 'deal.won', '42', '0/1', '0/1', 0, '1970-01-01T00:00:00Z', $2)`,
    [messageId, Buffer.from(`{"label":"é"}`)],
  );
});
beforeEach(() => {
  asked = [];
  samplesFault = undefined;
  triggered = { id: uuid, outcome: { kind: "pending" } };
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

describe("the catalogue", () => {
  test("lists events by name, with when they happen and their schema", async () => {
    const { body } = await api.call("GET", "/v1/events");
    expect(body.next).toBeNull();
    expect(body.data.map((event: { name: string }) => event.name)).toEqual(["NewOpportunity", "deal.won"]);
    expect(body.data[1]).toEqual({
      name: "deal.won",
      description: "deal.won happened.",
      table: null,
      on: ["insert", { update: ["status"] }],
      schema: { type: "object" },
      example: null,
    });
  });

  test("in pages", async () => {
    const first = await api.call("GET", "/v1/events?limit=1");
    expect(first.body.next).toBe("NewOpportunity");
    const second = await api.call("GET", "/v1/events?limit=1&after=NewOpportunity");
    expect(second.body).toMatchObject({ data: [{ name: "deal.won" }], next: null });
  });

  test.each(["/v1/events/deal.wonn", "/v1/events/deal.wonn/samples", "/v1/events/deal.wonn/explain?key=1"])(
    "%s names the event that was meant",
    async (path) => {
      const answer = await api.call("GET", path);
      expect(answer).toMatchObject({
        status: 404,
        body: { code: "unknown-event", detail: `no event is called "deal.wonn"; did you mean "deal.won"?` },
      });
    },
  );

  test("one event", async () => {
    expect((await api.call("GET", "/v1/events/deal.won")).body).toMatchObject({ name: "deal.won" });
  });
});

describe("samples", () => {
  test("are a bare array", async () => {
    const answer = await api.call("GET", "/v1/events/deal.won/samples");
    expect(answer).toMatchObject({ status: 200, body: [{ type: "deal.won" }] });
    expect(asked).toEqual([{ event: "deal.won", project: undefined, limit: 3, format: "standard" }]);
  });

  test("take a limit and a format, and are those of the token's project", async () => {
    await api.call("GET", "/v1/events/deal.won/samples?limit=7&format=result", { token: "acme-token" });
    expect(asked).toEqual([{ event: "deal.won", project: "acme", limit: 7, format: "result" }]);
    expect((await api.call("GET", "/v1/events/deal.won/samples?project=globex", { token: "acme-token" })).status).toBe(403);
    expect((await api.call("GET", "/v1/events/deal.won/samples?format=xml")).body.errors).toEqual([
      { pointer: "?format", detail: `expected one of standard, result, bare, cloudevents, got "xml"` },
    ]);
  });
});

test("an event whose code fails for all records is its author's fault, and the reason is named", async () => {
  samplesFault = new AncrageError("ANCRAGE_SAMPLE_NONE", "deal.won has no sample to show: it threw.", {
    hint: "Correct events/deal/won.ts.",
  });
  const problem = { status: 409, body: { code: "sample-none", detail: samplesFault.message, hint: "Correct events/deal/won.ts." } };
  expect(await api.call("GET", "/v1/events/deal.won/samples")).toMatchObject(problem);
  const entryPoint = "/v1/EntryPoints/acme/process/?c=EPT_WebhookPerformList";
  expect(await api.call("POST", entryPoint, { body: { event: "deal.won" } })).toMatchObject(problem);
  expect(api.logged).toEqual([]);
  samplesFault = new Error("a bug");
  expect(await api.call("GET", "/v1/events/deal.won/samples")).toMatchObject({ status: 500 });
});

describe("explain", () => {
  test("hands on what was found", async () => {
    expect((await api.call("GET", "/v1/events/deal.won/explain?key=42&project=acme")).body).toEqual(explanation);
    expect(asked).toEqual([{ event: "deal.won", key: "42", project: "acme" }]);
  });

  test("needs a key", async () => {
    const answer = await api.call("GET", "/v1/events/deal.won/explain");
    expect(answer.body.errors).toEqual([{ pointer: "?key", detail: "expected the key of a record in key, once, got none" }]);
  });
});

describe("trigger", () => {
  const path = "/v1/events/deal.won/trigger";

  test("answers 202 with the UUID, at once", async () => {
    const answer = await api.call("POST", path, { body: { key: 42, data: { by: "hand" } } });
    expect(answer).toMatchObject({ status: 202, body: { trigger: uuid } });
    expect(asked).toEqual([{ event: "deal.won", key: "42", data: { by: "hand" }, project: undefined, waitMs: undefined }]);
  });

  test("waits where it is asked to, and answers with the message", async () => {
    triggered = { id: uuid, outcome: { kind: "message", messageId } };
    const answer = await api.call("POST", path, { body: { key: "42" }, headers: { prefer: "wait=5" }, token: "acme-token" });
    expect(answer.status).toBe(200);
    expect(answer.headers.get("preference-applied")).toBe("wait=5");
    expect(asked).toMatchObject([{ project: "acme", waitMs: 5000 }]);
    expect(answer.body).toEqual({
      id: messageId,
      project: "acme",
      event: "deal.won",
      key: "42",
      committedAt: "1970-01-01T00:00:00.000Z",
      payload: { label: "é" },
    });
  });

  test.each([
    [{ kind: "pending" }, { outcome: "pending" }],
    [{ kind: "nothing" }, { outcome: "nothing" }],
    [
      { kind: "rejected", rejectionId: "rej_1" },
      { outcome: "rejected", rejectionId: "rej_1" },
    ],
  ] as const)("waiting that ends in %j says so", async (outcome, shown) => {
    triggered = { id: uuid, outcome };
    const answer = await api.call("POST", path, { body: { key: "42" }, headers: { prefer: "wait=1" } });
    expect(answer).toMatchObject({ status: 202, body: { trigger: uuid, ...shown } });
  });

  test("a key that is no record of the token's project is not found", async () => {
    triggered = undefined;
    expect(await api.call("POST", path, { body: { key: "42" }, token: "acme-token" })).toMatchObject({ status: 404 });
  });

  test.each([
    [{}, "/key", "got none"],
    [{ key: null }, "/key", "got null"],
    [{ key: 4.5 }, "/key", "got 4.5"],
    [{ key: "" }, "/key", `got ""`],
    [{ key: "x".repeat(1025) }, "/key", "a text of 1 to 1024 characters"],
    [{ key: "42", date: 1 }, "/date", "unknown"],
    ["42", "", `expected an object, got "42"`],
  ])("refuses %j", async (body, pointer, detail) => {
    const answer = await api.call("POST", path, { body });
    expect(answer.status).toBe(422);
    expect(answer.body.errors).toEqual([{ pointer, detail: expect.stringContaining(detail) }]);
    expect(asked).toEqual([]);
  });

  test("refuses data that PostgreSQL would write at more than a mark holds", async () => {
    const trigger = (_: string, { key, data }: { readonly key: string; readonly data: unknown }): Promise<never> =>
      emitTrigger(api.pool, { event: "deal.won", key, data }, () => undefined) as Promise<never>;
    const emitting = createTestApi(database, { trigger });
    const raw = `{"key": "1", "data": [${"1e300,".repeat(4_000)}1]}`;
    const answer = await emitting.call("POST", path, { raw, headers: { "content-type": "application/json" } });
    expect(answer).toMatchObject({
      status: 422,
      body: { errors: [{ pointer: "/data", detail: expect.stringContaining("expected data of at most 1048576 bytes, got 12") }] },
    });
    await emitting.pool.end();
  });

  test("an unknown event is not found", async () => {
    expect((await api.call("POST", "/v1/events/nothing/trigger", { body: { key: "1" } })).status).toBe(404);
  });
});

test.each([
  ["wait=5", 5],
  ["respond-async, wait=10", 10],
  [`WAIT="3"; x=1`, 3],
  ["wait=100", 25],
  ["wait=soon", undefined],
  ["await=5", undefined],
  [undefined, undefined],
])("Prefer: %s waits %s s", (prefer, seconds) => {
  expect(parseWait(prefer)).toBe(seconds);
});
