import type { StandardSchemaV1 } from "@standard-schema/spec";
import { expect, test } from "vitest";
import { z } from "zod";
import type { Row } from "../capture/change.ts";
import type { CatalogueEvent } from "../event/catalogue.ts";
import type { EventDefinition, PayloadContext } from "../event/define.ts";
import type { TableInfo } from "../store/tables.ts";
import { buildPayloads, type PayloadDeps, type PayloadInput } from "./build.ts";
import { BatchFault } from "./fault.ts";
import type { RecordReaders } from "./load.ts";

const deal = tableInfo("deal", ["id", "status", "customer_id"]);
const customer = tableInfo("customer", ["id", "name", "email"]);

test("results stand in the order of the occurrences, whatever finishes first", async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const event = eventOf({
    table: "deal",
    async payload(record: Row) {
      await gates[Number(record["id"])]!.promise;
      return { id: record["id"] };
    },
  });
  const built = buildPayloads([occurrence(event, { id: 0 }), occurrence(event, { id: 1 }), occurrence(event, { id: 2 })], depsOf());
  for (const gate of gates.toReversed()) gate.resolve();
  expect(jsonOf(await built)).toEqual(['{"id":0}', '{"id":1}', '{"id":2}']);
});

test("what the schema makes of the payload is sent, and undefined means that nothing happened", async () => {
  const event = eventOf({
    table: "deal",
    schema: z.object({ label: z.string().trim() }),
    payload: (record: Row) => (record["status"] === "open" ? { label: "  a ", internal: 1 } : undefined),
  });
  const results = await buildPayloads([occurrence(event, { status: "open" }), occurrence(event, { status: "lost" })], depsOf());
  expect(results).toEqual([{ kind: "built", project: "default", json: '{"label":"a"}' }, { kind: "nothing" }]);
});

test("a schema may be asynchronous", async () => {
  const schema = z.object({ id: z.number().refine(async (id) => Promise.resolve(id > 1), "too small") });
  const event = eventOf({ table: "deal", schema, payload: (record: Row) => ({ id: record["id"] }) });
  const [refused, built] = await buildPayloads([occurrence(event, { id: 1 }), occurrence(event, { id: 2 })], depsOf());
  expect(refused).toMatchObject({ reason: "schema-refused", error: "the schema of Test refused the payload: id: too small" });
  expect(built).toMatchObject({ kind: "built", json: '{"id":2}' });
});

test.each<[string, Partial<EventDefinition>, object]>([
  [
    "a schema's issues are named with their paths",
    { schema: z.object({ items: z.array(z.object({ price: z.string() })) }), payload: () => ({ items: [{ price: 1 }] }) },
    { reason: "schema-refused", error: expect.stringContaining("items[0].price: Invalid input: expected string, received number") },
  ],
  [
    "a schema that throws",
    {
      schema: schemaOf(() => {
        throw new Error("no luck");
      }),
      payload: () => ({}),
    },
    { reason: "schema-refused", error: expect.stringContaining("it threw Error: no luck at build.test.ts:") },
  ],
  [
    "a BigInt",
    { payload: () => ({ id: 1n }) },
    { reason: "not-json", error: expect.stringContaining("JSON: id is a bigint, which JSON does not have; write String(…)") },
  ],
  [
    "a cycle, at no place of ours",
    { payload: () => cycle() },
    { reason: "not-json", error: expect.stringMatching(/circular(?![^]*(?:json|build)\.ts)/) },
  ],
  [
    "undefined behind a schema",
    { schema: schemaOf(() => ({ value: undefined })), payload: () => 1 },
    { reason: "not-json", error: expect.stringContaining("is undefined, expected") },
  ],
  ["a function", { payload: () => () => 1 }, { reason: "not-json", error: expect.stringContaining("is function, expected") }],
  [
    "a thrown error, with its place",
    {
      payload: () => {
        throw new TypeError("no name");
      },
    },
    { reason: "payload-threw", error: expect.stringMatching(/^the payload of Test threw TypeError: no name at build\.test\.ts:\d+:\d+$/) },
  ],
  [
    "a rejected promise",
    { payload: async () => Promise.reject(new RangeError("late")) },
    { reason: "payload-threw", error: expect.stringMatching(/threw RangeError: late at build\.test\.ts:\d+:\d+$/) },
  ],
  [
    "a thrown text",
    {
      payload: () => {
        throw "oops";
      },
    },
    { reason: "payload-threw", error: 'the payload of Test threw string "oops"' },
  ],
  [
    "something thrown that throws when it is looked at",
    {
      payload: () => {
        throw new Proxy(
          {},
          {
            getPrototypeOf: () => {
              throw new Error("hostile");
            },
          },
        );
      },
    },
    { reason: "payload-threw", error: "the payload of Test threw a object that cannot be shown" },
  ],
  [
    "a body over the cap",
    { payload: () => "é".repeat(600) },
    { reason: "payload-too-large", error: "the payload of Test has 1202 bytes, at most 1000 are sent" },
  ],
])("%s is a rejection", async (_, definition, expected) => {
  const event = eventOf({ table: "deal", ...definition });
  const good = eventOf({ table: "deal", payload: () => "good" });
  const results = await buildPayloads([occurrence(event, { id: 1 }), occurrence(good, { id: 2 })], depsOf({ limits: { maxBytes: 1000 } }));
  expect(results[0]).toMatchObject({ kind: "rejected", project: "default", ...expected });
  expect(results[1]).toMatchObject({ kind: "built" });
});

