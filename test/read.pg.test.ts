import fc from "fast-check";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { connectClient, createPool } from "../src/store/database.ts";
import { checkCondition, isPossible, readByKeys, readNewest, readWhere, type Reader } from "../src/store/read.ts";
import { readTables, type TableInfo } from "../src/store/tables.ts";
import { readTypes, type ValueTypes } from "../src/store/types.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

let database: TestDatabase;
let client: pg.Client;
let types: ValueTypes;
let tables: ReadonlyMap<string, TableInfo>;
let queries: pg.QueryArrayConfig<unknown[]>[] = [];

/** The pinned session, with what it was asked. */
const db: Reader = {
  query(query) {
    queries.push(query);
    return client.query(query);
  },
};

const tableOf = (name: string): TableInfo => {
  const table = tables.get(name);
  if (table === undefined) throw new Error(`no table ${name}`);
  return table;
};

beforeAll(async () => {
  database = await cloneDatabase();
  client = await connectClient({ connectionString: database.url, applicationName: "read" });
  await client.query(`
    create schema "Sal""es";
    create domain small as int4 check (value < 100);
    create table customer (id int4 primary key, email text, country text, born date);
    create index on customer (email);
    insert into customer
      select n, 'c' || n || '@example.com', case when n % 2 = 0 then 'FR' end, date '2000-01-01' + n from generate_series(5000, 1, -1) n;
    create table "Sal""es"."Li""ne" ("the order" int8, "select" text, "data" jsonb, primary key ("the order", "select"));
    insert into "Sal""es"."Li""ne" values (1, 'a', '{"x": 1}'), (1, 'b', '["x"]'), (2, 'a', null);
    create table short (code varchar(3) primary key);
    insert into short values ('abc');
    create table padded (code char(5) primary key);
    insert into padded values ('ab');
    create table holiday (day date primary key);
    insert into holiday values ('2026-12-25'), ('2027-01-01');
    create table limited (id small primary key);
    insert into limited values (7);
    create table tagged (id int4 primary key, tags text[], body json);
    insert into tagged values (1, '{a,b}', '{}'), (2, '{b}', null);
    create table note (body text, created_at timestamptz);
    create table event (id int4 primary key, created_at timestamptz, rank int4 not null);
    create index on event (created_at);
    insert into event values (1, '2026-01-01', 3), (2, '2026-01-03', 1), (3, '2026-01-02', 2), (4, '2026-01-03', 4), (5, null, 5);
    analyze`);
  types = await readTypes(client);
  tables = new Map((await readTables(client)).map((table) => [table.name, table]));
});
afterAll(async () => {
  await client.end();
  await database.remove();
});
beforeEach(() => {
  queries = [];
});

