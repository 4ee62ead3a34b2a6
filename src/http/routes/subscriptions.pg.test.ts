import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createTestApi, type TestApi } from "../../../test/api.ts";
import { cloneDatabase, type TestDatabase } from "../../../test/database.ts";
import { readLiveSubscriptions, readSubscription, type SubscriptionRow } from "../../store/subscriptions.ts";
import { hashToken } from "../../tokens.ts";

const changed: SubscriptionRow[] = [];
let database: TestDatabase;
let api: TestApi;
beforeAll(async () => {
  database = await cloneDatabase();
  api = createTestApi(database, {}, { onChanged: (row) => void changed.push(row) });
  await database.client.query(`insert into ancrage.tokens (id, project, name, hash) values ('tok_acme', 'acme', 'Acme', $1)`, [
    hashToken("acme-token"),
  ]);
});
afterAll(async () => {
  await api.pool.end();
  await database.remove();
});

const url = "https://hooks.zapier.com/hooks/standard/1/0123456789abcdef0123456789abcdef/";

describe("creating", () => {
  test("a REST-hook client's body gives 201, an absolute Location, a text id, the fields again, and the secret", async () => {
    const answer = await api.call("POST", "/v1/subscriptions", { body: { event: "NewOpportunity", target_url: url } });
    expect(answer.status).toBe(201);
    expect(answer.headers.get("location")).toBe(`http://ancrage.test/v1/subscriptions/${answer.body.id}`);
    expect(answer.headers.get("content-type")).toMatch(/^application\/json/);
    expect(answer.body).toEqual({
      id: expect.stringMatching(/^sub_[0-9A-HJKMNP-TV-Z]{26}$/),
      project: "default",
      events: ["NewOpportunity"],
      url,
      description: "",
      format: "standard",
      filter: null,
      headers: {},
      order: "none",
      limits: {},
      ignoredActors: [],
      metadata: {},
      expiresAt: null,
      state: "enabled",
      stateReason: null,
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      secret: expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=$/),
    });
  });

  test("Location is built from the public URL, its path included", async () => {
    const published = createTestApi(database, { publicUrl: "https://crm.example.com/hooks" });
    const answer = await published.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    expect(answer.headers.get("location")).toBe(`https://crm.example.com/hooks/v1/subscriptions/${answer.body.id}`);
    await published.pool.end();
  });

  test("two subscriptions of one URL to one event stand beside each other", async () => {
    const body = { events: ["deal.won"], url: "https://example.com/twice" };
    const first = await api.call("POST", "/v1/subscriptions", { body });
    const second = await api.call("POST", "/v1/subscriptions", { body });
    expect(second.body.id).not.toBe(first.body.id);
    const list = await api.call("GET", `/v1/subscriptions?target_url=${encodeURIComponent(body.url)}&event=deal.won`);
    expect(list.body.data.map((one: { id: string }) => one.id)).toEqual([second.body.id, first.body.id]);
  });

  test("the secret is nowhere else: not in another answer, not readable in the table", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    const got = await api.call("GET", `/v1/subscriptions/${body.id}`);
    expect(got.body).not.toHaveProperty("secret");
    const { rows } = await database.client.query("select secrets::text as secrets from ancrage.subscriptions where id = $1", [body.id]);
    expect(rows[0].secrets).not.toContain(body.secret.slice("whsec_".length));
  });

  test("all faults are listed at once, each with its place", async () => {
    const { status, headers, body } = await api.call("POST", "/v1/subscriptions", {
      body: {
        events: ["deal.won", "NewOportunity"],
        url: "ftp://example.com",
        evnt: 1,
        format: "xml",
        description: 4,
        metadata: [],
        secret: "x",
      },
    });
    expect(status).toBe(422);
    expect(headers.get("content-type")).toBe("application/problem+json");
    expect(body).toMatchObject({ type: "urn:ancrage:problem:invalid", code: "invalid", status: 422 });
    expect(body.errors).toEqual([
      { pointer: "/evnt", detail: expect.stringContaining(`did you mean "event"?`) },
      { pointer: "/events/1", detail: `no event is called "NewOportunity"; did you mean "NewOpportunity"?` },
      { pointer: "/url", detail: `expected an https: URL, got "ftp://example.com"` },
      { pointer: "/description", detail: "expected a text, got 4" },
      { pointer: "/format", detail: `expected one of standard, result, bare, cloudevents, got "xml"` },
      { pointer: "/metadata", detail: "expected an object, got []" },
      { pointer: "/secret", detail: expect.stringContaining(`expected "whsec_"`) },
    ]);
  });

  test.each([
    ["none", { event: "deal.won" }, "/url"],
    ["no event", { url }, "/event"],
    ["an event twice, differently", { event: "deal.won", events: ["NewOpportunity"], url }, "/events"],
    ["two URLs", { event: "deal.won", url, target_url: "https://example.com/" }, "/target_url"],
    ["an empty list", { events: [], url }, "/events"],
    ["a text", "deal.won", ""],
    ["null", null, ""],
  ])("refuses %s", async (_what, body, pointer) => {
    const answer = await api.call("POST", "/v1/subscriptions", { body });
    expect(answer.status).toBe(422);
    expect(answer.body.errors[0].pointer).toBe(pointer);
  });

  test("a body that an old REST-hook client repeats under two names is taken", async () => {
    const body = { event: "deal.won", target_url: url, subscription_url: url };
    expect((await api.call("POST", "/v1/subscriptions", { body })).status).toBe(201);
  });
});

