import { inspect } from "node:util";
import type pg from "pg";
import type { Value } from "../capture/change.ts";
import { AncrageError } from "../errors.ts";

/**
 * The one table of values: PostgreSQL's text → JavaScript → TypeScript, the same for the log, `load`, `sql` and samples.
 *
 * | PostgreSQL | JavaScript | note |
 * | --- | --- | --- |
 * | `int2 int4 oid` | number | |
 * | `float4 float8` | number | `NaN`, `Infinity` and `-Infinity` stay text: JSON would turn them into `null` without a word |
 * | `int8 numeric money` | string | a number would lose digits |
 * | `bool` | boolean | |
 * | `json jsonb` | parsed | its numbers have the precision of JavaScript's |
 * | `bytea` | Buffer | |
 * | `timestamptz` | `2023-10-31T00:00:00.123456Z` | see `parseTimestamptz` |
 * | `date time timetz timestamp interval` | PostgreSQL's text | `2023-10-31 00:00:00.123456`, `1 day 02:03:04` |
 * | arrays | array | nested as in PostgreSQL, `null` for NULL, always from index 0 |
 * | enums | string | typed as the union of its labels |
 * | domains | as their base type | |
 * | all else (`text uuid inet xml`, ranges, composites, extensions' types) | PostgreSQL's text | `char(n)` keeps its blanks, as in the log |
 *
 * The texts are those of a pinned session (`database.ts`). A text that such a session cannot write is an error here, never a guess.
 */
const builtInTypes: ReadonlyMap<number, ValueType> = new Map([
  [16, { tsType: "boolean", parse: parseBoolean }],
  [17, { tsType: "Buffer", parse: parseBytea }],
  [21, { tsType: "number", parse: Number }],
  [23, { tsType: "number", parse: Number }],
  [26, { tsType: "number", parse: Number }],
  [114, { tsType: "unknown", parse: JSON.parse }],
  [700, { tsType: "number", parse: parseFloatText }],
  [701, { tsType: "number", parse: parseFloatText }],
  [1184, { tsType: "string", parse: parseTimestamptz }],
  [3802, { tsType: "unknown", parse: JSON.parse }],
]);

/** Takes the text of one value, never of NULL. */
export type ValueParser = (text: string) => Value;

interface ValueType {
  readonly tsType: string;
  /** `undefined` where the value is the text itself. */
  readonly parse: ValueParser | undefined;
}

const textType: ValueType = { tsType: "string", parse: undefined };

export interface ValueTypes {
  /** `undefined` means the text itself, so that a loop over many rows skips the call. Look it up once a column, never once a value. */
  parser(oid: number): ValueParser | undefined;
  /**
   * How TypeScript names the value of a column that is not null.
   *
   * Two exceptions are left out because they would make every use of the column awkward: the three texts of floats that are no
   * numbers, and NULL or nested elements of arrays. A payload's schema catches them.
   */
  tsType(oid: number): string;
  /** False for a type that was made after the read. Its values are text until the types are read again. */
  has(oid: number): boolean;
  /** For the option `types` of pg's clients, pools and queries. */
  pgTypes(): pg.CustomTypesConfig;
}

/** What is needed of a row of `pg_type`. */
export interface TypeRow {
  readonly oid: number;
  /** The type of the elements, for arrays; else 0. */
  readonly elementOid: number;
  /** What stands between elements: `,` for all built-in types but `box`. */
  readonly delimiter: string;
  /** What a domain is made of; else 0. */
  readonly baseOid: number;
  /** The labels of an enum in its order; else `null`. */
  readonly labels: readonly string[] | null;
}

/**
 * Reads all types that the database has now, in one query.
 *
 * @example
 * const types = await readTypes(client);
 * const pool = new pg.Pool({ …, types: types.pgTypes() });   // `sql` answers with the values of the log
 * const parse = types.parser(column.typeOid);
 * const value = text === null || parse === undefined ? text : parse(text);
 */
export async function readTypes(client: pg.ClientBase): Promise<ValueTypes> {
  // An array type is what its element names as `typarray`. `typelem` alone would also take int2vector, whose text has no braces.
  const { rows } = await client.query<TypeRow>(`
    select t.oid, coalesce(e.oid, 0)::oid as "elementOid", coalesce(e.typdelim, ',') as delimiter, t.typbasetype as "baseOid",
      (select array_agg(l.enumlabel::text order by l.enumsortorder) from pg_enum l where l.enumtypid = t.oid) as labels
    from pg_type t
    left join pg_type e on e.typarray = t.oid`);
  return createValueTypes(rows);
}