describe("by key", () => {
  test("many keys are one query, and its index serves it", async () => {
    const found = await readByKeys(db, tableOf("customer"), ["7", "5001", "42", "7"], { types });
    expect([...found.keys()]).toEqual(["7", "42"]);
    expect(found.get("42")).toEqual({ key: "42", row: { id: 42, email: "c42@example.com", country: "FR", born: "2000-02-12" } });
    expect(Object.keys(found.get("42")?.row ?? {})).toEqual(["id", "email", "country", "born"]);
    expect(queries).toHaveLength(1);
    expect(await planOf(queries[0]!)).toContain("customer_pkey");
  });

  test("nothing to look for is no query", async () => {
    expect(await readByKeys(db, tableOf("customer"), [], { types })).toEqual(new Map());
    expect(await readByKeys(db, tableOf("customer"), ["abc", "99999999999", "1.5", "", "1\0"], { types })).toEqual(new Map());
    expect(await readByKeys(db, tableOf("short"), ["a\0"], { types })).toEqual(new Map());
    expect(queries).toEqual([]);
  });

  test("a key in another spelling finds its record under both", async () => {
    const found = await readByKeys(db, tableOf("customer"), ["042", "+42", "42"], { types });
    expect([...found].map(([asked, { key }]) => [asked, key])).toEqual([["042", "42"], ["+42", "42"], ["42", "42"]]); // prettier-ignore
  });

  test("composite keys and names that need quotes", async () => {
    const found = await readByKeys(db, tableOf('Sal"es.Li"ne'), ['["1","b"]', '["2","b"]', '["x","a"]', "1", '["1"]'], { types });
    expect([...found]).toEqual([['["1","b"]', { key: '["1","b"]', row: { "the order": "1", select: "b", data: ["x"] } }]]);
  });

  test("a key that its type cannot have fails no other", async () => {
    const found = await readByKeys(db, tableOf("holiday"), ["2026-02-30", "2026-12-25", "abc", "", "2027-01-01", "a\0b"], { types });
    expect([...found.keys()]).toEqual(["2026-12-25", "2027-01-01"]);
  });

  test("a key longer than the column is not cut to another record's", async () => {
    expect([...(await readByKeys(db, tableOf("short"), ["abcd", "abc"], { types })).keys()]).toEqual(["abc"]);
  });

  test("the key of a padded column is the log's, with its blanks", async () => {
    const found = await readByKeys(db, tableOf("padded"), ["ab"], { types });
    expect(found.get("ab")).toEqual({ key: "ab   ", row: { code: "ab   " } });
  });

  test("a value that a domain forbids is only not found", async () => {
    expect([...(await readByKeys(db, tableOf("limited"), ["7", "1000"], { types })).keys()]).toEqual(["7"]);
  });

  test("a table without a primary key has no records by key", async () => {
    expect(await readByKeys(db, tableOf("note"), ["1"], { types })).toEqual(new Map());
  });

  test("a record that cannot be read is an error, not a record that is missing", async () => {
    await client.query(`
      create table fragile (id int4 primary key, divisor int4);
      insert into fragile values (1, 5), (2, 0);
      alter table fragile enable row level security, force row level security;
      create policy divides on fragile using (10 / divisor = 2);
      create role ${database.name}_divider;
      grant select on fragile to ${database.name}_divider;
      set role ${database.name}_divider`);
    try {
      const fragile = (await readTables(client)).find(({ name }) => name === "fragile")!;
      expect((await readByKeys(db, fragile, ["1"], { types })).get("1")?.row).toEqual({ id: 1, divisor: 5 });
      await expect(readByKeys(db, fragile, ["1", "2"], { types })).rejects.toMatchObject({ code: "22012" });
    } finally {
      await client.query(`reset role; drop table fragile; drop role ${database.name}_divider`);
    }
  });
});

