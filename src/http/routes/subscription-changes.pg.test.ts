import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestApi, type TestApi } from "../../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../../test/database.ts";
import { AncrageError } from "../../errors.ts";
import { readSubscription, type SubscriptionRow } from "../../store/subscriptions.ts";
import { openHeaders } from "../../subscription/sealed-headers.ts";
import { parseSecretKey } from "../../subscription/secret.ts";
import { hashToken } from "../../tokens.ts";

const secretKey = parseSecretKey(randomBytes(32).toString("base64"));
const changed: SubscriptionRow[] = [];
/** What the process that leads does not heed. */
let unheeded: AncrageError | undefined;
const onChanged = (row: SubscriptionRow): void => {
  changed.push(row);
  if (unheeded !== undefined) throw unheeded;
};
let database: TestDatabase;
let api: TestApi;
beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database, {}, { secretKey, onChanged });
  await database.client.query(`insert into ancrage.tokens (id, project, name, hash) values ('tok_acme', 'acme', 'Acme', $1)`, [
    hashToken("acme-token"),
  ]);
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

const url = "https://example.com/hook";
const make = async (over: object = {}): Promise<{ readonly id: string; readonly path: string; readonly secret: string }> => {
  const { status, body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url, ...over } });
  expect(status).toBe(201);
  return { id: body.id, path: `/v1/subscriptions/${body.id}`, secret: body.secret };
};
const rowOf = async (id: string): Promise<SubscriptionRow> => {
  const row = await readSubscription(api.pool, id);
  if (row === undefined) throw new Error(`no row ${id}`);
  return row;
};

const all = {
  description: "Deals of the north",
  format: "bare",
  filter: { amount: { gte: 1000 }, "customer.country": ["FR", "BE"] },
  headers: { Authorization: "Bearer receiver-credential", "x-tenant": "42" },
  order: "record",
  limits: { inFlight: 4, perSecond: 0.5 },
  ignoredActors: ["integration:zapier"],
  metadata: { crm: "x" },
  expiresAt: "2099-01-31T00:00:00+01:00",
};
const shown = {
  ...all,
  headers: { authorization: "…", "x-tenant": "…" },
  expiresAt: "2099-01-30T23:00:00.000Z",
};