describe("the mark in the log", () => {
  test("creating and deleting each emit one, in the transaction of the row, with its revision", async () => {
    await database.client.query(`select pg_create_logical_replication_slot('marks', 'pgoutput')`);
    await database.client.query(`create publication marks`);
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    const created = await readSubscription(api.pool, body.id);
    await api.call("DELETE", `/v1/subscriptions/${body.id}`);
    await api.call("DELETE", `/v1/subscriptions/${body.id}`);
    const deleted = await readSubscription(api.pool, body.id);
    const { rows } = await database.client.query<{ data: Buffer }>(
      `select data from pg_logical_slot_get_binary_changes('marks', null, null, 'proto_version', '1', 'publication_names', 'marks', 'messages', 'true')`,
    );
    const marks = rows.map((row) => row.data.toString("latin1")).filter((text) => text.includes("ancrage.subscription"));
    expect(marks).toEqual([
      expect.stringContaining(`${body.id} ${created?.revision}`),
      expect.stringContaining(`${body.id} ${deleted?.revision}`),
    ]);
    expect(deleted!.revision).toBeGreaterThan(created!.revision);
    await database.client.query(`select pg_drop_replication_slot('marks')`);
  });

  test("the process that changed it hears of it before the caller does, and of a repeated deletion again", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    expect(changed.at(-1)).toMatchObject({ id: body.id, state: "enabled" });
    await api.call("DELETE", `/v1/subscriptions/${body.id}`);
    expect(changed.at(-1)).toMatchObject({ id: body.id, state: "deleted" });
    const heard = changed.length;
    await api.call("DELETE", `/v1/subscriptions/${body.id}`);
    expect(changed.slice(heard)).toMatchObject([{ id: body.id, state: "deleted" }]);
  });
});