describe("by conditions", () => {
  test("conditions over the same columns are one query, whatever the order of their columns, and its index serves it", async () => {
    const found = await readWhere(
      db,
      tableOf("customer"),
      [
        { email: "c2@example.com", country: "FR" },
        { country: "FR", email: "nobody@example.com" },
        { country: "FR", email: "c4@example.com" },
        { email: "c2@example.com", country: "FR" },
      ],
      { types },
    );
    expect(found.map((records) => records.map(({ key }) => key))).toEqual([["2"], [], ["4"], ["2"]]);
    expect(queries).toHaveLength(1);
    expect(await planOf(queries[0]!)).toContain("customer_email_idx");
  });

  test("records come by primary key", async () => {
    const [found] = await readWhere(db, tableOf("customer"), [{ country: "FR" }], { types });
    expect(found?.map(({ row }) => row["id"])).toEqual(Array.from({ length: 2500 }, (_, index) => 2 * index + 2));
  });

  test("null asks for NULL, beside values and alone", async () => {
    const table = tableOf("customer");
    const [both, alone, value] = await readWhere(
      db,
      table,
      [{ email: "c3@example.com", country: null }, { country: null }, { email: "c3@example.com", country: "FR" }],
      { types },
    );
    expect(both?.map(({ key }) => key)).toEqual(["3"]);
    expect(alone).toHaveLength(2500);
    expect(value).toEqual([]);
  });

  test("numbers, dates and JSON compare as the column's type", async () => {
    const [byNumber, byText] = await readWhere(db, tableOf("customer"), [{ id: 42 }, { id: "42" }], { types });
    expect(byNumber).toEqual(byText);
    expect(byNumber).toHaveLength(1);
    const [byDate] = await readWhere(db, tableOf("customer"), [{ born: new Date("2000-02-12T00:00:00Z") }], { types });
    expect(byDate?.map(({ key }) => key)).toEqual(["42"]);
    const found = await readWhere(db, tableOf('Sal"es.Li"ne'), [{ data: { x: 1 } }, { data: ["x"] }, { data: "x" }], { types });
    expect(found.map((records) => records.map(({ key }) => key))).toEqual([['["1","a"]'], ['["1","b"]'], []]);
  });

  test("an array is compared with an array, and JSON without equality is refused", async () => {
    const table = tableOf("tagged");
    const found = await readWhere(db, table, [{ tags: ["b"] }, { tags: ["a", "b"] }, { tags: [] }, { body: null }], { types });
    expect(found.map((records) => records.map(({ key }) => key))).toEqual([["2"], ["1"], [], ["2"]]);
    expect(() => checkCondition(table, { body: {} })).toThrow('a value for "body", whose type json has no "=", expected another column');
  });

  test("a value that its type cannot have fails no other", async () => {
    const conditions = [{ born: "yesterday's" }, { born: "2000-02-12" }, { born: "2000-02-31" }, { born: "2000-02-13" }];
    const found = await readWhere(db, tableOf("customer"), conditions, { types });
    expect(found.map((records) => records.map(({ key }) => key))).toEqual([[], ["42"], [], ["43"]]);
  });

  test.each([
    [{}, "at least one column"],
    [{ email: undefined }, 'undefined for "email"'],
    [{ mail: "x" }, 'the column "mail", expected one of id, email, country, born'],
    [{ id: [1, 2] }, '[ 1, 2 ] for "id", expected one value of the type integer'],
    [{ email: { like: "%" } }, `{ like: '%' } for "email", expected one value of the type text`],
    [{ email: Symbol("x") }, "expected a value that a column can have, got Symbol(x)"],
  ])("%o is refused before anything is asked", async (condition, message) => {
    expect(() => checkCondition(tableOf("customer"), condition)).toThrow(message);
    await expect(readWhere(db, tableOf("customer"), [condition], { types })).rejects.toThrow(message);
    expect(queries).toEqual([]);
  });
});