test("a body of as many bytes as the cap is sent", async () => {
  const event = eventOf({ table: "deal", payload: () => "é".repeat(499) });
  expect(await buildPayloads([occurrence(event, {})], depsOf({ limits: { maxBytes: 1000 } }))).toMatchObject([{ kind: "built" }]);
});

test.each([
  [
    "throws",
    () => {
      throw new Error("no company");
    },
    "could not be told: Error: no company",
  ],
  ["is no text", () => 7 as unknown as string, "is 7, expected a text that is not empty"],
  ["is empty", () => "", 'is "", expected a text that is not empty'],
])("a project that %s is a rejection", async (_, projectOf, error) => {
  const event = eventOf({ table: "deal", payload: () => 1 });
  const [result] = await buildPayloads([occurrence(event, {})], depsOf({ projectOf }));
  expect(result).toMatchObject({ kind: "rejected", reason: "project-invalid", error: expect.stringContaining(error), project: undefined });
});

test("an event without a table gets its key and the data that its schema made", async () => {
  const event = eventOf({
    data: z.object({ n: z.coerce.number() }),
    payload: (subject: Row, { data }: PayloadContext) => ({ ...subject, same: data }),
  });
  const inputs = [trigger(event, "a", { n: "5" }), trigger(event, "b", { n: "x" })];
  const [built, refused] = await buildPayloads(inputs, depsOf());
  expect(built).toMatchObject({ kind: "built", json: '{"key":"a","data":{"n":5},"same":{"n":5}}' });
  expect(refused).toMatchObject({
    reason: "data-invalid",
    error: expect.stringContaining('the data given to trigger("Test") was refused: n: '),
  });
});

test("records of explicit triggers are read by one query a table; who has none is rejected", async () => {
  const readers = readersOf({ deal: [{ id: 1 }, { id: 2 }] });
  const event = eventOf({ table: "deal", payload: (record: Row) => record });
  const inputs = [trigger(event, "2"), trigger(event, "9"), trigger(event, "1"), trigger(event, "2")];
  const results = await buildPayloads(inputs, depsOf({ readers }));
  expect(jsonOf(results)).toEqual(['{"id":2}', undefined, '{"id":1}', '{"id":2}']);
  expect(results[1]).toMatchObject({ reason: "record-missing", error: 'deal has no record with the key "9"' });
  expect(readers.queries).toEqual(["deal by key 2,9,1"]);
});

