import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect, type AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createTestApi, operatorToken, type TestApi } from "../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../test/database.ts";
import { AncrageError } from "../errors.ts";
import { BatchFault } from "../payload/fault.ts";
import { createApp } from "./app.ts";
import { createPool, destroyClient } from "../store/database.ts";
import { hashToken } from "../tokens.ts";
import { problemCodes } from "./problem.ts";

let database: TestDatabase;
let api: TestApi;
let failure: Error;
let status = { isReady: true, problems: [] as { code: string; message: string }[], details: { lagBytes: 0 } };
beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database, {
    samples: async () => {
      throw failure;
    },
    status: async () => status,
  });
  await database.client.query(
    `insert into ancrage.tokens (id, project, name, hash, expires_at) values
       ('tok_1', 'acme', 'Acme', $1, null), ('tok_2', null, 'Everything', $2, null), ('tok_3', 'acme', 'Old', $3, now() - interval '1 s')`,
    [hashToken("acme-token"), hashToken("all-token"), hashToken("old-token")],
  );
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

const subscriptions = "/v1/subscriptions";

describe("tokens", () => {
  test.each([
    ["none", undefined],
    ["another scheme", `Basic ${btoa(`operator:${operatorToken}`)}`],
    ["no value", "Bearer "],
    ["an unknown one", "Bearer someone-else"],
    ["one that has expired", "Bearer old-token"],
    ["one letter less", `Bearer ${operatorToken.slice(0, -1)}`],
  ])("%s is refused with a challenge", async (_what, authorization) => {
    const answer = await api.call("GET", subscriptions, { token: null, headers: authorization === undefined ? {} : { authorization } });
    expect(answer).toMatchObject({ status: 401, body: { code: "unauthorized", status: 401 } });
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(answer.headers.get("www-authenticate")).toMatch(/^Bearer realm="ancrage"/);
  });

  test.each(["/v1/events", "/v1/messages", "/v1/status", "/v1/me", "/openapi.json", "/v1/nothing", "/"])("%s needs one", async (path) => {
    expect((await api.call("GET", path, { token: null })).status).toBe(401);
  });

  test("/v1/me says whose it is", async () => {
    expect((await api.call("GET", "/v1/me")).body).toEqual({ name: "operator", project: null });
    expect((await api.call("GET", "/v1/me", { token: "all-token" })).body).toEqual({ name: "Everything", project: null });
    expect((await api.call("GET", "/v1/me", { token: "acme-token" })).body).toEqual({ name: "Acme", project: "acme" });
    expect((await api.call("GET", "/v1/me", { token: null, headers: { authorization: "bearer acme-token" } })).status).toBe(200);
  });

  test("the status of all projects is not for a token of one", async () => {
    expect((await api.call("GET", "/v1/status", { token: "acme-token" })).status).toBe(403);
    expect((await api.call("GET", "/v1/status")).body).toEqual({ isReady: true, problems: [], details: { lagBytes: 0 } });
  });
});

describe("health", () => {
  test("/healthz and /readyz answer without a token", async () => {
    expect(await api.call("GET", "/healthz", { token: null })).toMatchObject({ status: 200, body: { isHealthy: true } });
    expect(await api.call("GET", "/readyz", { token: null })).toMatchObject({ status: 200, body: { isReady: true, problems: [] } });
  });

  test("/readyz is 503 where something is wrong, and names only its code", async () => {
    status = { ...status, isReady: false, problems: [{ code: "gap", message: "host db.internal lost the log" }] };
    const answer = await api.call("GET", "/readyz", { token: null });
    expect(answer).toMatchObject({ status: 503, body: { isReady: false, problems: ["gap"] } });
    expect(JSON.stringify(answer.body)).not.toContain("db.internal");
    status = { ...status, isReady: true, problems: [] };
  });
});