describe("newest", () => {
  const keys = async (options: { orderColumn?: string; limit: number; offset?: number }): Promise<readonly string[]> => {
    const records = await readNewest(db, tableOf("event"), { types, ...options });
    return records.map(({ key }) => key);
  };

  test("by created_at where no column is given, then by key, a page at a time; without those that have none", async () => {
    expect(await keys({ limit: 10 })).toEqual(["4", "2", "3", "1"]);
    expect(await keys({ limit: 2 })).toEqual(["4", "2"]);
    expect(await keys({ limit: 2, offset: 2 })).toEqual(["3", "1"]);
    expect(await keys({ limit: 2, offset: 4 })).toEqual([]);
  });

  test("by the column that is given", async () => {
    expect(await keys({ orderColumn: "rank", limit: 3 })).toEqual(["5", "4", "1"]);
    await expect(keys({ orderColumn: "ranking", limit: 3 })).rejects.toThrow('the column "ranking", expected one of id, created_at, rank');
  });

  test("by key where no record has the column, or the table has none", async () => {
    await client.query("create table legacy (id int4 primary key, created_at timestamptz); insert into legacy values (1), (2)");
    const legacy = (await readTables(client)).find(({ name }) => name === "legacy")!;
    expect((await readNewest(db, legacy, { types, limit: 5 })).map(({ key }) => key)).toEqual(["2", "1"]);
    expect((await readNewest(db, tableOf("customer"), { types, limit: 2 })).map(({ key }) => key)).toEqual(["5000", "4999"]);
  });

  test("without a key too", async () => {
    await client.query("insert into note values ('a', '2026-01-01'), ('b', '2026-01-02')");
    expect(await readNewest(db, tableOf("note"), { types, limit: 1 })).toEqual([
      { key: "", row: { body: "b", created_at: "2026-01-02T00:00:00.000000Z" } },
    ]);
  });

  test("two seconds end it, and the session is as it was", async () => {
    // The policy's own sleep is what is waited for, never the test's clock.
    await client.query(`
      create function slow() returns int4 language sql volatile as $$ select 1 from pg_sleep(600) $$;
      create table slow_event (id int4 primary key);
      insert into slow_event values (1);
      alter table slow_event enable row level security;
      create policy slow on slow_event using (slow() = 1);
      alter table slow_event force row level security;
      create role ${database.name}_reader;
      grant select on slow_event to ${database.name}_reader;
      set role ${database.name}_reader`);
    try {
      const table = (await readTables(client)).find(({ name }) => name === "slow_event")!;
      await expect(readNewest(db, table, { types, limit: 1 })).rejects.toMatchObject({ code: "57014" });
      const { rows } = await client.query("select current_setting('statement_timeout') as timeout, current_user as role");
      expect(rows).toEqual([{ timeout: "0", role: `${database.name}_reader` }]);
    } finally {
      await client.query(`reset role; drop table slow_event; drop role ${database.name}_reader`);
    }
  });

  test("a pool serves as well as a session, and keeps its own statement timeout", async () => {
    const pool = createPool({
      connectionString: database.url,
      applicationName: "newest",
      size: 1,
      settings: { statement_timeout: "30s" },
      onIdleError: () => undefined,
    });
    try {
      expect((await readNewest(pool, tableOf("event"), { types, limit: 1 })).map(({ key }) => key)).toEqual(["4"]);
      expect([...(await readByKeys(pool, tableOf("event"), ["4"], { types })).keys()]).toEqual(["4"]);
      expect((await pool.query("show statement_timeout")).rows).toEqual([{ statement_timeout: "30s" }]);
    } finally {
      await pool.end();
    }
  });

  test.each([-1, 1.5, Number.NaN])("a limit of %d is refused", async (limit) => {
    await expect(keys({ limit })).rejects.toThrow(`from 0 on, got ${limit}`);
  });
});

test.each(["int2", "int4", "int8", "uuid"])(
  "what is impossible as %s is so for PostgreSQL, and what it writes is possible",
  async (type) => {
    const borders = [15n, 31n, 63n].flatMap((bits) => [2n ** bits, -(2n ** bits)]);
    const nearBorder = fc.tuple(fc.constantFrom(0n, ...borders), fc.bigInt(-2n, 2n)).map(([border, step]) => String(border + step));
    const text = fc.oneof(
      nearBorder,
      fc.uuid(),
      fc.string({ unit: fc.constantFrom("0", "1", "9", "-", "+", "a", "f", "{", "}"), maxLength: 8 }),
    );
    // `pg_input_is_valid` would say it, from PostgreSQL 16 on.
    await client.query(`
      create or replace function written(value text) returns text language plpgsql as $$
      begin
        return value::${type}::text;
      exception when data_exception then
        return null;
      end $$`);
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 20, maxLength: 20 }), async (texts) => {
        const { rows } = await client.query<{ text: string; written: string | null }>(
          `select text, written(text) from unnest($1::text[]) text`,
          [texts],
        );
        const castType = `pg_catalog.${type}`;
        expect(rows.filter(({ text, written }) => written !== null && !isPossible(castType, text))).toEqual([]);
        expect(rows.filter(({ written }) => written !== null && !isPossible(castType, written))).toEqual([]);
      }),
    );
  },
);

async function planOf(query: pg.QueryArrayConfig<unknown[]>): Promise<string> {
  const { rows } = await client.query({ text: `explain ${query.text}`, values: query.values ?? [] });
  return rows.map((row) => row["QUERY PLAN"]).join("\n");
}