/** The value table over the types of a database. Built-in types that are no arrays need no row. */
export function createValueTypes(rows: readonly TypeRow[]): ValueTypes {
  const rowOf = new Map(rows.map((row) => [row.oid, row]));
  const known = new Map(builtInTypes);

  const resolve = (oid: number): ValueType => {
    const found = known.get(oid);
    if (found !== undefined) return found;
    const row = rowOf.get(oid);
    if (row === undefined) return textType;
    const type = build(row, resolve);
    known.set(oid, type);
    return type;
  };

  const pgTypes = {
    getTypeParser: (oid: number, format?: string) => (format === "binary" ? refuseBinary : (resolve(oid).parse ?? identity)),
  } as pg.CustomTypesConfig;

  return {
    parser: (oid) => resolve(oid).parse,
    tsType: (oid) => resolve(oid).tsType,
    has: (oid) => rowOf.has(oid) || builtInTypes.has(oid),
    pgTypes: () => pgTypes,
  };
}

function build(row: TypeRow, resolve: (oid: number) => ValueType): ValueType {
  if (row.baseOid !== 0) return resolve(row.baseOid);
  if (row.elementOid !== 0) {
    const element = resolve(row.elementOid);
    const elementType = /\W/.test(element.tsType) && !element.tsType.endsWith("[]") ? `(${element.tsType})` : element.tsType;
    return { tsType: `${elementType}[]`, parse: (text) => parseArray(text, { parse: element.parse, delimiter: row.delimiter }) };
  }
  if (row.labels !== null && row.labels.length > 0) {
    return { tsType: row.labels.map((label) => JSON.stringify(label)).join(" | "), parse: undefined };
  }
  return textType;
}

const identity = (text: string): string => text;

function refuseBinary(): never {
  throw new AncrageError("ANCRAGE_VALUE_INVALID", "a query asked for values in the binary format, expected the text format.", {
    hint: "Leave `binary` out of the query: only PostgreSQL's text is the same as in the log.",
  });
}

function parseBoolean(text: string): boolean {
  if (text === "t") return true;
  if (text === "f") return false;
  throw unreadable("boolean", text, "t or f");
}

function parseFloatText(text: string): number | string {
  const value = Number(text);
  return Number.isFinite(value) ? value : text;
}

function parseBytea(text: string): Buffer {
  if (!text.startsWith("\\x")) throw unreadable("bytea", text, "hexadecimal digits after \\x");
  return Buffer.from(text.slice(2), "hex");
}

/**
 * `2023-10-31 00:00:00.12+00` → `2023-10-31T00:00:00.120000Z`: always six digits, so that the order of texts is the order of times.
 *
 * Years past 9999 and before Christ are written as ECMAScript and ISO 8601 expand them, `+012345-01-01T…` and `-000043-03-15T…` (the
 * year before 1 is 0, so 44 BC is -43); `new Date` reads them, PostgreSQL does not. `infinity` and `-infinity` stay as they are.
 */
