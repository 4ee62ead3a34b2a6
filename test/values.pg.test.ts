import fc from "fast-check";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connectClient } from "../src/store/database.ts";
import { readByKeys, readWhere } from "../src/store/read.ts";
import { readTables, type TableInfo } from "../src/store/tables.ts";
import { formatArray, parseArray, readTypes, type ValueTypes } from "../src/store/types.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { trickyTexts } from "./tricky-texts.ts";

interface Expectation {
  readonly type: string;
  /** As SQL, in a pinned session. */
  readonly sql: string;
  readonly value: unknown;
  readonly tsType: string;
}

const expectation = (type: string, sql: string, value: unknown, tsType = "string"): Expectation => ({ type, sql, value, tsType });

/** The table of values that `types.ts` documents, row by row. */
const expectations: readonly Expectation[] = [
  expectation("int2", "-32768", -32_768, "number"),
  expectation("int4", "2147483647", 2_147_483_647, "number"),
  expectation("oid", "4294967295", 4_294_967_295, "number"),
  expectation("int8", "9223372036854775807", "9223372036854775807"),
  expectation("numeric", "'12345678901234567890.10'", "12345678901234567890.10"),
  expectation("numeric(10,2)", "1.5", "1.50"),
  expectation("numeric", "'NaN'", "NaN"),
  expectation("money", "'1234.5'", "$1,234.50"),
  expectation("float4", "0.1", 0.1, "number"),
  expectation("float8", "0.1::float8 + 0.2::float8", 0.300_000_000_000_000_04, "number"),
  expectation("float8", "1e300", 1e300, "number"),
  expectation("float8", "'NaN'", "NaN", "number"),
  expectation("float8", "'Infinity'", "Infinity", "number"),
  expectation("float4", "'-Infinity'", "-Infinity", "number"),
  expectation("bool", "true", true, "boolean"),
  expectation("bool", "false", false, "boolean"),
  expectation("json", `'{"a": [1, null], "b": "\\u00e9"}'`, { a: [1, null], b: "é" }, "unknown"),
  expectation("jsonb", `'{"a": {"b": 1.50}}'`, { a: { b: 1.5 } }, "unknown"),
  expectation("jsonb", `'null'`, null, "unknown"),
  expectation("jsonb", `'"text"'`, "text", "unknown"),
  expectation("bytea", String.raw`'\x00ff5c27'`, Buffer.from([0, 255, 0x5c, 0x27]), "Buffer"),
  expectation("bytea", "''", Buffer.alloc(0), "Buffer"),
  expectation("date", "'2023-10-31'", "2023-10-31"),
  expectation("date", "'0044-03-15 BC'", "0044-03-15 BC"),
  expectation("date", "'infinity'", "infinity"),
  expectation("time", "'01:02:03.000450'", "01:02:03.00045"),
  expectation("timetz", "'01:02:03+05:30'", "01:02:03+05:30"),
  expectation("timestamp", "'2023-10-31 01:02:03.123456'", "2023-10-31 01:02:03.123456"),
  expectation("timestamp", "'-infinity'", "-infinity"),
  expectation("timestamptz", "'2023-10-31 05:30:00.123456+05:30'", "2023-10-31T00:00:00.123456Z"),
  expectation("timestamptz", "'2023-10-31 00:00:00+00'", "2023-10-31T00:00:00.000000Z"),
  expectation("timestamptz(3)", "'2023-10-31 00:00:00.1236+00'", "2023-10-31T00:00:00.124000Z"),
  expectation("timestamptz", "'0044-03-15 12:00:00+00 BC'", "-000043-03-15T12:00:00.000000Z"),
  expectation("timestamptz", "'12345-01-01 00:00:00+00'", "+012345-01-01T00:00:00.000000Z"),
  expectation("timestamptz", "'infinity'", "infinity"),
  expectation("interval", "'1 year 2 mons 3 days 04:05:06.789'", "1 year 2 mons 3 days 04:05:06.789"),
  expectation("interval", "'-1 day +02:03'", "-1 days +02:03:00"),
  expectation("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
  expectation("text", "E'a\\n\"\\\\\u{1d11e}'", 'a\n"\\𝄞'),
  expectation("text", "''", ""),
  expectation("varchar(5)", "'abc'", "abc"),
  expectation("char(5)", "'ab'", "ab   "),
  expectation(`"char"`, "'x'", "x"),
  expectation("name", "'deal'", "deal"),
  expectation("inet", "'192.168.0.1/24'", "192.168.0.1/24"),
  expectation("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
  expectation("macaddr", "'08-00-2b-01-02-03'", "08:00:2b:01:02:03"),
  expectation("bit(3)", "B'101'", "101"),
  expectation("varbit", "B'1'", "1"),
  expectation("xml", "'<a>1</a>'", "<a>1</a>"),
  expectation("point", "'(1,2.5)'", "(1,2.5)"),
  expectation("tsvector", "'a:1 b:2'", "'a':1 'b':2"),
  expectation("pg_lsn", "'0/16B3748'", "0/16B3748"),
  expectation("int2vector", "'1 2'", "1 2"),
  expectation("int4range", "'[1,5)'", "[1,5)"),
  expectation("tstzrange", "'[2023-10-31 00:00+00,)'", '["2023-10-31 00:00:00+00",)'),
  expectation("int4[]", "'{1,NULL,3}'", [1, null, 3], "number[]"),
  expectation("int4[]", "'[0:1]={1,2}'", [1, 2], "number[]"),
  expectation("int4[]", "'{{1,2},{3,4}}'", [[1, 2], [3, 4]], "number[]"), // prettier-ignore
  expectation("int4[]", "'{}'", [], "number[]"),
  expectation("int8[]", "'{9223372036854775807}'", ["9223372036854775807"], "string[]"),
  expectation(
    "text[]",
    `array['a"b', 'c\\d', '{e}', 'f,g', '', 'NULL', null]`,
    ['a"b', "c\\d", "{e}", "f,g", "", "NULL", null],
    "string[]",
  ),
  expectation("bool[]", "'{t,f}'", [true, false], "boolean[]"),
  expectation("bytea[]", String.raw`array['\x00ff'::bytea]`, [Buffer.from([0, 255])], "Buffer[]"),
  expectation("jsonb[]", `array['{"a": "b,c"}'::jsonb, '1']`, [{ a: "b,c" }, 1], "unknown[]"),
  expectation("timestamptz[]", "array['2023-10-31 00:00+00'::timestamptz]", ["2023-10-31T00:00:00.000000Z"], "string[]"),
  expectation("interval[]", "array['1 day'::interval]", ["1 day"], "string[]"),
  expectation("box[]", "'{(2,2),(1,1);(4,4),(3,3)}'", ["(2,2),(1,1)", "(4,4),(3,3)"], "string[]"),
  expectation("mood", "'so ''so'''", "so 'so'", `"glad" | "so 'so'"`),
  expectation("mood[]", "array['glad', null]::mood[]", ["glad", null], `("glad" | "so 'so'")[]`),
  expectation("positive", "7", 7, "number"),
  expectation("positive[]", "array[7]::positive[]", [7], "number[]"),
  expectation("small_positive", "7", 7, "number"),
  expectation("moment", "'2023-10-31 05:30+05:30'", "2023-10-31T00:00:00.000000Z"),
  expectation("numbers", "'{1,2}'", [1, 2], "number[]"),
  expectation("address", "row('a, b', 7)", '("a, b",7)'),
  expectation("address[]", "array[row('a', 7)::address]", ["(a,7)"], "string[]"),
  expectation("text", "null", null),
];

const userTypes = `
  create type mood as enum ('glad', 'so ''so''');
  create domain positive as int4 check (value > 0);
  create domain small_positive as positive check (value < 10);
  create domain moment as timestamptz;
  create domain numbers as int4[];
  create type address as (street text, number int4);`;

const hostileSettings: Readonly<Record<string, string>> = {
  datestyle: "SQL, DMY",
  timezone: "Asia/Kolkata",
  intervalstyle: "iso_8601",
  extra_float_digits: "-5",
  bytea_output: "escape",
};

describe.each([
  ["a database with PostgreSQL's settings", {}],
  ["a database with settings that write values in other ways", hostileSettings],
])("in %s", (_, settings) => {
  let database: TestDatabase;
  let client: pg.Client;
  let types: ValueTypes;
  let table: TableInfo;

  beforeAll(async () => {
    database = await cloneDatabase();
    for (const [name, value] of Object.entries(settings)) {
      await database.client.query(`alter database ${database.name} set ${name} = '${value}'`);
    }
    // An unpinned session does read other texts; else the second run would prove nothing.
    const unpinned = await database.connect();
    for (const [name, value] of Object.entries(settings)) {
      const { rows } = await unpinned.query(`select current_setting($1) as value`, [name]);
      expect(rows[0].value).toBe(value);
    }
    client = await connectClient({ connectionString: database.url, applicationName: "values", settings: { lc_monetary: "C" } });
    await client.query(userTypes);
    await client.query(
      `create table samples (id int4 primary key, ${expectations.map(({ type }, index) => `c${index} ${type}`).join(", ")})`,
    );
    await client.query(`insert into samples values (1, ${expectations.map(({ sql }) => sql).join(", ")})`);
    types = await readTypes(client);
    const tables = await readTables(client);
    table = tables.find(({ name }) => name === "samples")!;
  });

  afterAll(async () => {
    await client.end();
    await database.remove();
  });

  test.each(expectations.map((expected, index) => ({ ...expected, column: `c${index}` })))(
    "$type $sql",
    async ({ column: name, value, tsType }) => {
      const column = table.columns.find((column) => column.name === name)!;
      const raw = await client.query({
        text: `select ${name} from samples`,
        types: { getTypeParser: () => (text: unknown) => text },
      });
      const text = raw.rows[0][name];
      const parse = types.parser(column.typeOid);
      const asInTheLog = text === null || parse === undefined ? text : parse(text);
      const byKey = await readByKeys(client, table, ["1"], { types });
      const byPg = await client.query({ text: `select ${name} from samples`, types: types.pgTypes() });
      expect(asInTheLog).toStrictEqual(value);
      expect(byKey.get("1")?.row[name]).toStrictEqual(value);
      expect(byPg.rows[0][name]).toStrictEqual(value);
      expect(types.has(column.typeOid)).toBe(true);
      expect(types.tsType(column.typeOid)).toBe(tsType);
    },
  );

  /** No look-up: types without equality, years that only ISO writes so, `null` (it asks for NULL), and bounds, which JavaScript lacks. */
  const comparable = expectations
    .map((expected, index) => ({ ...expected, column: `c${index}` }))
    .filter(({ type, sql, value }) => {
      if (["json", "xml", "point", "box[]"].includes(type) || value === null || sql.includes("[0:1]")) return false;
      return typeof value !== "string" || !/^[-+]\d{6}-/.test(value);
    });

  test.each(comparable)("a value that was read finds its record: $type $sql", async ({ column, value }) => {
    const [found] = await readWhere(client, table, [{ [column]: value }], { types });
    expect(found?.map(({ key }) => key)).toEqual(["1"]);
  });
});

describe("arrays of PostgreSQL", () => {
  let database: TestDatabase;
  beforeAll(async () => (database = await cloneDatabase()));
  afterAll(() => database.remove());

  test("what is formatted is what PostgreSQL reads, and what PostgreSQL writes is what is parsed", async () => {
    // A lone surrogate has no UTF-8, and PostgreSQL's texts hold no NUL.
    const element = fc.option(trickyTexts.filter((text) => text.isWellFormed() && !text.includes("\0")));
    const level1 = fc.array(element, { minLength: 1, maxLength: 4 });
    const level2 = fc.integer({ min: 1, max: 3 }).chain((width) => {
      return fc.array(fc.array(element, { minLength: width, maxLength: width }), { minLength: 1, maxLength: 3 });
    });
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.constant([]), level1, level2), async (values) => {
        const { rows } = await database.client.query<{ text: string; json: unknown }>(
          `select $1::text[]::text as text, to_json($1::text[]) as json`,
          [formatArray(values)],
        );
        expect(rows[0]?.json).toEqual(values);
        expect(parseArray(rows[0]?.text ?? "")).toEqual(values);
      }),
      { numRuns: 200 },
    );
  });
});
