import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestApi, type CallOptions, type TestApi } from "../../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../../test/database.ts";
import { readSubscription } from "../../store/subscriptions.ts";
import { hashToken } from "../../tokens.ts";
import type { SampleOptions } from "../services.ts";

const asked: [string, SampleOptions][] = [];
const payload = { codedeal: "2010000000014", label: "Ma nouvelle opportunité" };
let database: TestDatabase;
let api: TestApi;
beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database, {
    samples: async (event, options) => {
      asked.push([event, options]);
      return [payload];
    },
  });
  await database.client.query(`insert into ancrage.tokens (id, project, name, hash) values ('tok_1', 'acme', 'Acme', $1)`, [
    hashToken("acme-token"),
  ]);
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

const hookUrl = "https://example.com/callback";
const post = (code: string, body: unknown, options: CallOptions = {}) =>
  api.call("POST", `/v1/EntryPoints/acme/process/?c=${code}`, { body, ...options });

describe("EPT_WebhookSubscribe", () => {
  test("answers the code of a subscription in weavy's envelope, of that project, sent as weavy sends", async () => {
    const answer = await post("EPT_WebhookSubscribe", { event: "NewOpportunity", hookUrl });
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ result: { codeWebhookSubscription: expect.stringMatching(/^sub_/) } });
    const row = await readSubscription(api.pool, answer.body.result.codeWebhookSubscription);
    expect(row).toMatchObject({ project: "acme", events: ["NewOpportunity"], url: hookUrl, format: "result", state: "enabled" });
    expect(row?.ignoredActors).toEqual([]);
  });

  test("a project's token ignores what is done in its name", async () => {
    const answer = await post("EPT_WebhookSubscribe", { event: "NewOpportunity", hookUrl }, { token: "acme-token" });
    const row = await readSubscription(api.pool, answer.body.result.codeWebhookSubscription);
    expect(row?.ignoredActors).toEqual(["Acme"]);
  });

  test("each call is a subscription of its own", async () => {
    const first = await post("EPT_WebhookSubscribe", { event: "NewOpportunity", hookUrl });
    const second = await post("EPT_WebhookSubscribe", { event: "NewOpportunity", hookUrl });
    expect(second.body.result.codeWebhookSubscription).not.toBe(first.body.result.codeWebhookSubscription);
  });

  test("fields that weavy does not name are ignored, and cannot reach what is not weavy's", async () => {
    const answer = await post("EPT_WebhookSubscribe", {
      event: "NewOpportunity",
      hookUrl,
      project: "globex",
      format: "standard",
      header: {},
    });
    const row = await readSubscription(api.pool, answer.body.result.codeWebhookSubscription);
    expect(row).toMatchObject({ project: "acme", format: "result" });
  });

  test.each([
    ["an unknown event", { event: "NewOportunity", hookUrl }, "/event", `did you mean "NewOpportunity"?`],
    ["no URL", { event: "NewOpportunity" }, "/hookUrl", "expected a text, got none"],
    ["a URL that is none", { event: "NewOpportunity", hookUrl: "example" }, "/hookUrl", "expected an https: URL"],
    ["a number for an event", { event: 4, hookUrl }, "/event", "expected a text, got 4"],
    ["an array", [], "/event", "expected a text, got none"],
  ])("refuses %s", async (_what, body, pointer, detail) => {
    const answer = await post("EPT_WebhookSubscribe", body);
    expect(answer).toMatchObject({ status: 422, body: { code: "invalid" } });
    expect(answer.body.errors[0]).toEqual({ pointer, detail: expect.stringContaining(detail) });
  });
});

