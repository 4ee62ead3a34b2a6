import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import type { Row } from "../src/capture/change.ts";
import { unchanged, type Tuple } from "../src/capture/wal/pgoutput.ts";
import { compileRelation } from "../src/capture/wal/relation.ts";
import { systemClock } from "../src/clock.ts";
import type { CatalogueEvent } from "../src/event/catalogue.ts";
import type { EventDefinition, PayloadContext } from "../src/event/define.ts";
import { jsonSchemaOf } from "../src/event/json-schema.ts";
import { buildPayloads, type Payload, type PayloadDeps, type PayloadInput } from "../src/payload/build.ts";
import { BatchFault } from "../src/payload/fault.ts";
import { createRecordReaders, createSampleReaders } from "../src/payload/record-readers.ts";
import { readSamples, type SampleDeps } from "../src/payload/sample.ts";
import { createSqlReader } from "../src/payload/sql.ts";
import { createPool } from "../src/store/database.ts";
import { readTables, type TableInfo } from "../src/store/tables.ts";
import { readTypes, type ValueTypes } from "../src/store/types.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
/** Roles are the whole server's, not the database's. */
let reader: string;
let pool: pg.Pool;
let tables: ReadonlyMap<string, TableInfo>;
let types: ValueTypes;
let deps: PayloadDeps & SampleDeps;

beforeAll(async () => {
  database = await cloneDatabase();
  reader = `${database.name}_reader`;
  await database.client.query(`
    create table customer (id integer primary key, name text not null, credit numeric not null default 0, since timestamptz);
    create table owner (id bigint primary key, email text not null, team text);
    create table deal (id integer primary key, customer_id integer, owner_id bigint, label text, company text, created_at timestamptz);
    create table empty (id integer primary key, label text);
    create table doc (id integer primary key, state text, body text, note text);
    insert into doc select i, 'new', repeat(md5(i::text), 100), 'n' from generate_series(1, 1000) i;
    insert into customer select i, 'customer ' || i, i, '2026-01-31 12:00:00+00' from generate_series(1, 500) i;
    insert into owner select i, 'o' || i || '@example.com', 'team ' || i % 5 from generate_series(1, 100) i;
    insert into deal select i, i % 500 + 1, i % 100 + 1, 'deal ' || i, case i % 2 when 0 then 'even' else 'odd' end, now() - i * interval '1 hour' from generate_series(1, 10000) i;

    create function writing() returns integer language sql as $$ insert into customer values (0, 'written') returning 1 $$;
    create function role_setting() returns text language plpgsql as $$ begin set role ${reader}; return current_user; end $$;

    -- Counts statements at the server: the sub-select of a policy is asked once a statement, however many rows it reads.
    create sequence statements;
    create role ${reader} nologin;
    grant usage on schema public to ${reader};
    grant select on all tables in schema public to ${reader};
    grant usage on sequence statements to ${reader};
    alter table customer enable row level security;
    alter table doc enable row level security;
    create policy counted on doc to ${reader} using ((select nextval('statements')) is not null);
    alter table owner enable row level security;
    create policy counted on customer to ${reader} using ((select nextval('statements')) is not null);
    create policy counted on owner to ${reader} using ((select nextval('statements')) is not null);
  `);
  tables = new Map((await readTables(database.client)).map((table) => [table.name, table]));
  types = await readTypes(database.client);
  pool = poolOf();
  deps = depsOf(pool);
});

afterAll(async () => {
  await pool.end();
  await database.client.query(`drop owned by ${reader}; drop role ${reader}`);
  await database.remove();
});

test("10,000 rows in batches of 1,000 whose payloads load from two tables need at most 40 statements", async () => {
  const counted = poolOf({ role: reader });
  const event = eventOf({
    table: "deal",
    async payload(deal: Row, { load }: PayloadContext) {
      const customer = await load("customer", deal["customer_id"]);
      const owner = await load("owner", deal["owner_id"]);
      return { label: deal["label"], customer: customer?.["name"], owner: owner?.["email"] };
    },
  });
  const { rows: deals } = await pool.query<Row>("select id, customer_id, owner_id, label from deal order by id");
  const results: Payload[] = [];
  for (let from = 0; from < deals.length; from += 1_000) {
    const inputs = deals.slice(from, from + 1_000).map((deal) => inputOf(event, deal));
    results.push(...(await buildPayloads(inputs, depsOf(counted))));
  }
  await counted.end();

  const { rows } = await database.client.query<{ count: string }>("select last_value as count from statements");
  expect(Number(rows[0]!.count)).toBe(20);
  expect(results).toHaveLength(10_000);
  expect(jsonOf(results[0])).toEqual({ label: "deal 1", customer: "customer 2", owner: "o2@example.com" });
  expect(jsonOf(results[9_999])).toEqual({ label: "deal 10000", customer: "customer 1", owner: "o1@example.com" });
});