export function parseTimestamptz(text: string): string {
  const length = text.length;
  // The common shape by its length alone: "2023-10-31 00:00:00" and 3 characters of zone, or a dot and up to six digits between.
  if (length >= 22 && length <= 29 && text.charCodeAt(4) === 45 && text.charCodeAt(10) === 32 && text.endsWith("+00")) {
    const seconds = `${text.slice(0, 10)}T${text.slice(11, 19)}.`;
    return length === 22 ? `${seconds}000000Z` : `${seconds}${text.slice(20, -3).padEnd(6, "0")}Z`;
  }
  if (text === "infinity" || text === "-infinity") return text;
  const match = /^(\d{4,6})-(\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?\+00( BC)?$/.exec(text);
  if (match === null) throw unreadable("timestamptz", text, "a time of the zone UTC in the ISO date style");
  const [, digits = "", day = "", time = "", fraction = "", bc] = match;
  const year = bc === undefined ? Number(digits) : 1 - Number(digits);
  return `${formatYear(year)}-${day}T${time}.${fraction.padEnd(6, "0")}Z`;
}

function formatYear(year: number): string {
  if (year >= 0 && year <= 9999) return String(year).padStart(4, "0");
  return `${year < 0 ? "-" : "+"}${String(Math.abs(year)).padStart(6, "0")}`;
}

export interface ArrayFormat {
  readonly parse?: ValueParser | undefined;
  readonly delimiter?: string;
}

/**
 * An array as `array_out` writes it: `{1,NULL,"a \"b\""}`, nested `{{1,2},{3,4}}`, with bounds `[0:1]={1,2}` where it does not begin
 * at 1. The bounds are dropped.
 *
 * @see https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
 */
export function parseArray(text: string, format: ArrayFormat = {}): Value[] {
  const { parse, delimiter = "," } = format;
  // Bounds have digits, colons and brackets only, so the first "=" before a brace ends them.
  const start = text.charCodeAt(0) === openBracket ? text.indexOf("=") + 1 : 0;
  if (text.charCodeAt(start) !== openBrace || !text.endsWith("}")) throw unreadable("an array", text, "elements in braces");

  // Most arrays have one dimension and nothing that was quoted.
  if (!text.includes('"') && !text.includes("{", start + 1)) {
    const inner = text.slice(start + 1, -1);
    if (inner === "") return [];
    return inner.split(delimiter).map((element) => parseBare(element, parse));
  }

  const delimiterCode = delimiter.charCodeAt(0);
  let at = start;
  const parseLevel = (): Value[] => {
    const values: Value[] = [];
    at++;
    if (text.charCodeAt(at) === closeBrace) {
      at++;
      return values;
    }
    for (;;) {
      values.push(parseElement());
      const code = text.charCodeAt(at++);
      if (code === closeBrace) return values;
      if (code !== delimiterCode) throw unreadable("an array", text, `"${delimiter}" or "}" after an element`);
    }
  };
  const parseElement = (): Value => {
    const code = text.charCodeAt(at);
    if (code === openBrace) return parseLevel();
    if (code === quote) {
      const element = parseQuoted();
      return parse === undefined ? element : parse(element);
    }
    const from = at;
    while (at < text.length && text.charCodeAt(at) !== delimiterCode && text.charCodeAt(at) !== closeBrace) at++;
    return parseBare(text.slice(from, at), parse);
  };
  const parseQuoted = (): string => {
    let element = "";
    let from = ++at;
    for (;;) {
      if (at >= text.length) throw unreadable("an array", text, "a closing quote");
      const code = text.charCodeAt(at);
      if (code === quote) break;
      if (code === backslash) {
        element += text.slice(from, at);
        // The character after a backslash stands for itself, a quote or a backslash included.
        from = ++at;
      }
      at++;
    }
    element += text.slice(from, at++);
    return element;
  };

  const values = parseLevel();
  if (at !== text.length) throw unreadable("an array", text, "nothing after its closing brace");
  return values;
}

const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const quote = 0x22;
const backslash = 0x5c;

function parseBare(element: string, parse: ValueParser | undefined): Value {
  // The text "NULL" would have been quoted.
  if (element === "NULL") return null;
  return parse === undefined ? element : parse(element);
}

/** The reverse of `parseArray`, for comparing an array column with a value. */
export function formatArray(values: readonly unknown[]): string {
  const elements = values.map((value) => {
    if (value === null || value === undefined) return "NULL";
    if (Array.isArray(value)) return formatArray(value);
    return `"${formatValue(value).replaceAll(/[\\"]/g, String.raw`\$&`)}"`;
  });
  return `{${elements.join(",")}}`;
}

/**
 * The text that PostgreSQL reads as this value, for comparing it with a column. Objects become JSON, arrays PostgreSQL's.
 *
 * @throws AncrageError `ANCRAGE_VALUE_INVALID` for a function, a symbol, or a date that is none
 */
export function formatValue(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return String(value);
  if (typeof value === "object" && value !== null) {
    if (value instanceof Date && !Number.isNaN(value.getTime())) return value.toISOString();
    if (Buffer.isBuffer(value)) return `\\x${value.toString("hex")}`;
    if (Array.isArray(value)) return formatArray(value);
    if (!(value instanceof Date)) return formatJson(value);
  }
  throw unwritable(value);
}

/** @throws AncrageError `ANCRAGE_VALUE_INVALID` for what JSON cannot write: a function, a bigint, an object that contains itself */
export function formatJson(value: unknown): string {
  try {
    const text: string | undefined = JSON.stringify(value);
    if (text !== undefined) return text;
  } catch (cause) {
    throw unwritable(value, cause);
  }
  throw unwritable(value);
}

function unwritable(value: unknown, cause?: unknown): AncrageError {
  const shown = inspect(value, { breakLength: Infinity, depth: 1 });
  return new AncrageError("ANCRAGE_VALUE_INVALID", `expected a value that a column can have, got ${shown}.`, {
    hint: "Pass a string, number, bigint, boolean, Date, Buffer, array or plain object; in JSON, neither bigints nor circles.",
    cause,
  });
}

/**
 * A value as a parameter of `sql`. All is left to pg (Buffer → bytea, array → array, object → JSON, `undefined` → NULL) but `Date`:
 * pg writes the machine's local time with an offset, and a `timestamp` column would drop the offset.
 */
export function toParameter(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toParameter);
  return value instanceof Date ? formatValue(value) : value;
}

function unreadable(type: string, text: string, expected: string): AncrageError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return new AncrageError("ANCRAGE_VALUE_INVALID", `could not read ${JSON.stringify(shown)} as ${type}: expected ${expected}.`, {
    hint: "Sessions of Ancrage pin timezone, datestyle and bytea_output; something between it and PostgreSQL (a pooler, say) changed them.",
  });
}