test("a key that the table cannot have is no other record's trouble", async () => {
  const readers = readersOf({ deal: [{ id: 1 }, { id: 2 }] });
  const event = eventOf({ table: "deal", payload: (record: Row) => record });
  const results = await buildPayloads([trigger(event, "1"), trigger(event, "abc"), trigger(event, "2")], depsOf({ readers }));
  expect(jsonOf(results)).toEqual(['{"id":1}', undefined, '{"id":2}']);
  expect(results[1]).toMatchObject({ reason: "record-missing", error: 'deal has no record with the key "abc" (invalid key abc)' });
});

test("a parked event's code is not run", async () => {
  let runs = 0;
  const event = eventOf({ table: "deal", payload: () => ++runs });
  const [result] = await buildPayloads([occurrence(event, {})], depsOf({ isParked: (name) => name === "Test" }));
  expect(result).toMatchObject({ kind: "rejected", reason: "event-parked" });
  expect(runs).toBe(0);
});

test("calls of load become one query a table, in as many rounds as one function has", async () => {
  const readers = readersOf({
    customer: [
      { id: 1, email: "a" },
      { id: 2, email: "b" },
    ],
    deal: [
      { id: 1, customer_id: 1 },
      { id: 2, customer_id: 1 },
    ],
  });
  const event = eventOf({
    table: "deal",
    async payload(record: Row, { load }: PayloadContext) {
      const customer = await load("customer", record["customer_id"]);
      const [same, deals] = await Promise.all([
        load("customer", { email: customer?.["email"] ?? "?" }),
        load.all("deal", { customer_id: customer?.["id"] ?? 0 }),
      ]);
      return [customer?.["email"], same?.["id"], deals.length];
    },
  });
  const inputs = Array.from({ length: 500 }, (_, id) => occurrence(event, { id, customer_id: 1 + (id % 3) }));
  const results = await buildPayloads(inputs, depsOf({ readers }));
  expect(jsonOf(results).slice(0, 4)).toEqual(['["a",1,2]', '["b",2,0]', "[null,null,0]", '["a",1,2]']);
  expect(readers.queries.toSorted()).toEqual([
    "customer by key 1,2,3",
    'customer where {"email":"a"},{"email":"b"},{"email":"?"}',
    'deal where {"customer_id":1},{"customer_id":2},{"customer_id":0}',
  ]);
});

test("a null key is nobody's and asks no query", async () => {
  const readers = readersOf({ customer: [{ id: 1 }] });
  const event = eventOf({
    table: "deal",
    payload: async (_: Row, { load }: PayloadContext) => [await load("customer", null), await load("customer", undefined)].length,
  });
  expect(jsonOf(await buildPayloads([occurrence(event, {})], depsOf({ readers })))).toEqual(["2"]);
  expect(readers.queries).toEqual([]);
});

test.each<[string, (context: PayloadContext) => unknown, string]>([
  ["an unknown table", ({ load }) => load("custmer", 1), 'load("custmer", …): there is no such table. Did you mean "customer"?'],
  [
    "an unknown column",
    ({ load }) => load("customer", { emal: 1 }),
    'load("customer", …): there is no column "emal". Did you mean "email"?',
  ],
  [
    "an undefined value",
    ({ load }) => load.all("customer", { email: undefined }),
    'load("customer", { email: undefined }): expected a value, or null',
  ],
  ["no column", ({ load }) => load.all("customer", {}), 'load("customer", {}): expected at least one column, got none.'],
  [
    "a date for a key",
    ({ load }) => load("customer", new Date(0)),
    'load("customer", key): expected text, a number or a list of them, got [object Date]',
  ],
  [
    "an unknown column in changed",
    ({ changed }) => changed("statsu"),
    'changed("statsu"): deal has no such column. Did you mean "status"?',
  ],
])("%s is the definition's own fault", async (_, call, message) => {
  const event = eventOf({ table: "deal", payload: (_: Row, context: PayloadContext) => call(context) });
  const [result] = await buildPayloads([occurrence(event, {})], depsOf());
  expect(result).toMatchObject({ reason: "payload-threw", error: expect.stringContaining(`ANCRAGE_DEFINITION_INVALID: ${message}`) });
});