describe("a column that the log did not carry", () => {
  const count = async (): Promise<number> =>
    Number((await database.client.query<{ count: string }>("select last_value as count from statements")).rows[0]!.count);
  const relation = (names: readonly string[]) =>
    compileRelation(
      {
        kind: "relation",
        oid: 1,
        schema: "public",
        table: "doc",
        replicaIdentity: "d",
        columns: names.map((name) => ({ name, typeOid: name === "id" ? 23 : 25, typeModifier: -1, isKey: name === "id" })),
      },
      tables.get("doc"),
      types,
    );
  /** As updates that touched neither large column are in the log. */
  const updated = (keys: readonly number[], event: CatalogueEvent): readonly PayloadInput[] =>
    keys.map((id) => {
      const tuple: Tuple = [String(id), "sent", unchanged, unchanged];
      const record = relation(["id", "state", "body", "note"]).toRow(tuple, undefined);
      return { ...inputOf(event, record), key: String(id), action: "update" };
    });
  const numbers = Array.from({ length: 1_000 }, (_, index) => index + 1);

  test("is read anew for 1,000 records in one statement, however the function came to it", async () => {
    const counted = poolOf({ role: reader });
    const before = await count();
    const body = { table: "doc", payload: (doc: Row) => ({ id: doc["id"], body: doc["body"] }) };
    const late = { table: "doc", payload: async (doc: Row) => Promise.resolve().then(() => ({ state: doc["state"], body: doc["body"] })) };
    const results = await buildPayloads(
      [
        ...updated(numbers, eventOf(body)),
        ...updated([7, 8], eventOf(late)),
        ...updated([9], eventOf({ ...late, payload: (doc: Row) => doc })),
      ],
      depsOf(counted),
    );
    expect((await count()) - before).toBe(2);
    await counted.end();
    const { rows } = await database.client.query<{ id: number; body: string }>("select id, body from doc order by id");
    expect(results.slice(0, 1_000).map(jsonOf)).toEqual(rows);
    expect(results.slice(1_000).map(jsonOf)).toEqual([
      { state: "sent", body: rows[6]!.body },
      { state: "sent", body: rows[7]!.body },
      { id: 9, state: "sent", body: rows[8]!.body, note: "n" },
    ]);
  });

  test("of a row that is gone is a rejection that says so; a function that copes is not asked twice", async () => {
    const event = eventOf({ table: "doc", payload: (doc: Row) => doc["body"] });
    const coping = eventOf({
      table: "doc",
      payload(doc: Row) {
        try {
          return doc["body"];
        } catch {
          return "no body";
        }
      },
    });
    const [gone, there, coped] = await buildPayloads([...updated([2_000, 1], event), ...updated([2_000], coping)], deps);
    expect(gone).toMatchObject({
      reason: "record-missing",
      error: expect.stringMatching(/column "body" of "doc".* the row 2000.* is gone/),
    });
    expect(there).toMatchObject({ kind: "built" });
    expect(jsonOf(coped)).toBe("no body");
  });

  test("that the table has no more is named; a database that does not answer is waited for", async () => {
    const event = eventOf({ table: "doc", payload: (doc: Row) => [doc["state"], doc["label"]] });
    const table = tables.get("doc")!;
    const label = { ...table.columns[1]!, name: "label" };
    const known = { ...event, table: { ...table, columns: [...table.columns, label] } };
    const record = compileRelation(
      { kind: "relation", oid: 1, schema: "public", table: "doc", replicaIdentity: "d", columns: [] },
      known.table,
      types,
    ).toRow([], undefined);
    const [result] = await buildPayloads([{ ...inputOf(known, {}), key: "1", record }], deps);
    expect(result).toMatchObject({ reason: "payload-threw", error: expect.stringContaining('"doc" had no column "label" when') });
    const faulty = { ...deps, readers: { ...deps.readers, byKeys: async () => Promise.reject(new Error("ECONNRESET")) } };
    const body = eventOf({ table: "doc", payload: (doc: Row) => doc["body"] });
    await expect(buildPayloads(updated([1], body), faulty)).rejects.toBeInstanceOf(BatchFault);
  });
});