describe("problems", () => {
  test("a path that is not there", async () => {
    const answer = await api.call("GET", "/v1/subscription");
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(answer.body).toEqual({
      type: "urn:ancrage:problem:not-found",
      title: "There is no such thing",
      status: 404,
      code: "not-found",
      detail: "there is no /v1/subscription.",
      hint: "GET /openapi.json lists what there is.",
    });
  });

  test("a method that a path does not take", async () => {
    const answer = await api.call("PUT", "/v1/subscriptions/sub_1");
    expect(answer).toMatchObject({ status: 405, body: { code: "method-not-allowed" } });
    expect(answer.headers.get("allow")).toBe("GET, HEAD, PATCH, DELETE");
  });

  test.each(["{", `{"event": }`, ""])("a body that is not JSON: %j", async (raw) => {
    const answer = await api.call("POST", subscriptions, { raw, headers: { "content-type": "application/json" } });
    expect(answer).toMatchObject({ status: 400, body: { code: "malformed-json" } });
  });

  test.each(["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])("a body of type %s", async (type) => {
    const answer = await api.call("POST", subscriptions, { raw: "event=deal.won", headers: { "content-type": type } });
    expect(answer).toMatchObject({ status: 415, body: { code: "unsupported-media-type" } });
    expect(answer.body.detail).toContain(JSON.stringify(type));
  });

  test("a body above 1 MiB, with its length said and without", async () => {
    const body = { event: "deal.won", url: "https://example.com/", description: "x".repeat(1024 * 1024) };
    expect(await api.call("POST", subscriptions, { body })).toMatchObject({ status: 413, body: { code: "body-too-large" } });
    const chunks = new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(65_536));
      },
    });
    const { fetch } = createApp(api.services);
    const init = { method: "POST", body: chunks, duplex: "half", headers: { authorization: `Bearer ${operatorToken}` } };
    const answer = await fetch(new Request("http://ancrage.test/v1/subscriptions", init as RequestInit));
    expect(answer.status).toBe(413);
  });

  test("a body that never comes to its end", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const asked = Promise.withResolvers<void>();
      const drip = new ReadableStream({
        start: (controller) => controller.enqueue(new TextEncoder().encode("{")),
        pull: () => asked.resolve(),
      });
      const { fetch } = createApp(api.services);
      const init = { method: "POST", body: drip, duplex: "half", headers: { authorization: `Bearer ${operatorToken}` } };
      const answer = fetch(new Request("http://ancrage.test/v1/subscriptions", init as RequestInit));
      await asked.promise;
      await vi.advanceTimersByTimeAsync(30_000);
      expect(await (await answer).json()).toMatchObject({ status: 408, code: "body-too-slow" });
    } finally {
      vi.useRealTimers();
    }
  });

  test("on a kept connection, whoever sends too large a body reads the answer, and then an end and no reset", async () => {
    const { fetch } = createApp(api.services);
    const server = createAdaptorServer({ fetch }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
    const came: string[] = [];
    const ended = new Promise<"end" | Error>((resolve) => socket.on("end", () => resolve("end")).on("error", resolve));
    socket.setEncoding("utf8").on("data", (text: string) => came.push(text));
    const head = (length: number): string =>
      `POST /v1/subscriptions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${operatorToken}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;
    socket.write(`${head(2)}{}`);
    await vi.waitUntil(() => came.join("").includes("HTTP/1.1 422"));
    // More than the kernel takes: most of it is still to be sent when the server has read enough.
    socket.write(`${head(24 * 1024 * 1024)}${" ".repeat(24 * 1024 * 1024)}`);
    expect(await ended).toBe("end");
    expect(came.join("")).toMatch(/HTTP\/1\.1 413[^]*connection: close[^]*body-too-large/i);
    socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });

  test("a body of just under 1 MiB is read", async () => {
    const answer = await api.call("POST", subscriptions, { body: { description: "x".repeat(1024 * 1024 - 100) } });
    expect(answer.status).toBe(422);
  });

  test.each([
    ["?limit=0", "?limit", `expected a whole number from 1 to 200, got "0"`],
    ["?limit=ten", "?limit", `expected a whole number from 1 to 200, got "ten"`],
    ["?limit=1&limit=2", "?limit", `expected a whole number from 1 to 200, got ["1","2"]`],
    ["?after=sub_", "?after", `expected the next of the page before, got "sub_"`],
    ["?after=somewhere", "?after", `expected the next of the page before, got "somewhere"`],
    ["?evnt=deal.won", "?evnt", `unknown; did you mean "event"? expected one of project, after, limit, event, url, target_url`],
  ])("a query that cannot be taken: %s", async (query, pointer, detail) => {
    const answer = await api.call("GET", `${subscriptions}${query}`);
    expect(answer).toMatchObject({ status: 422, body: { code: "invalid", errors: [{ pointer, detail }] } });
  });

  test.each(["subscriptions", "messages", "deliveries", "rejections", "jobs", "tokens"])(
    "a place of another list is none of %s",
    async (list) => {
      const answer = await api.call("GET", `/v1/${list}?after=lst_01K9ZQ4W7M`);
      expect(answer).toMatchObject({ status: 422, body: { code: "invalid", errors: [{ pointer: "?after" }] } });
    },
  );

  test("a parameter that a route does not know is refused by all of them, but for what probers and weavy send", async () => {
    const { body } = await api.call("GET", "/openapi.json");
    const open = ["/healthz", "/readyz", "/v1/EntryPoints/{project}/process/"];
    const asked = Object.entries<object>(body.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => [method.toUpperCase(), path] as const),
    );
    for (const [method, path] of [...asked, ["GET", "/openapi.json"] as const]) {
      if (open.includes(path)) continue;
      const url = path.replace(/\{\w+\}/, "some_1");
      const answer = await api.call(method, `${url}?unheard=of`, method === "GET" || method === "DELETE" ? {} : { body: {} });
      const pointers = (answer.body.errors ?? []).map((fault: { readonly pointer: string }) => fault.pointer);
      expect({ method, path, status: answer.status, pointers }).toMatchObject({
        status: 422,
        pointers: expect.arrayContaining(["?unheard"]),
      });
    }
    expect((await api.call("GET", "/healthz?unheard=of", { token: null })).status).toBe(200);
    expect((await api.call("GET", "/v1/me?proj=acme")).body.errors).toEqual([
      { pointer: "?proj", detail: "unknown; expected no parameters" },
    ]);
  });

  test.each([
    ["GET", "/v1/subscriptions/%00", undefined],
    ["DELETE", "/v1/subscriptions/sub_%00", undefined],
    ["GET", "/v1/subscriptions?url=https://example.com/%00", undefined],
    ["GET", "/v1/messages?after=%00", undefined],
    ["GET", "/v1/deliveries?messageId=%00", undefined],
    ["GET", "/v1/rejections?event=%00", undefined],
    ["POST", "/v1/events/deal.won/trigger", { key: "\u0000" }],
    ["POST", "/v1/events/deal.won/trigger", { key: "1", data: ["\u0000"] }],
    ["POST", "/v1/EntryPoints/%00/process/?c=EPT_WebhookPerformList", { event: "deal.won" }],
    ["POST", "/v1/EntryPoints/acme/process/?c=EPT_WebhookUnsubscribe", { codeWebhookSubscription: "\u0000" }],
  ])("a character that PostgreSQL cannot store is refused, not run into: %s %s %j", async (method, path, body) => {
    expect((await api.call(method, path, body === undefined ? {} : { body })).status).toBe(422);
  });

  test.each([
    ["POST", subscriptions, {}],
    ["POST", subscriptions, { raw: "" }],
    ["PATCH", `${subscriptions}/sub_1`, { raw: "" }],
    ["POST", "/v1/jobs", { raw: "" }],
    ["POST", "/v1/events/deal.won/trigger", { raw: "" }],
    ["POST", "/v1/tokens", {}],
    ["POST", `${subscriptions}/sub_1/recover`, { raw: "" }],
    ["POST", "/v1/deliveries/cancel", { raw: "" }],
    ["POST", `${subscriptions}/sub_1/rotate-secret`, { raw: "" }],
  ])("nothing at all in place of a body is the caller's mistake: %s %s %j", async (method, path, options) => {
    expect((await api.call(method, path, options)).status).toBeLessThan(500);
    expect(api.logged).toEqual([]);
  });

  test("JSON that is nested too deep is refused, not run into", async () => {
    const nested = (depth: number): string =>
      `{"event":"deal.won","url":"https://example.com/","metadata":{"a":${"[".repeat(depth)}${"]".repeat(depth)}}}`;
    const headers = { "content-type": "application/json" };
    expect((await api.call("POST", subscriptions, { raw: nested(98), headers })).status).toBe(201);
    for (const raw of [nested(99), nested(100_000), "[".repeat(100_000), `{"metadata":${'{"a":'.repeat(100_000)}`]) {
      const answer = await api.call("POST", subscriptions, { raw, headers });
      expect(answer).toMatchObject({ status: 400, body: { code: "invalid-request", detail: expect.stringContaining("at most 100 deep") } });
    }
    expect(api.logged).toEqual([]);
  });

  test("what fails inside is logged under the id that the answer names, and its text stays inside", async () => {
    failure = new Error("relation secret_table does not exist");
    const answer = await api.call("GET", "/v1/events/deal.won/samples");
    expect(answer).toMatchObject({ status: 500, body: { code: "internal" } });
    expect(JSON.stringify(answer.body)).not.toContain("secret_table");
    const { error, id } = api.logged.at(-1)!;
    expect(error).toBe(failure);
    expect(answer.body.detail).toContain(id);
  });

  test.each([
    ["a database that does not answer", new AncrageError("ANCRAGE_DATABASE_UNREACHABLE", "could not connect to db.internal")],
    ["a server that is shutting down", Object.assign(new Error("terminating connection"), { code: "57P01" })],
    ["a read of an event's code that found the session lost", new BatchFault(new Error("Connection terminated unexpectedly"))],
    ["a refused connection", Object.assign(new Error("connect ECONNREFUSED 10.0.0.1:5432"), { code: "ECONNREFUSED" })],
    ["a process without a descriptor", Object.assign(new Error("connect EMFILE 10.0.0.1:5432"), { code: "EMFILE" })],
    ["a database that takes no changes", Object.assign(new Error("cannot execute UPDATE"), { code: "25006" })],
    ["a deadlock", Object.assign(new Error("deadlock detected"), { code: "40P01" })],
  ])("%s is 503 and may be tried again", async (_what, error) => {
    failure = error;
    const answer = await api.call("GET", "/v1/events/deal.won/samples");
    expect(answer).toMatchObject({ status: 503, body: { code: "unavailable" } });
    expect(answer.headers.get("retry-after")).toBe("5");
    expect(JSON.stringify(answer.body)).not.toMatch(/db\.internal|10\.0\.0\.1/);
  });
});

test("a database that is not there is 503, also where it is the token that cannot be looked up", async () => {
  const pool = createPool({
    connectionString: "postgres://127.0.0.1:1/nothing",
    applicationName: "api",
    size: 1,
    onIdleError: () => undefined,
  });
  const { call, pool: unused } = createTestApi(database, { db: pool });
  expect(await call("GET", "/v1/messages")).toMatchObject({ status: 503, body: { code: "unavailable" } });
  expect(await call("GET", "/v1/me", { token: "acme-token" })).toMatchObject({ status: 503, body: { code: "unavailable" } });
  await Promise.all([pool.end(), unused.end()]);
});

test("where all sessions are busy, or one is lost in the middle of a statement, the answer is 503 as well: pg says neither with a code", async () => {
  const pool = createPool({
    connectionString: database.url,
    applicationName: "api",
    size: 1,
    connectTimeoutMs: 1_000,
    onIdleError: () => undefined,
  });
  const { call, pool: unused } = createTestApi(database, { db: pool });
  const busy = await pool.connect();
  expect(await call("GET", "/v1/messages")).toMatchObject({ status: 503, body: { code: "unavailable" } });
  busy.release();
  await database.client.query("begin; lock table ancrage.messages in access exclusive mode");
  const asked = call("GET", "/v1/messages");
  const waits = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
  while ((await database.client.query(waits)).rowCount === 0);
  // Without a word, as a network does it.
  destroyClient(busy);
  expect((await asked).status).toBe(503);
  await database.client.query("rollback");
  await Promise.all([pool.end(), unused.end()]);
});

test("no answer may be cached, a problem neither", async () => {
  expect((await api.call("GET", "/v1/me")).headers.get("cache-control")).toBe("no-store");
  expect((await api.call("GET", "/v1/nothing", { token: null })).headers.get("cache-control")).toBe("no-store");
});

describe("openapi.json", () => {
  test("declares every route, with bearer security on all but the open ones", async () => {
    const { body } = await api.call("GET", "/openapi.json");
    expect(body.openapi).toBe("3.1.0");
    expect(body.components.securitySchemes.bearer).toMatchObject({ type: "http", scheme: "bearer" });
    const routes = Object.entries<Record<string, { security?: unknown[] }>>(body.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { security }]) => `${method.toUpperCase()} ${path}${security === undefined ? "" : " token"}`),
    );
    expect(routes.toSorted()).toEqual([
      "DELETE /v1/subscriptions/{id} token",
      "DELETE /v1/tokens/{id} token",
      "GET /healthz",
      "GET /metrics token",
      "GET /readyz",
      "GET /v1/deliveries token",
      "GET /v1/deliveries/{id} token",
      "GET /v1/events token",
      "GET /v1/events/{name} token",
      "GET /v1/events/{name}/explain token",
      "GET /v1/events/{name}/samples token",
      "GET /v1/jobs token",
      "GET /v1/jobs/{id} token",
      "GET /v1/me token",
      "GET /v1/messages token",
      "GET /v1/messages/{id} token",
      "GET /v1/rejections token",
      "GET /v1/rejections/{id} token",
      "GET /v1/status token",
      "GET /v1/subscriptions token",
      "GET /v1/subscriptions/{id} token",
      "GET /v1/subscriptions/{id}/secret token",
      "GET /v1/tokens token",
      "GET /v1/tokens/{id} token",
      "PATCH /v1/subscriptions/{id} token",
      "POST /v1/EntryPoints/{project}/process/ token",
      "POST /v1/deliveries/cancel token",
      "POST /v1/deliveries/{id}/resend token",
      "POST /v1/events/{name}/trigger token",
      "POST /v1/jobs token",
      "POST /v1/jobs/{id}/cancel token",
      "POST /v1/rejections/{id}/retry token",
      "POST /v1/subscriptions token",
      "POST /v1/subscriptions/{id}/enable token",
      "POST /v1/subscriptions/{id}/pause token",
      "POST /v1/subscriptions/{id}/recover token",
      "POST /v1/subscriptions/{id}/resume token",
      "POST /v1/subscriptions/{id}/rotate-secret token",
      "POST /v1/subscriptions/{id}/test token",
      "POST /v1/tokens token",
    ]);
  });

  test("every reference leads somewhere", async () => {
    const { body } = await api.call("GET", "/openapi.json");
    const references = [...JSON.stringify(body).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map((match) => match[1]);
    expect(references).toContain("NewSubscription");
    expect(Object.keys(body.components.schemas)).toEqual(expect.arrayContaining([...new Set(references)]));
  });
});

describe("docs/reference/http-api.md", () => {
  const doc = readFile(new URL("../../docs/reference/http-api.md", import.meta.url), "utf8");

  test("explains every problem with its status, and no other", async () => {
    const rows = [...(await doc).matchAll(/^\| `([a-z-]+)` \| (\d{3}) \|/gm)].map(([, code, status]) => [code, Number(status)]);
    expect(rows).toEqual(Object.entries(problemCodes).map(([code, { status }]) => [code, status]));
  });

  test("names every route, and no other", async () => {
    const { body } = await api.call("GET", "/openapi.json");
    const declared = Object.entries<object>(body.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const named = [...(await doc).matchAll(/`((?:GET|POST|PATCH|DELETE) \/[^`?\s]*)/g)].map((match) => match[1]);
    expect(new Set(named)).toEqual(new Set([...declared, "GET /openapi.json"]));
  });
});
