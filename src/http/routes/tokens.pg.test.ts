import { crc32 } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestApi, type TestApi } from "../../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../../test/database.ts";

let database: TestDatabase;
let api: TestApi;
beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database);
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

const make = async (body: object = {}, headers: Readonly<Record<string, string>> = {}) =>
  await api.call("POST", "/v1/tokens", { body: { name: "integration:zapier", project: "acme", ...body }, headers });
const me = async (token: string) => await api.call("GET", "/v1/me", { token });

test("a token is shown once, counts from the next request on, and not from the one after its revocation", async () => {
  const { status, headers, body } = await make({ expiresAt: "2099-01-31T00:00:00+01:00" });
  expect(status).toBe(201);
  expect(headers.get("location")).toBe(`http://ancrage.test/v1/tokens/${body.id}`);
  const { token, ...shown } = body;
  expect(shown).toEqual({
    id: expect.stringMatching(/^tok_[0-9A-Z]{26}$/),
    name: "integration:zapier",
    project: "acme",
    createdAt: expect.any(String),
    expiresAt: "2099-01-30T23:00:00.000Z",
    lastUsedAt: null,
    revokedAt: null,
  });
  const [, bytes = "", sum] = /^anc_([0-9a-f]{64})([0-9a-f]{8})$/.exec(token) ?? [];
  expect(sum).toBe(crc32(Buffer.from(bytes, "hex")).toString(16).padStart(8, "0"));
  expect(await me(token)).toMatchObject({ status: 200, body: { name: "integration:zapier", project: "acme" } });
  await expect.poll(async () => (await api.call("GET", `/v1/tokens/${body.id}`)).body.lastUsedAt).not.toBeNull();
  const { rows } = await api.pool.query<{ all: string }>("select string_agg(t::text, ' ') as all from ancrage.tokens t");
  for (const secret of [token, bytes, Buffer.from(token).toString("hex")]) expect(rows[0]?.all).not.toContain(secret);

  const revoked = await api.call("DELETE", `/v1/tokens/${body.id}`);
  expect(revoked).toMatchObject({ status: 200, body: { id: body.id, revokedAt: expect.any(String) } });
  expect(await me(token)).toMatchObject({ status: 401, body: { detail: expect.stringContaining("was revoked") } });
  expect((await api.call("DELETE", `/v1/tokens/${body.id}`)).body).toEqual(revoked.body);
  expect((await api.call("GET", `/v1/tokens/${body.id}`)).body).toEqual(revoked.body);
});

test("the list has those that are not revoked, newest first, of one project or of all", async () => {
  const ids: string[] = [];
  for (const project of ["listed", null, "listed"]) ids.unshift((await make({ project })).body.id);
  await api.call("DELETE", `/v1/tokens/${(await make({ project: "listed" })).body.id}`);
  const { body } = await api.call("GET", "/v1/tokens?limit=2");
  expect(body.data.map(({ id }: { readonly id: string }) => id)).toEqual(ids.slice(0, 2));
  expect(body.data[0]).not.toHaveProperty("token");
  expect((await api.call("GET", `/v1/tokens?after=${body.next}&limit=1`)).body.data[0].id).toBe(ids[2]);
  const { body: one } = await api.call("GET", "/v1/tokens?project=listed");
  expect(one.data.map(({ id }: { readonly id: string }) => id)).toEqual([ids[0], ids[2]]);
});

test("one project's token neither makes, nor sees, nor revokes any", async () => {
  const { body } = await make();
  const all = (await make({ project: null })).body.token as string;
  for (const [method, path, sent] of [
    ["GET", "/v1/tokens", undefined],
    ["POST", "/v1/tokens", { name: "mine", project: "acme" }],
    ["GET", `/v1/tokens/${body.id}`, undefined],
    ["DELETE", `/v1/tokens/${body.id}`, undefined],
  ] as const) {
    const given = sent === undefined ? {} : { body: sent };
    expect(await api.call(method, path, { token: body.token, ...given })).toMatchObject({ status: 403, body: { code: "project-refused" } });
    expect((await api.call(method, path, { token: all, ...given })).status).toBeLessThan(300);
  }
  expect((await api.call("DELETE", "/v1/tokens/tok_NONE")).status).toBe(404);
  expect((await api.call("GET", "/v1/tokens/tok_NONE")).status).toBe(404);
});

test("who repeats a request with its key gets the same token; the key with another request is refused", async () => {
  const key = { "idempotency-key": '"once"' };
  const [first, second] = await Promise.all([make({}, key), make({}, key)]);
  expect(second.body).toEqual(first.body);
  expect(await me(first.body.token)).toMatchObject({ status: 200 });
  expect(await make({ name: "another" }, key)).toMatchObject({ status: 422, body: { errors: [{ pointer: "idempotency-key" }] } });
  const dated = { expiresAt: "2099-01-01T00:00:00Z" };
  expect(await make(dated, key)).toMatchObject({ status: 422, body: { errors: [{ pointer: "idempotency-key" }] } });
  expect(await make({ project: null }, key)).toMatchObject({ status: 422, body: { errors: [{ pointer: "idempotency-key" }] } });
  const other = await make({}, { "idempotency-key": "twice" });
  expect(other.body.token).not.toBe(first.body.token);

  expect((await api.call("DELETE", `/v1/tokens/${first.body.id}`)).status).toBe(200);
  const revoked = await make({}, key);
  expect(revoked).toMatchObject({
    status: 409,
    body: { code: "wrong-state", detail: expect.stringContaining("was revoked at"), hint: expect.any(String) },
  });
  expect(JSON.stringify(revoked.body)).not.toContain("anc_");
});

test.each([
  [{ name: "" }, "/name", "expected a name of 1 to 200 characters"],
  [{ name: 1 }, "/name", "expected a name of 1 to 200 characters"],
  [{ project: undefined }, "/project", "expected the name of a project, or null for all, got none"],
  [{ project: "" }, "/project", "expected the name of a project, or null for all"],
  [{ expiresAt: "2020-01-01T00:00:00Z" }, "/expiresAt", "expected a time to come"],
  [{ expiresAt: "tomorrow" }, "/expiresAt", "expected a time in ISO 8601"],
  [{ token: "anc_mine" }, "/token", "Unrecognized"],
])("%j is refused", async (body, pointer, detail) => {
  expect(await make(body)).toMatchObject({ status: 422, body: { errors: [{ pointer, detail: expect.stringContaining(detail) }] } });
});