test("load reads now, and its values are those of the log", async () => {
  const event = eventOf({ table: "deal", payload: async (_: Row, { load }: PayloadContext) => load("customer", 7) });
  await database.client.query("update customer set credit = 12.50 where id = 7");
  const [first] = await buildPayloads([inputOf(event, { id: 1 })], deps);
  expect(jsonOf(first)).toEqual({ id: 7, name: "customer 7", credit: "12.50", since: "2026-01-31T12:00:00.000000Z" });
  await database.client.query("update customer set name = 'renamed' where id = 7");
  const [second] = await buildPayloads([inputOf(event, { id: 1 })], deps);
  expect(jsonOf(second)).toMatchObject({ name: "renamed" });
});

test("load by other columns, and load.all", async () => {
  const event = eventOf({
    table: "deal",
    async payload(_: Row, { load }: PayloadContext) {
      const owner = await load("owner", { email: "o3@example.com" });
      const team = await load.all("owner", { team: owner?.["team"] });
      const nobody = await load.all("owner", { team: "none" });
      return [owner?.["id"], team.length, nobody.length];
    },
  });
  expect(jsonOf((await buildPayloads([inputOf(event, { id: 1 })], deps))[0])).toEqual(["3", 20, 0]);
});

test("records of explicit triggers are read by key; who has none, or a key that cannot be one, is rejected alone", async () => {
  const event = eventOf({ table: "customer", payload: (customer: Row) => customer["id"] });
  const inputs = ["3", "abc", "4", "99999", "5"].map((key): PayloadInput => ({
    ...inputOf(event, {}),
    key,
    reason: "trigger",
    record: undefined,
  }));
  const results = await buildPayloads(inputs, deps);
  expect(results.map((result) => (result.kind === "rejected" ? result.reason : jsonOf(result)))).toEqual([
    3,
    "record-missing",
    4,
    "record-missing",
    5,
  ]);
});

test("sql takes values as parameters and reads them as the log has them", async () => {
  const hostile = "'; drop table customer; --";
  const event = eventOf({
    table: "deal",
    async payload(_: Row, { sql }: PayloadContext) {
      const none = await sql`select * from customer where name = ${hostile}`;
      const some = await sql`
        select id, credit, since from customer where id = any(${[8, 9]}) order by id desc;
      `;
      return [none, some];
    },
  });
  const since = "2026-01-31T12:00:00.000000Z";
  expect(jsonOf((await buildPayloads([inputOf(event, { id: 1 })], deps))[0])).toEqual([
    [],
    [
      { id: 9, credit: "9", since },
      { id: 8, credit: "8", since },
    ],
  ]);
});

test.each<[string, TemplateStringsArray, string]>([
  ["insert", text`insert into customer values (0, 'written') returning 1`, "42601"],
  ["an insert in a with", text`with w as (insert into customer values (0, 'written') returning 1) select * from w`, "0A000"],
  ["a function that writes", text`select writing()`, "25006"],
  ["set role", text`set role pg_monitor`, "42601"],
  ["commit", text`commit`, "42601"],
  ["two statements", text`select 1; delete from customer`, "42601"],
  ["two statements around the parentheses", text`select 1) as q; commit; select * from (select 2`, "42601"],
  ["turning read only off", text`select set_config('transaction_read_only', 'off', false)`, "25001"],
  ["a lock of rows", text`select * from customer for update`, "25006"],
  ["a sequence", text`select nextval('statements')`, "25006"],
  ["copy", text`copy customer to program 'true'`, "42601"],
])("PostgreSQL itself refuses %s, and the next read is clean", async (_, statement, state) => {
  const single = poolOf({}, 1);
  const errors: unknown[] = [];
  const event = eventOf({
    table: "deal",
    async payload(_: Row, { sql }: PayloadContext) {
      await sql(statement).catch((error: unknown) => errors.push(error));
      return sql`select current_user = session_user as own, current_setting('transaction_read_only') as read_only, count(*) as written from customer where id = 0`;
    },
  });
  const [result] = await buildPayloads([inputOf(event, { id: 1 })], depsOf(single));
  await single.end();
  expect(errors).toMatchObject([{ code: state }]);
  expect(jsonOf(result)).toEqual([{ own: true, read_only: "on", written: "0" }]);
});