test("one look-up that PostgreSQL refuses leaves the others their answers", async () => {
  const readers = readersOf({ customer: [{ id: 1 }, { id: 2 }] });
  const event = eventOf({
    table: "deal",
    payload: async (record: Row, { load }: PayloadContext) => (await load("customer", record["customer_id"]))?.["id"] ?? null,
  });
  const inputs = ["1", "abc", "2", "3"].map((customer_id) => occurrence(event, { customer_id }));
  const results = await buildPayloads(inputs, depsOf({ readers }));
  expect(jsonOf(results)).toEqual(["1", undefined, "2", "null"]);
  expect(results[1]).toMatchObject({ reason: "payload-threw", error: expect.stringContaining("invalid key abc") });
});

test("a fault of the database ends the batch, even where the user's code caught it", async () => {
  const cause = Object.assign(new Error("terminating connection"), { code: "57P01" });
  const readers = { ...readersOf({}), byKeys: async () => Promise.reject(cause) };
  const event = eventOf({
    table: "deal",
    payload: async (_: Row, { load }: PayloadContext) => load("customer", 1).catch(() => "a wrong value"),
  });
  const error = await buildPayloads([occurrence(event, {}), occurrence(event, {})], depsOf({ readers })).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(BatchFault);
  expect(error).toMatchObject({ cause });
});

test("a fault while the records of triggers are read ends the batch, too", async () => {
  const cause = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  const readers = { ...readersOf({}), byKeys: async () => Promise.reject(cause) };
  const event = eventOf({ table: "deal", payload: () => 1 });
  await expect(buildPayloads([trigger(event, "1")], depsOf({ readers }))).rejects.toBeInstanceOf(BatchFault);
});

test("at most as many functions run as there are places, and one that waits for load gives its own up", async () => {
  let running = 0;
  let most = 0;
  const readers = readersOf({ customer: [{ id: 1 }] });
  const event = eventOf({
    table: "deal",
    async payload(_: Row, { load }: PayloadContext) {
      most = Math.max(most, ++running);
      await new Promise((resume) => setImmediate(resume));
      running--;
      await load("customer", 1);
      most = Math.max(most, ++running);
      await new Promise((resume) => setImmediate(resume));
      running--;
      return 1;
    },
  });
  const inputs = Array.from({ length: 50 }, () => occurrence(event, {}));
  expect(jsonOf(await buildPayloads(inputs, depsOf({ readers, limits: { concurrency: 4 } })))).toEqual(inputs.map(() => "1"));
  expect(most).toBe(4);
});

test("a load waits for no function that is slow elsewhere", async () => {
  const slow = Promise.withResolvers<void>();
  const readers = readersOf({ customer: [{ id: 1 }] });
  const event = eventOf({
    table: "deal",
    async payload(record: Row, { load }: PayloadContext) {
      if (record["id"] === 0) await slow.promise;
      else await load("customer", 1);
      // Only the answer of load lets the slow one end.
      slow.resolve();
      return 1;
    },
  });
  const inputs = Array.from({ length: 3 }, (_, id) => occurrence(event, { id }));
  expect(jsonOf(await buildPayloads(inputs, depsOf({ readers, limits: { concurrency: 2 } })))).toEqual(["1", "1", "1"]);
});

test("a function whose time is up is a rejection; its place goes to the next, and its later load is refused", async () => {
  const never = Promise.withResolvers<void>();
  const refusal = Promise.withResolvers<unknown>();
  const readers = readersOf({ customer: [{ id: 1 }] });
  const event = eventOf({
    table: "deal",
    async payload(record: Row, { load }: PayloadContext) {
      if (record["id"] === 1) return "quick";
      await never.promise;
      await load("customer", 1).catch(refusal.resolve);
      return "late";
    },
  });
  const inputs = [occurrence(event, { id: 0 }), occurrence(event, { id: 1 })];
  const [late, quick] = await buildPayloads(inputs, depsOf({ readers, limits: { concurrency: 1, timeoutMs: 20 } }));
  expect(late).toMatchObject({
    reason: "payload-timeout",
    error: expect.stringMatching(/was not there after 20 ms .*payload\.timeoutMs allows more/),
  });
  expect(quick).toMatchObject({ kind: "built", json: '"quick"' });
  never.resolve();
  expect(await refusal.promise).toMatchObject({ message: expect.stringContaining("had already returned or timed out") });
  expect(readers.queries).toEqual([]);
});