describe("every field", () => {
  test("is taken when it is made, and shown; values of headers are not", async () => {
    const { path, id } = await make(all);
    const { body } = await api.call("GET", path);
    expect(body).toMatchObject(shown);
    expect(JSON.stringify(body)).not.toContain("receiver-credential");
    const row = await rowOf(id);
    expect(openHeaders(secretKey, row)).toEqual({ authorization: "Bearer receiver-credential", "x-tenant": "42" });
    // Who reads the database, or a backup of it, learns no credential; nor does one that is moved to another row or name open there.
    const [stored] = (
      await api.pool.query<{ row: string }>("select row_to_json(s)::text as row from ancrage.subscriptions s where id = $1", [id])
    ).rows;
    for (const secret of ["receiver-credential", Buffer.from("Bearer receiver-credential").toString("base64")]) {
      expect(stored?.row).not.toContain(secret);
    }
    expect(() => openHeaders(secretKey, { ...row, id: "sub_OTHER" })).toThrow("of subscription sub_OTHER in project");
    expect(() => openHeaders(secretKey, { ...row, headers: { "x-tenant": row.headers["authorization"]! } })).toThrow("does not open");
    expect(() => openHeaders(parseSecretKey(randomBytes(32).toString("base64")), row)).toThrow("was sealed with key");
  });

  test("is changed by a merge patch, which leaves what it does not name; null sets the default", async () => {
    const { path, id } = await make();
    expect(await api.call("PATCH", path, { body: { ...all, url: "https://example.com/other", events: ["NewOpportunity"] } })).toMatchObject(
      {
        status: 200,
        body: { ...shown, id, url: "https://example.com/other", events: ["NewOpportunity"] },
      },
    );
    const { body } = await api.call("PATCH", path, {
      body: {
        filter: { amount: { lt: 5 }, owner: null },
        headers: { "x-tenant": "…", authorization: null, "x-new": "1" },
        limits: { inFlight: 8 },
      },
    });
    expect(body).toMatchObject({
      filter: { amount: { lt: 5 }, owner: null },
      limits: { inFlight: 8, perSecond: 0.5 },
      description: all.description,
    });
    expect(openHeaders(secretKey, await rowOf(id))).toEqual({ "x-tenant": "42", "x-new": "1" });
    const nothing = Object.fromEntries(Object.keys(all).map((name) => [name, null]));
    expect((await api.call("PATCH", path, { body: nothing })).body).toMatchObject({
      description: "",
      format: "standard",
      filter: null,
      headers: {},
      order: "none",
      limits: {},
      ignoredActors: [],
      metadata: {},
      expiresAt: null,
    });
  });

  test("REST-hook clients' names are taken in a change, and as a merge patch by its media type", async () => {
    const { path } = await make();
    const headers = { "content-type": "application/merge-patch+json" };
    const raw = JSON.stringify({ event: "NewOpportunity", target_url: "https://example.com/t" });
    expect(await api.call("PATCH", path, { raw, headers })).toMatchObject({
      status: 200,
      body: { events: ["NewOpportunity"], url: "https://example.com/t" },
    });
  });

  test("all that is wrong with a change is listed at once, and nothing is changed", async () => {
    const { path, id } = await make();
    const before = await rowOf(id);
    const { status, body } = await api.call("PATCH", path, {
      body: {
        url: null,
        events: [],
        filter: { a: { gte: null, near: 1 } },
        headers: { host: "x" },
        order: "key",
        limits: { inFlight: 0, perSeconds: 1 },
        ignoredActors: "zapier",
        expiresAt: "2020-01-01T00:00:00Z",
        project: "acme",
        secret: "x",
        state: "paused",
        flter: 1,
      },
    });
    expect(status).toBe(422);
    expect(body.errors.map((fault: { pointer: string }) => fault.pointer).toSorted()).toEqual(
      [
        "/events",
        "/expiresAt",
        "/filter/a/gte",
        "/filter/a/near",
        "/flter",
        "/headers/host",
        "/ignoredActors",
        "/limits/inFlight",
        "/limits/perSeconds",
        "/order",
        "/project",
        "/secret",
        "/state",
        "/url",
      ].toSorted(),
    );
    expect(await rowOf(id)).toEqual(before);
  });

  test.each(["2027-01-31", "2027-01-31T00:00:00", 1, "soon", "2027-13-31T00:00:00Z"])("%j is no time", async (expiresAt) => {
    const { status, body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url, expiresAt } });
    expect({ status, errors: body.errors }).toMatchObject({ status: 422, errors: [{ pointer: "/expiresAt" }] });
  });

  test("an event that is not defined any more does not stand in the way of other changes", async () => {
    const { path, id } = await make();
    await database.client.query(`update ancrage.subscriptions set events = '{gone.event}' where id = $1`, [id]);
    expect(await api.call("PATCH", path, { body: { description: "still there" } })).toMatchObject({
      status: 200,
      body: { events: ["gone.event"] },
    });
    expect((await api.call("PATCH", path, { body: { event: "nonsense" } })).status).toBe(422);
  });
});

describe("a change in the log", () => {
  test("of events or filter begins a new start and keeps the one before; of anything else it does not", async () => {
    const { path, id } = await make();
    const made = await rowOf(id);
    await database.client.query(`update ancrage.subscriptions set start_lsn = '0/64' where id = $1`, [id]);
    await api.call("PATCH", path, { body: { url: "https://example.com/2", description: "x", headers: { a: "b" } } });
    expect(await rowOf(id)).toMatchObject({ startRevision: made.revision, startLsn: 100n, former: [] });
    await api.call("PATCH", path, { body: { filter: { a: 1 } } });
    const filtered = await rowOf(id);
    expect(filtered).toMatchObject({
      startRevision: filtered.revision,
      startLsn: null,
      former: [{ revision: made.revision, events: ["deal.won"], filter: null, startLsn: 100n }],
    });
    await api.call("PATCH", path, { body: { events: ["NewOpportunity"] } });
    expect((await rowOf(id)).former).toEqual([
      { revision: filtered.revision, events: ["deal.won"], filter: { a: 1 }, startLsn: null },
      filtered.former[0],
    ]);
  });

  test("that changes nothing has no revision, and is answered all the same", async () => {
    const { path, id } = await make({ filter: { a: 1 } });
    const before = await rowOf(id);
    const heard = changed.length;
    expect((await api.call("PATCH", path, { body: { events: ["deal.won"], filter: { a: 1 } } })).status).toBe(200);
    expect(await rowOf(id)).toEqual(before);
    expect(changed.slice(heard)).toMatchObject([{ id }]);
  });

  test("what no message can belong to any more is forgotten", async () => {
    const { path, id } = await make();
    await database.client.query(`insert into ancrage.leaders (source, epoch, process) values ('test', 1, 'test')`);
    await database.client.query(
      `insert into ancrage.batches (source, number, epoch, journaled_commit_lsn, journaled_change_lsn, journaled_ordinal,
         settled_commit_lsn, settled_change_lsn, settled_ordinal, end_lsn) values ('test', 1, 1, '0/300', '0/0', 0, '0/250', '0/0', 0, '0/300')`,
    );
    const place = (lsn: string) => database.client.query(`update ancrage.subscriptions set start_lsn = $2 where id = $1`, [id, lsn]);
    for (const [index, lsn] of ["0/100", "0/200", "0/300"].entries()) {
      await place(lsn);
      await api.call("PATCH", path, { body: { filter: { a: index } } });
    }
    // 0/100 ended at 0/200, before what is settled; 0/200 ended at 0/300, after it.
    expect((await rowOf(id)).former.map((start) => start.startLsn)).toEqual([0x300n, 0x200n]);
  });
});