describe("reading and deleting", () => {
  test("DELETE answers 200 with JSON, twice; afterwards GET does not find it and no list has it", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url: "https://example.com/gone" } });
    const path = `/v1/subscriptions/${body.id}`;
    expect(await api.call("GET", path)).toMatchObject({ status: 200, body: { id: body.id } });
    for (let turn = 0; turn < 2; turn++) {
      expect(await api.call("DELETE", path)).toMatchObject({ status: 200, body: { id: body.id, state: "deleted" } });
    }
    expect(await api.call("GET", path)).toMatchObject({ status: 404, body: { code: "not-found" } });
    expect((await api.call("GET", "/v1/subscriptions?url=https://example.com/gone")).body).toEqual({ data: [], next: null });
    expect((await readLiveSubscriptions(api.pool)).map((row) => row.id)).not.toContain(body.id);
  });

  test("DELETE takes the content type, and the body, that some clients send with it", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    const headers = { "content-type": "application/json; charset=utf-8", accept: "*/*", "user-agent": "Zapier" };
    expect((await api.call("DELETE", `/v1/subscriptions/${body.id}`, { headers })).status).toBe(200);
    expect((await api.call("DELETE", `/v1/subscriptions/${body.id}`, { headers, raw: "x" })).status).toBe(200);
  });

  test("one that was disabled because its receiver answered 410 is deleted as any other", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    await database.client.query(`update ancrage.subscriptions set state = 'disabled', state_reason = 'gone' where id = $1`, [body.id]);
    expect(await api.call("DELETE", `/v1/subscriptions/${body.id}`)).toMatchObject({ status: 200, body: { state: "deleted" } });
  });

  test("deletions at the same time raise the revision once", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    const answers = await Promise.all(Array.from({ length: 8 }, () => api.call("DELETE", `/v1/subscriptions/${body.id}`)));
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]));
    const revisions = changed.filter((row) => row.id === body.id).map((row) => row.revision);
    expect(new Set(revisions).size).toBe(2);
  });

  test("a subscription whose mark cannot be written is not made", async () => {
    // Roles are those of the whole server: one of this database's own name meets no other test's.
    const role = database.name;
    await database.client.query(`create role ${role} login password 'markless'`);
    await database.client.query(`grant usage on schema ancrage to ${role}`);
    await database.client.query(`grant all on all tables in schema ancrage to ${role}`);
    await database.client.query(`grant all on all sequences in schema ancrage to ${role}`);
    await database.client.query(`revoke execute on function ancrage.write_mark(text, bytea) from public`);
    const asMarkless = new URL(database.url);
    asMarkless.username = role;
    asMarkless.password = "markless";
    const limited = createTestApi({ ...database, url: asMarkless.href });
    const count = `select count(*)::int as count from ancrage.subscriptions`;
    const { rows: before } = await database.client.query(count);
    const answer = await limited.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    const { rows: after } = await database.client.query(count);
    await limited.pool.end();
    await database.client.query(`drop owned by ${role}`);
    await database.client.query(`drop role ${role}`);
    expect(answer.status).toBe(500);
    expect(limited.logged).toMatchObject([{ error: { code: "42501", message: expect.stringContaining("write_mark") } }]);
    expect(after).toEqual(before);
  });

  test("GET …/secret answers what signs; not for another project's, not for a deleted one", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    const path = `/v1/subscriptions/${body.id}/secret`;
    expect(await api.call("GET", path)).toMatchObject({ status: 200, body: { secret: body.secret } });
    expect(await api.call("GET", path, { token: "acme-token" })).toMatchObject({ status: 404, body: { code: "not-found" } });
    expect((await api.call("GET", path, { token: null })).status).toBe(401);
    await api.call("DELETE", `/v1/subscriptions/${body.id}`);
    expect((await api.call("GET", path)).status).toBe(404);
  });

  test("an id that was never issued is not found", async () => {
    expect((await api.call("DELETE", "/v1/subscriptions/sub_00000000000000000000000000")).status).toBe(404);
    expect((await api.call("GET", "/v1/subscriptions/sub_00000000000000000000000000")).status).toBe(404);
  });

  test("pages follow one another without loss or repetition", async () => {
    const ids: string[] = [];
    for (let turn = 0; turn < 5; turn++) {
      const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url: "https://example.com/pages" } });
      ids.unshift(body.id);
    }
    const seen: string[] = [];
    let after = "";
    for (let turn = 0; turn < 3; turn++) {
      const { body } = await api.call("GET", `/v1/subscriptions?url=https://example.com/pages&limit=2${after}`);
      seen.push(...body.data.map((one: { id: string }) => one.id));
      expect(body.next === null).toBe(turn === 2);
      after = `&after=${body.next}`;
    }
    expect(seen).toEqual(ids.toSorted().toReversed());
  });

  test("start position and revision come back as bigint", async () => {
    const { body } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url } });
    await database.client.query(`update ancrage.subscriptions set start_lsn = '16/B374D848' where id = $1`, [body.id]);
    const row = (await readLiveSubscriptions(api.pool)).find((one) => one.id === body.id);
    expect(row).toMatchObject({ startLsn: 0x16b374d848n, revision: expect.any(BigInt) });
  });
});

describe("projects", () => {
  test("a token of one project creates in it, and sees nothing of another", async () => {
    const { body: other } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url, project: "globex" } });
    const { body: own } = await api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url }, token: "acme-token" });
    expect(own.project).toBe("acme");
    const seen = await api.call("GET", "/v1/subscriptions", { token: "acme-token" });
    expect(seen.body.data.map((one: { id: string }) => one.id)).toEqual([own.id]);
    expect((await api.call("GET", `/v1/subscriptions/${other.id}`, { token: "acme-token" })).status).toBe(404);
    expect((await api.call("DELETE", `/v1/subscriptions/${other.id}`, { token: "acme-token" })).status).toBe(404);
    expect((await api.call("GET", `/v1/subscriptions/${other.id}`)).body.state).toBe("enabled");
  });

  test("naming another project is refused, naming one's own is not", async () => {
    const create = (project: string) =>
      api.call("POST", "/v1/subscriptions", { body: { event: "deal.won", url, project }, token: "acme-token" });
    expect(await create("globex")).toMatchObject({ status: 403, body: { code: "project-refused" } });
    expect((await create("acme")).status).toBe(201);
    expect((await api.call("GET", "/v1/subscriptions?project=globex", { token: "acme-token" })).status).toBe(403);
  });
});