test("time that a function waits for load is not its own", async () => {
  const slowTurns = 12;
  const answer = Promise.withResolvers<void>();
  const readers = { ...readersOf({}), byKeys: async () => answer.promise.then(() => new Map([["1", { id: 1 }]])) };
  let sweeps = 0;
  const other = eventOf({ name: "Other", table: "deal", payload: async () => new Promise(() => undefined) });
  const event = eventOf({ table: "deal", payload: async (_: Row, { load }: PayloadContext) => load("customer", 1) });
  const built = buildPayloads([occurrence(event, {}), occurrence(other, {})], depsOf({ readers, limits: { timeoutMs: 10 } }));
  // The other one's rejection needs a sweep past the deadline; the answer comes well after that.
  const timer = setInterval(() => {
    if (++sweeps < slowTurns) return;
    clearInterval(timer);
    answer.resolve();
  }, 5);
  const results = await built;
  expect(results).toMatchObject([{ kind: "built" }, { reason: "payload-timeout" }]);
});

test("nor is it while one of two reads that it began together is out", async () => {
  const slow = readersOf({ customer: [{ id: 1, name: "A" }], deal: [{ id: 1 }] });
  const event = eventOf({
    payload: async (_: Row, { load }: PayloadContext) => {
      const [one, other] = await Promise.all([load("customer", 1), load("deal", 1)]);
      return { customer: one?.["name"], deal: other?.["id"] };
    },
  });
  const inputs = [occurrence(event, { id: 1 })];
  const readers: RecordReaders = {
    ...slow,
    byKeys: async (table, keys) => {
      if (table.name === "deal") await new Promise((resolve) => setTimeout(resolve, 150));
      return slow.byKeys(table, keys);
    },
  };
  const results = await buildPayloads(inputs, { ...depsOf({ readers }), limits: { timeoutMs: 50 } });
  expect(jsonOf(results)).toEqual(['{"customer":"A","deal":1}']);
});

test.each<[string, Parameters<typeof eventOf>[0]]>([
  ["a schema that answers nothing", { schema: schemaOf(() => undefined as never), payload: () => ({}) }],
  [
    "a schema whose answer comes later, and is nothing",
    { schema: schemaOf(() => Promise.resolve(undefined as never)), payload: () => ({}) },
  ],
  ["issues that are no list", { schema: schemaOf(() => ({ issues: true as never })), payload: () => ({}) }],
  [
    "what throws when it is looked at",
    {
      // Reading anything of it throws.
      payload: () => {
        const { proxy, revoke } = Proxy.revocable({}, {});
        revoke();
        return proxy;
      },
    },
  ],
])("%s is a rejection of this occurrence alone", async (_, given) => {
  const results = await buildPayloads(
    [occurrence(eventOf(given), { id: 1 }), occurrence(eventOf({ payload: () => 1 }), { id: 2 })],
    depsOf({}),
  );
  expect(results).toMatchObject([
    { kind: "rejected", reason: "payload-threw" },
    { kind: "built", json: "1" },
  ]);
});

test("loaded records are frozen: one function's change would reach the others", async () => {
  const readers = readersOf({ customer: [{ id: 1, name: "a" }] });
  const event = eventOf({
    table: "deal",
    async payload(_: Row, { load }: PayloadContext) {
      const customer = (await load("customer", 1)) as { name: string };
      customer.name = "b";
    },
  });
  const [result] = await buildPayloads([occurrence(event, {})], depsOf({ readers }));
  expect(result).toMatchObject({ reason: "payload-threw", error: expect.stringContaining("read only property 'name'") });
});

test("a load that nobody awaits neither ends the process nor the batch", async () => {
  const event = eventOf({
    table: "deal",
    payload(_: Row, { load }: PayloadContext) {
      void load("custmer", 1);
      return 1;
    },
  });
  expect(jsonOf(await buildPayloads([occurrence(event, {})], depsOf()))).toEqual(["1"]);
});