describe("pausing, resuming, enabling", () => {
  const call = (path: string, name: string) => api.call("POST", `${path}/${name}`);

  test("pause and resume lead there and back, and repeating either changes nothing", async () => {
    const { path, id } = await make();
    expect(await call(path, "pause")).toMatchObject({ status: 200, body: { state: "paused" } });
    const paused = await rowOf(id);
    expect(await call(path, "pause")).toMatchObject({ status: 200, body: { state: "paused" } });
    expect(await rowOf(id)).toEqual(paused);
    // What is committed while it is paused is its own: no new start.
    expect(paused.former).toEqual([]);
    expect(await call(path, "resume")).toMatchObject({ status: 200, body: { state: "enabled" } });
    expect(changed.at(-1)).toMatchObject({ id, state: "enabled" });
  });

  test("a disabled one is neither paused nor resumed but enabled, with a new start", async () => {
    const { path, id } = await make();
    await database.client.query(`update ancrage.subscriptions set state = 'disabled', state_reason = 'gone' where id = $1`, [id]);
    for (const name of ["pause", "resume"]) {
      expect(await call(path, name)).toMatchObject({
        status: 409,
        body: { code: "wrong-state", detail: expect.stringContaining("is disabled (gone)"), hint: expect.stringContaining("Enable it") },
      });
    }
    expect(await call(path, "enable")).toMatchObject({ status: 200, body: { state: "enabled", stateReason: null } });
    expect((await rowOf(id)).former).toMatchObject([{ events: [] }]);
  });

  test("an expired one is enabled once its time was changed", async () => {
    const { path, id } = await make();
    await database.client.query(
      `update ancrage.subscriptions set state = 'disabled', state_reason = 'expired', expires_at = '2020-01-01' where id = $1`,
      [id],
    );
    expect(await call(path, "enable")).toMatchObject({ status: 409, body: { hint: expect.stringContaining("expiresAt") } });
    expect((await api.call("PATCH", path, { body: { expiresAt: null } })).status).toBe(200);
    expect((await call(path, "enable")).status).toBe(200);
  });

  test("there is none of another project, and none that was deleted", async () => {
    const { path } = await make();
    const requests = [
      ["PATCH", path, { body: { description: "x" } }],
      ["POST", `${path}/pause`, {}],
      ["POST", `${path}/resume`, {}],
      ["POST", `${path}/enable`, {}],
      ["POST", `${path}/rotate-secret`, {}],
    ] as const;
    for (const [method, target, options] of requests) {
      expect(await api.call(method, target, { ...options, token: "acme-token" })).toMatchObject({ status: 404 });
    }
    await api.call("DELETE", path);
    for (const [method, target, options] of requests) expect(await api.call(method, target, options)).toMatchObject({ status: 404 });
  });
});