test.each<[string, TemplateStringsArray]>([
  ["set_config of the role", text`select set_config('role', 'pg_monitor', false)`],
  ["a function that sets the role", text`select role_setting()`],
  ["set_config of the search path", text`select set_config('search_path', 'nowhere', false)`],
  ["set_config of the time zone", text`select set_config('timezone', 'Asia/Tokyo', false)`],
  ["an advisory lock", text`select pg_advisory_lock(42)`],
])("%s ends with its call", async (_, statement) => {
  const single = poolOf({}, 1);
  const event = eventOf({ table: "deal", payload: async (_: Row, { sql }: PayloadContext) => (await sql(statement)).length });
  const [result] = await buildPayloads([inputOf(event, { id: 1 })], depsOf(single));
  expect(jsonOf(result)).toBe(1);
  const { rows } = await single.query<Row>(`
    select current_user = session_user as own, current_setting('search_path') as path, current_setting('timezone') as zone,
      current_setting('transaction_read_only') as read_only, (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks`);
  await single.end();
  expect(rows).toEqual([{ own: true, path: '"$user", public', zone: "UTC", read_only: "off", locks: 0 }]);
});

test("a syntax error or bad data is the definition's own; the rest of the batch is built", async () => {
  const wrong = eventOf({ table: "deal", payload: async (_: Row, { sql }: PayloadContext) => sql`select no_such_column from customer` });
  const bad = eventOf({ table: "deal", payload: async (_: Row, { sql }: PayloadContext) => sql`select ${"abc"}::text::integer` });
  const undefinedValue = eventOf({
    table: "deal",
    payload: async (deal: Row, { sql }: PayloadContext) => sql`select ${deal["no_such"]}::text`,
  });
  const good = eventOf({ table: "deal", payload: () => "good" });
  const results = await buildPayloads(
    [wrong, bad, undefinedValue, good].map((event) => inputOf(event, { id: 1 })),
    deps,
  );
  expect(results).toMatchObject([
    {
      reason: "payload-threw",
      error: expect.stringMatching(/column "no_such_column" does not exist at test\/payload\.pg\.test\.ts:\d+:\d+$/),
    },
    { reason: "payload-threw", error: expect.stringContaining('invalid input syntax for type integer: "abc"') },
    { reason: "payload-threw", error: expect.stringContaining("sql: value 1 is undefined, expected a value or null") },
    { kind: "built", json: '"good"' },
  ]);
});

test("a statement over its time repeats the batch, even where the user's code caught the error", async () => {
  const quick = { ...deps, sql: createSqlReader({ pool, types, statementTimeoutMs: 20 }) };
  const event = eventOf({
    table: "deal",
    payload: async (_: Row, { sql }: PayloadContext) => sql`select pg_sleep(30)`.catch(() => "a wrong value"),
  });
  const error = await buildPayloads([inputOf(event, { id: 1 })], quick).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(BatchFault);
  expect(error).toMatchObject({ cause: { code: "57014" } });
});

test("a session that PostgreSQL ended repeats the batch, and the repeated batch is built", async () => {
  const single = poolOf({}, 1);
  const lost = eventOf({
    table: "deal",
    payload: async (_: Row, { sql }: PayloadContext) => sql`select pg_terminate_backend(pg_backend_pid())`,
  });
  const event = eventOf({
    table: "deal",
    payload: async (_: Row, { load, sql }: PayloadContext) => [await load("customer", 1), await sql`select 1 as one`].length,
  });
  await expect(buildPayloads([inputOf(lost, { id: 1 })], depsOf(single))).rejects.toBeInstanceOf(BatchFault);
  expect(jsonOf((await buildPayloads([inputOf(event, { id: 1 })], depsOf(single)))[0])).toBe(2);
  await single.end();
});