test("changed compares old and new values, Buffers and JSON by their content", async () => {
  const event = eventOf({
    table: "deal",
    payload: (_: Row, { changed }: PayloadContext) => ["status", "customer_id"].map((column) => changed(column)),
  });
  const update = {
    ...occurrence(event, { status: { a: [1] }, customer_id: Buffer.from("b") }),
    action: "update" as const,
    before: { status: { a: [1] }, customer_id: Buffer.from("a") },
  };
  const results = await buildPayloads(
    [update, occurrence(event, {}), { ...occurrence(event, {}), action: undefined }, { ...update, before: undefined }],
    depsOf(),
  );
  expect(jsonOf(results).slice(0, 3)).toEqual(["[false,true]", "[true,true]", "[false,false]"]);
  expect(results[3]).toMatchObject({ reason: "payload-threw", error: expect.stringContaining("ANCRAGE_COLUMN_NOT_LOGGED") });
});

function tableInfo(name: string, columns: readonly string[]): TableInfo {
  return {
    oid: 1,
    schema: "public",
    table: name,
    name,
    columns: columns.map((name) => ({
      name,
      typeOid: 25,
      typeName: "text",
      castType: "pg_catalog.text",
      isNullable: true,
      isGenerated: false,
    })),
    keyColumns: ["id"],
    replicaIdentity: "f",
    isPartitioned: false,
  };
}

function eventOf({
  name = "Test",
  ...definition
}: { name?: string } & Omit<Partial<EventDefinition>, "payload"> & {
    payload?: (record: never, context: never) => unknown;
  }): CatalogueEvent {
  return {
    name,
    file: "events/Test.ts",
    definition: { kind: "event", payload: () => undefined, ...definition },
    table: definition.table === "deal" ? deal : undefined,
    rules: [{ kind: "insert" }],
    jsonSchema: undefined,
  };
}

function occurrence(event: CatalogueEvent, record: Row): PayloadInput {
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

function trigger(event: CatalogueEvent, key: string, data?: unknown): PayloadInput {
  return { event, key, reason: "trigger", action: undefined, before: undefined, record: undefined, data, actor: undefined };
}

function depsOf({
  readers = readersOf({}),
  projectOf = () => "default",
  ...rest
}: { readers?: RecordReaders; projectOf?: () => string } & Partial<PayloadDeps> = {}): PayloadDeps {
  return {
    catalogue: {
      allTables: new Map([
        ["deal", deal],
        ["customer", customer],
      ]),
      projectOf,
    },
    readers,
    sql: () => Promise.reject(new Error("no sql here")),
    ...rest,
  };
}

/** Records in memory that refuse `abc` as PostgreSQL refuses it for a number, and note what was asked. */
function readersOf(rows: Readonly<Record<string, readonly Row[]>>): RecordReaders & { readonly queries: string[] } {
  const queries: string[] = [];
  return {
    queries,
    async byKeys(table, keys) {
      if (keys.includes("abc")) throw Object.assign(new Error("invalid key abc"), { code: "22P02" });
      queries.push(`${table.name} by key ${keys.join(",")}`);
      return Promise.resolve(new Map((rows[table.name] ?? []).map((row) => [String(row["id"]), row])));
    },
    async where(table, conditions) {
      queries.push(`${table.name} where ${conditions.map((condition) => JSON.stringify(condition)).join(",")}`);
      const meets = (row: Row, condition: Row): boolean => Object.entries(condition).every(([column, value]) => row[column] === value);
      return Promise.resolve(conditions.map((condition) => (rows[table.name] ?? []).filter((row) => meets(row, condition))));
    },
  };
}

function jsonOf(results: Awaited<ReturnType<typeof buildPayloads>>): (string | undefined)[] {
  return results.map((result) => (result.kind === "built" ? result.json : undefined));
}

function schemaOf(validate: StandardSchemaV1["~standard"]["validate"]): StandardSchemaV1 {
  return { "~standard": { version: 1, vendor: "test", validate } };
}

function cycle(): object {
  const value: { self?: object } = {};
  value.self = value;
  return value;
}