test("what another key sealed is not changed in the dark: the answer says which key is wanted", async () => {
  const { path } = await make({ headers: { "x-tenant": "42" } });
  const other = createTestApi(database, {}, { secretKey: parseSecretKey(randomBytes(32).toString("base64")) });
  const problem = {
    status: 409,
    body: {
      code: "secret-key-invalid",
      detail: expect.stringContaining(`was sealed with key ${secretKey.id}`),
      hint: expect.stringContaining("Start with the key that sealed it"),
    },
  };
  expect(await other.call("PATCH", path, { body: { description: "new" } })).toMatchObject(problem);
  expect(await other.call("GET", `${path}/secret`)).toMatchObject(problem);
  expect(other.logged).toHaveLength(2);
  await other.pool.end();
});

describe("a new secret", () => {
  test("signs with the one before, which ends after its hours", async () => {
    const { path, id, secret } = await make();
    const { status, body } = await api.call("POST", `${path}/rotate-secret`);
    expect({ status, body }).toMatchObject({ status: 200, body: { id, secret: expect.stringMatching(/^whsec_/) } });
    expect(body.secret).not.toBe(secret);
    expect((await api.call("GET", `${path}/secret`)).body).toEqual({ secret: body.secret });
    const { secrets } = await rowOf(id);
    expect(secrets).toMatchObject([{ expiresAt: null }, { expiresAt: expect.stringMatching(/Z$/) }]);
    const hours = (Date.parse(secrets[1]?.expiresAt ?? "") - Date.now()) / 3_600_000;
    expect(hours).toBeGreaterThan(23.9);
    expect(hours).toBeLessThanOrEqual(24);
  });

  test("with graceHours 0 it is alone at once, and may be given", async () => {
    const { path, id } = await make();
    const given = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
    await api.call("POST", `${path}/rotate-secret`);
    const { body } = await api.call("POST", `${path}/rotate-secret`, { body: { graceHours: 0, secret: given } });
    expect(body.secret).toBe(given);
    expect((await rowOf(id)).secrets).toHaveLength(1);
  });

  test("keeps at most ten old ones", async () => {
    const { path, id } = await make();
    for (let turn = 0; turn < 12; turn++) await api.call("POST", `${path}/rotate-secret`);
    expect((await rowOf(id)).secrets).toHaveLength(11);
  });

  test("is refused with all that is wrong, and shows no secret", async () => {
    const { path } = await make();
    const { status, body } = await api.call("POST", `${path}/rotate-secret`, { body: { graceHours: -1, secret: "whsec_c2hvcnQ=", x: 1 } });
    expect(status).toBe(422);
    expect(body.errors.map((fault: { pointer: string }) => fault.pointer)).toEqual(["/x", "/graceHours", "/secret"]);
    expect(JSON.stringify(body)).not.toContain("c2hvcnQ");
  });
});

describe("an idempotency key", () => {
  const post = (key: string, over: object = {}, token?: string) =>
    api.call("POST", "/v1/subscriptions", {
      body: { event: "deal.won", url, ...over },
      headers: { "idempotency-key": key },
      ...(token === undefined ? {} : { token }),
    });

  test("gives the same subscription and secret to whoever repeats the request, also at the same time", async () => {
    const answers = await Promise.all(Array.from({ length: 4 }, () => post(`"repeated"`)));
    answers.push(await post("repeated"));
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 201, 201, 201]);
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    expect(new Set(answers.map(({ body }) => body.secret)).size).toBe(1);
    expect(answers.at(-1)?.headers.get("location")).toContain(answers[0]?.body.id);
  });

  test("with another request is refused; in another project it is another key", async () => {
    const first = await post("once");
    expect(await post("once", { description: "other" })).toMatchObject({
      status: 422,
      body: { errors: [{ detail: expect.stringContaining(`the idempotency key "once" was sent with another request`) }] },
    });
    const acme = await post("once", {}, "acme-token");
    expect([acme.status, acme.body.project]).toEqual([201, "acme"]);
    expect(acme.body.id).not.toBe(first.body.id);
  });

  test("whose subscription was deleted since makes no other, and says so", async () => {
    const { body } = await post("deleted");
    await api.call("DELETE", `/v1/subscriptions/${body.id}`);
    expect(await post("deleted")).toMatchObject({
      status: 409,
      body: {
        code: "wrong-state",
        detail: expect.stringContaining(`the subscription ${body.id}`),
        hint: expect.stringContaining("another key"),
      },
    });
  });

  test.each([["a b"], [""], ["x".repeat(256)]])("%j is none", async (key) => {
    expect(await post(key)).toMatchObject({ status: 422, body: { errors: [{ pointer: "idempotency-key" }] } });
  });
});