test("a network that was cut repeats the batch, and its session is not used again", async () => {
  const address = new URL(database.url);
  const sockets: Socket[] = [];
  const proxy = createServer((client) => {
    const server = connect(Number(address.port), address.hostname);
    client.pipe(server).pipe(client);
    for (const socket of [client, server]) sockets.push(socket.on("error", () => undefined));
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  const url = new URL(database.url);
  url.host = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const cut = createPool({ connectionString: url.href, applicationName: "ancrage cut", size: 1, onIdleError: () => undefined });
  await cut.query("select 1");
  for (const socket of sockets) socket.unpipe().pause();

  const quick = { ...depsOf(cut), sql: createSqlReader({ pool: cut, types, silenceTimeoutMs: 50 }) };
  const event = eventOf({ table: "deal", payload: async (_: Row, { sql }: PayloadContext) => sql`select 1 as one` });
  await expect(buildPayloads([inputOf(event, { id: 1 })], quick)).rejects.toBeInstanceOf(BatchFault);
  expect(jsonOf((await buildPayloads([inputOf(event, { id: 1 })], depsOf(cut)))[0])).toEqual([{ one: 1 }]);

  for (const socket of sockets) socket.destroy();
  await cut.end();
  proxy.close();
});

test("more calls of sql than sessions wait for each other, not for the pool to give up", async () => {
  const two = poolOf({}, 2);
  let mostWaiting = 0;
  two.on("acquire", () => (mostWaiting = Math.max(mostWaiting, two.waitingCount)));
  const event = eventOf({
    table: "deal",
    payload: async (deal: Row, { load, sql }: PayloadContext) => [
      (await sql`select ${deal["id"]}::int as id`)[0]?.["id"],
      (await load("customer", 1))?.["id"],
    ],
  });
  const results = await buildPayloads(
    Array.from({ length: 200 }, (_, id) => inputOf(event, { id })),
    depsOf(two),
  );
  await two.end();
  expect(results.map(jsonOf)).toEqual(Array.from({ length: 200 }, (_, id) => [id, 1]));
  // Whoever waits in the pool for longer than its time-out is told that the connection failed.
  expect(mostWaiting).toBeLessThanOrEqual(1);
});

test("samples are the newest records for which where holds, newest first, through the payload function", async () => {
  const event = eventOf({
    table: "deal",
    where: (deal: Row) => Number(deal["id"]) % 2 === 1,
    payload: (deal: Row, { reason }: PayloadContext) => ({ id: deal["id"], reason }),
  });
  const { source, samples } = await readSamples(event, { limit: 3 }, deps);
  expect(source).toBe("records");
  expect(samples.map(({ key, json }) => [key, JSON.parse(json)])).toEqual(
    ["1", "3", "5"].map((key) => [key, { id: Number(key), reason: "sample" }]),
  );
});

test("samples look through a thousand records and no further, and show only the project's own", async () => {
  const event = eventOf({
    table: "deal",
    newest: "id",
    where: (deal: Row) => Number(deal["id"]) <= 9_002,
    payload: (deal: Row) => deal["id"],
  });
  const ofProject = { ...deps, catalogue: { ...deps.catalogue, projectOf: (_: CatalogueEvent, deal: Row) => String(deal["company"]) } };
  const { samples } = await readSamples(event, { limit: 5, project: "even" }, ofProject);
  expect(samples).toEqual([{ key: "9002", json: "9002", project: "even" }]);
  const tooOld = eventOf({
    table: "deal",
    newest: "id",
    where: (deal: Row) => Number(deal["id"]) <= 9_000,
    example: "example",
    payload: (deal: Row) => deal["id"],
  });
  expect(await readSamples(tooOld, {}, deps)).toMatchObject({ source: "example", samples: [{ json: '"example"' }] });
});

test("without records the newest messages are shown, else the example, else what the schema says, and never nothing", async () => {
  const schema = z.object({ label: z.string(), at: z.iso.datetime(), tags: z.array(z.number()), note: z.string().nullable() });
  const made = eventOf({ name: "Made", table: "empty", schema, payload: () => undefined });
  expect(await readSamples(made, {}, deps)).toEqual({
    source: "schema",
    samples: [{ json: '{"label":"text","at":"2026-01-31T12:00:00Z","tags":[1],"note":"text"}', key: undefined, project: undefined }],
    problem: undefined,
  });

  const example = { label: "a", at: "2026-01-01T00:00:00Z", tags: [], note: null };
  const exemplary = eventOf({ name: "Made", table: "empty", schema, example, payload: () => undefined });
  expect(await readSamples(exemplary, {}, deps)).toMatchObject({ source: "example", samples: [{ json: JSON.stringify(example) }] });

  await insertMessage("Made", "acme", "1", { label: "old" });
  await insertMessage("Made", "acme", "2", { label: "new" });
  const { source, samples } = await readSamples(exemplary, { project: "acme" }, deps);
  expect([source, samples.map(({ json }) => json)]).toEqual(["messages", ['{"label":"new"}', '{"label":"old"}']]);
  expect(await readSamples(exemplary, { project: "other" }, deps)).toMatchObject({ source: "example" });
});

test("what a deleted record sends is not shown by one that is there", async () => {
  const event = { ...eventOf({ table: "deal", example: "gone", payload: () => "here" }), rules: [{ kind: "delete" as const }] };
  expect(await readSamples(event, {}, deps)).toMatchObject({ source: "example", samples: [{ json: '"gone"' }] });
});

const throws = (): never => {
  throw new Error("no label");
};

test.each<[string, Parameters<typeof eventOf>[0], string]>([
  ["a payload that throws", { payload: throws }, "Error: no label"],
  ["a payload that its schema refuses", { schema: z.object({ label: z.string() }), payload: () => ({}) }, "label: "],
  ["a where that throws", { where: throws, payload: () => 1 }, "where of Test threw Error: no label"],
])("%s for every record is told: no example, schema or old message hides it", async (_what, definition, told) => {
  const event = eventOf({ name: "Failing", table: "deal", schema: z.unknown(), example: "example", ...definition });
  await insertMessage("Failing", "default", "1", "old");
  await expect(readSamples(event, {}, deps)).rejects.toMatchObject({
    code: "ANCRAGE_SAMPLE_NONE",
    message: expect.stringContaining(told.replace("Test", "Failing")),
  });
});

test("what another project's record makes the code throw is not told", async () => {
  const event = eventOf({ table: "deal", where: throws, example: "example", payload: () => 1 });
  const ofProject = { ...deps, catalogue: { ...deps.catalogue, projectOf: () => "other" } };
  expect(await readSamples(event, { project: "acme" }, ofProject)).toMatchObject({ source: "example", problem: undefined });
});

function poolOf(settings: Readonly<Record<string, string>> = {}, size = 3): pg.Pool {
  return createPool({ connectionString: database.url, applicationName: "ancrage payloads", settings, size, onIdleError: () => undefined });
}

function depsOf(pool: pg.Pool): PayloadDeps & SampleDeps {
  return {
    catalogue: { allTables: tables, projectOf: () => "default" },
    readers: createRecordReaders(pool, types),
    sql: createSqlReader({ pool, types }),
    ...createSampleReaders(pool, types, systemClock),
  };
}

async function insertMessage(event: string, project: string, key: string, body: unknown): Promise<void> {
  await database.client.query("select ancrage.ensure_partitions((now() at time zone 'UTC')::date)");
  await database.client.query(
    `insert into ancrage.messages values ('msg_' || ancrage.base32((extract(epoch from now()) * 1000)::bigint, 10) || $3::text, $2, $1, $3, '0/1', '0/1', 0, now(), $4)`,
    [event, project, key, Buffer.from(JSON.stringify(body))],
  );
}

function eventOf({
  name = "Test",
  ...definition
}: { name?: string; payload: (record: never, context: never) => unknown } & Partial<EventDefinition>): CatalogueEvent {
  const whole: EventDefinition = { kind: "event", ...definition };
  return {
    name,
    file: "test/payload.pg.test.ts",
    definition: whole,
    table: whole.table === undefined ? undefined : tables.get(whole.table),
    rules: [{ kind: "insert" }],
    jsonSchema: jsonSchemaOf(whole),
  };
}

function inputOf(event: CatalogueEvent, record: Row): PayloadInput {
  return {
    event,
    key: String(record["id"]),
    reason: "change",
    action: "insert",
    before: undefined,
    record,
    data: undefined,
    actor: undefined,
  };
}

function jsonOf(result: Payload | undefined): unknown {
  return result?.kind === "built" ? (JSON.parse(result.json) as unknown) : result;
}

function text(strings: TemplateStringsArray): TemplateStringsArray {
  return strings;
}