describe("EPT_WebhookUnsubscribe", () => {
  test("deletes, and answers the same again", async () => {
    const { body } = await post("EPT_WebhookSubscribe", { event: "NewOpportunity", hookUrl });
    const { codeWebhookSubscription } = body.result;
    for (let turn = 0; turn < 2; turn++) {
      const answer = await post("EPT_WebhookUnsubscribe", { codeWebhookSubscription });
      expect(answer).toMatchObject({ status: 200, body: { result: { codeWebhookSubscription, state: "deleted" } } });
    }
    expect(await readSubscription(api.pool, codeWebhookSubscription)).toMatchObject({ state: "deleted" });
  });

  test("takes a subscription that was made with POST /v1/subscriptions", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url: hookUrl, project: "acme" } });
    expect((await post("EPT_WebhookUnsubscribe", { codeWebhookSubscription: body.id })).status).toBe(200);
  });

  test("an unknown code, and one of another project, are not found", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url: hookUrl, project: "globex" } });
    expect(await post("EPT_WebhookUnsubscribe", { codeWebhookSubscription: "sub_1" })).toMatchObject({ status: 404 });
    expect(await post("EPT_WebhookUnsubscribe", { codeWebhookSubscription: body.id })).toMatchObject({ status: 404 });
    expect(await readSubscription(api.pool, body.id)).toMatchObject({ state: "enabled" });
    expect(await post("EPT_WebhookUnsubscribe", {})).toMatchObject({ status: 422 });
  });
});

describe("EPT_WebhookPerformList", () => {
  test("answers samples of that project, as a delivery has them inside result", async () => {
    const answer = await post("EPT_WebhookPerformList", { event: "NewOpportunity" });
    expect(answer).toMatchObject({ status: 200, body: { result: [payload] } });
    expect(asked.at(-1)).toEqual(["NewOpportunity", { project: "acme", limit: 3, format: "bare" }]);
  });

  test("refuses an unknown event", async () => {
    expect(await post("EPT_WebhookPerformList", { event: "Nothing" })).toMatchObject({
      status: 422,
      body: { errors: [{ pointer: "/event" }] },
    });
  });
});

describe("the envelope", () => {
  test.each(["/v1/EntryPoints/acme/process", "/v1/entrypoints/acme/process/", "/v1/entrypoints/acme/process"])(
    "%s is the same path",
    async (path) => {
      const answer = await api.call("POST", `${path}?c=EPT_WebhookPerformList`, { body: { event: "NewOpportunity" } });
      expect(answer).toMatchObject({ status: 200, body: { result: [payload] } });
    },
  );

  test("JSON needs no content type, a form is refused", async () => {
    const raw = JSON.stringify({ event: "NewOpportunity" });
    expect((await post("EPT_WebhookPerformList", undefined, { raw })).status).toBe(200);
    const form = { raw: "event=NewOpportunity", headers: { "content-type": "application/x-www-form-urlencoded" } };
    expect(await post("EPT_WebhookPerformList", undefined, form)).toMatchObject({ status: 415 });
    expect(await post("EPT_WebhookPerformList", undefined, { raw: "event=NewOpportunity" })).toMatchObject({ status: 400 });
    // Node's server hands in an empty stream where there is no body.
    for (const none of [{}, { raw: "" }]) expect(await post("EPT_WebhookPerformList", undefined, none)).toMatchObject({ status: 422 });
  });

  test.each([
    ["?c=EPT_WebhookSubscribed", "Did you mean ?c=EPT_WebhookSubscribe?"],
    ["?c=toString", "Put one of them into the query"],
    ["", "Put one of them into the query"],
  ])("an unknown entry point: %j", async (query, hint) => {
    const answer = await api.call("POST", `/v1/EntryPoints/acme/process/${query}`, { body: {} });
    expect(answer).toMatchObject({ status: 404, body: { code: "unknown-entry-point", hint: expect.stringContaining(hint) } });
  });

  test("a token of one project works in it and in no other", async () => {
    const body = { event: "NewOpportunity" };
    expect((await post("EPT_WebhookPerformList", body, { token: "acme-token" })).status).toBe(200);
    const other = await api.call("POST", "/v1/EntryPoints/globex/process/?c=EPT_WebhookPerformList", { body, token: "acme-token" });
    expect(other).toMatchObject({ status: 403, body: { code: "project-refused" } });
    expect((await post("EPT_WebhookPerformList", body, { token: null })).status).toBe(401);
  });

  test("GET is not taken", async () => {
    expect((await api.call("GET", "/v1/EntryPoints/acme/process/?c=EPT_WebhookPerformList")).status).toBe(405);
  });
});