describe("a test", () => {
  const response = Buffer.from("the receiver's own words");
  const result = { messageId: "msg_1", event: "deal.won", isDelivered: false, status: 500, reason: "status", durationMs: 3, response };

  test("shows what the receiver answered to the operator and to its project, not to other tokens", async () => {
    const asked: string[] = [];
    const sending = createTestApi(
      database,
      {},
      { sendTest: async (row, event) => (asked.push(`${row.id} ${event}`), Promise.resolve(result)) },
    );
    await database.client.query(`insert into ancrage.tokens (id, project, name, hash) values ('tok_all', null, 'All', $1)`, [
      hashToken("all-token"),
    ]);
    const { body } = await sending.call("POST", "/v1/subscriptions", {
      body: { events: ["NewOpportunity", "deal.won"], url, project: "acme" },
    });
    const path = `/v1/subscriptions/${body.id}/test`;
    expect((await sending.call("POST", path)).body).toEqual({ ...result, response: "the receiver's own words" });
    expect((await sending.call("POST", path, { token: "acme-token", body: { event: "deal.won" } })).body.response).not.toBeNull();
    expect((await sending.call("POST", path, { token: "all-token" })).body.response).toBeNull();
    expect(asked).toEqual([`${body.id} NewOpportunity`, `${body.id} deal.won`, `${body.id} NewOpportunity`]);
    for (const [wrong, pointer] of [
      [{ event: "nonsense" }, "/event"],
      [{ event: 1 }, "/event"],
      [{ evnt: "deal.won" }, "/evnt"],
      [[], ""],
    ] as const) {
      expect(await sending.call("POST", path, { body: wrong })).toMatchObject({ status: 422, body: { errors: [{ pointer }] } });
    }
    await sending.pool.end();
  });

  test("is sent at most 10 times a minute to one subscription, and 30 times for a project; the next is told when", async () => {
    const sending = createTestApi(database, {}, { sendTest: async () => Promise.resolve(result) });
    const paths: string[] = [];
    for (const project of ["tested", "tested", "tested", "tested", "another"]) {
      const { body } = await sending.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url, project } });
      paths.push(`/v1/subscriptions/${body.id}/test`);
    }
    const [first = "", second = "", third = "", fourth = "", other = ""] = paths;
    const statuses = async (path: string, times: number): Promise<number[]> => {
      const answers = await Promise.all(Array.from({ length: times }, () => sending.call("POST", path)));
      return answers.map(({ status }) => status).toSorted((a, b) => a - b);
    };
    expect(await statuses(first, 11)).toEqual([...Array<number>(10).fill(200), 429]);
    const refused = await sending.call("POST", first);
    expect(refused).toMatchObject({
      status: 429,
      body: { code: "too-many-requests", detail: expect.stringContaining("10 tests a minute") },
    });
    const seconds = Number(refused.headers.get("retry-after"));
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThanOrEqual(60);
    expect(await statuses(second, 10)).toEqual(Array<number>(10).fill(200));
    expect(await statuses(third, 10)).toEqual(Array<number>(10).fill(200));
    expect((await sending.call("POST", fourth)).body.detail).toContain('30 tests a minute for the project "tested"');
    expect((await sending.call("POST", other)).status).toBe(200);
    await sending.pool.end();
  });
});

test("a change that the process that leads does not heed is made, and answered with 503 until it is heeded", async () => {
  const { id, path } = await make();
  unheeded = new AncrageError("ANCRAGE_CHANGE_UNHEEDED", "it is made.", { hint: "Send it again." });
  const answer = await api.call("POST", `${path}/pause`);
  const rotated = await api.call("POST", `${path}/rotate-secret`);
  unheeded = undefined;
  // Asked for again it would be another one.
  expect(rotated).toMatchObject({ status: 200, body: { secret: expect.stringMatching(/^whsec_/) } });
  expect(answer).toMatchObject({ status: 503, body: { code: "not-heeded", detail: "it is made.", hint: "Send it again." } });
  expect(await rowOf(id)).toMatchObject({ state: "paused" });
  const before = changed.length;
  expect(await api.call("POST", `${path}/pause`)).toMatchObject({ status: 200, body: { state: "paused" } });
  expect(changed).toHaveLength(before + 1);
});
