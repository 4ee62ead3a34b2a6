import { inspect } from "node:util";
import pg from "pg";
import type { Row } from "../capture/change.ts";
import { freezeRow, freezeValue } from "../capture/freeze.ts";
import { AncrageError, sqlStateOf } from "../errors.ts";
import { type ColumnInfo, keyOf, parseKey, quoteTable, type TableInfo } from "./tables.ts";
import { formatJson, formatValue, type ValueTypes } from "./types.ts";

/**
 * Records as they are now, for `load` and for samples. The values are exactly those of the log (`types.ts`).
 *
 * What users look for is compared as the column's type, so that its index serves, and one user's mistake must not fail the others
 * whose look-ups share the query: a text that the type cannot have matches nothing.
 */

/** A pool or a session of pg, pinned as `database.ts` pins it. */
export interface Reader {
  query(query: pg.QueryArrayConfig<unknown[]>): Promise<pg.QueryArrayResult<(string | null)[]>>;
}

export interface ReadOptions {
  readonly types: ValueTypes;
  /** Only these, and of them only those that the table has now. Default: all; see `withColumns`. */
  readonly columns?: readonly string[] | undefined;
}

export interface KeyedRow {
  /** As the log would have it. */
  readonly key: string;
  readonly row: Row;
}

/**
 * The records that have these keys, in one query.
 *
 * Nothing that a key may be is an error, because one `ancrage.trigger` with a wrong key would else fail its whole batch again and again.
 * Whoever can answer the one who asked calls `parseKey` first.
 *
 * @returns by the key *as it was asked for*: `042` finds the record `42`. A key without a record, of the wrong form, or that its type
 *   cannot have is not in it.
 */
export async function readByKeys(
  db: Reader,
  table: TableInfo,
  keys: readonly string[],
  options: ReadOptions,
): Promise<ReadonlyMap<string, KeyedRow>> {
  const asked = new Map<string, readonly string[]>();
  for (const key of keys) {
    const parts = tryParseKey(table, key);
    if (parts !== undefined) asked.set(key, parts);
  }
  const columns = table.keyColumns.map((name) => columnOf(table, name));
  const found = await readMatching(db, table, { columns, tuples: [...asked.values()], nullColumns: [] }, options);
  const byKey = new Map<string, KeyedRow>();
  for (const [index, key] of [...asked.keys()].entries()) {
    const record = found[index]?.[0];
    if (record !== undefined) byKey.set(key, record);
  }
  return byKey;
}

function tryParseKey(table: TableInfo, key: string): readonly string[] | undefined {
  try {
    return parseKey(table, key);
  } catch {
    return undefined;
  }
}

/** Column name to value, all of which must be equal; `null` asks for NULL. */
export type Condition = Readonly<Record<string, unknown>>;

/**
 * The records that meet each condition, by primary key. Conditions over the same columns share one query.
 *
 * @example await readWhere(pool, customer, [{ email: "a@example.com" }, { email: "b@example.com" }], { types })
 * @returns one list a condition, in the order of the conditions; empty where a value is none that the column's type can have
 * @throws AncrageError `ANCRAGE_VALUE_INVALID` as `checkCondition` does, which whoever gathers conditions of several users calls first
 */
export async function readWhere(
  db: Reader,
  table: TableInfo,
  conditions: readonly Condition[],
  options: ReadOptions,
): Promise<readonly (readonly KeyedRow[])[]> {
  const results: (readonly KeyedRow[])[] = conditions.map(() => []);
  for (const shape of groupByShape(table, conditions)) {
    const found = await readMatching(db, table, shape, options);
    for (const [index, place] of shape.places.entries()) results[place] = found[index] ?? [];
  }
  return results;
}

/** What is looked for over the same columns: one tuple of texts a look-up. */
interface Lookups {
  readonly columns: readonly ColumnInfo[];
  readonly tuples: readonly (readonly string[])[];
  /** Columns that must be NULL, which `=` cannot say and `is not distinct from` says without an index. */
  readonly nullColumns: readonly ColumnInfo[];
}

interface Shape extends Lookups {
  /** Which condition each tuple is. */
  readonly places: number[];
  readonly tuples: string[][];
}

function groupByShape(table: TableInfo, conditions: readonly Condition[]): readonly Shape[] {
  const shapes = new Map<string, Shape>();
  for (const [place, condition] of conditions.entries()) {
    checkCondition(table, condition);
    const names = Object.keys(condition).toSorted();
    const columns = names.filter((name) => condition[name] !== null).map((name) => columnOf(table, name));
    const nullColumns = names.filter((name) => condition[name] === null).map((name) => columnOf(table, name));
    const shapeKey = JSON.stringify([columns.map((column) => column.name), nullColumns.map((column) => column.name)]);
    let shape = shapes.get(shapeKey);
    if (shape === undefined) shapes.set(shapeKey, (shape = { columns, nullColumns, places: [], tuples: [] }));
    shape.places.push(place);
    shape.tuples.push(columns.map((column) => textFor(column, condition[column.name])));
  }
  return [...shapes.values()];
}

/**
 * @throws AncrageError `ANCRAGE_VALUE_INVALID` for a condition that is empty, names a column that is not there or cannot be compared, or holds
 *   `undefined`, an array or an object for a column that has none, or another value that no column has
 */
export function checkCondition(table: TableInfo, condition: Condition): void {
  const names = Object.keys(condition);
  if (names.length === 0) throw badCondition(table, "an empty condition", "at least one column, such as { email: … }");
  for (const name of names) {
    const column = columnOf(table, name);
    const value = condition[name];
    // `undefined` is a mistake far more often than it means NULL, and dropping it would match the whole table.
    if (value === undefined) throw badCondition(table, `undefined for "${name}"`, "a value, or null to ask for NULL");
    if (value !== null) checkValue(table, column, value);
  }
}

function checkValue(table: TableInfo, column: ColumnInfo, value: unknown): void {
  const { name, castType, typeName } = column;
  if (typesWithoutEquality.has(plainType(castType))) {
    throw badCondition(table, `a value for "${name}", whose type ${typeName} has no "="`, "another column");
  }
  // Not "any of these", and not an operator either: as text they would match nothing, without a word.
  const isStructure = typeof value === "object" && !(value instanceof Date) && !Buffer.isBuffer(value);
  if (isStructure && plainType(castType) !== "pg_catalog.jsonb" && !(Array.isArray(value) && isArrayType(castType))) {
    throw badCondition(table, `${inspect(value, { breakLength: Infinity })} for "${name}"`, `one value of the type ${typeName}`);
  }
  textFor(column, value);
}

const typesWithoutEquality: ReadonlySet<string> = new Set(["json", "xml", "point", "polygon"].map((type) => `pg_catalog.${type}`));

/** Without quotes: which names need them differs between versions (`json` is a keyword from 16 on). */
const plainType = (castType: string): string => castType.replaceAll('"', "");

/** PostgreSQL names the array type of `deal` `_deal`, or `__deal` where that was taken. */
const isArrayType = (castType: string): boolean => /\._[^.]*$/.test(plainType(castType));

function textFor(column: ColumnInfo, value: unknown): string {
  return plainType(column.castType) === "pg_catalog.jsonb" ? formatJson(value) : formatValue(value);
}

function columnOf(table: TableInfo, name: string): ColumnInfo {
  const column = table.columns.find((column) => column.name === name);
  if (column !== undefined) return column;
  throw badCondition(table, `the column "${name}"`, `one of ${table.columns.map((column) => column.name).join(", ")}`);
}

function badCondition(table: TableInfo, got: string, expected: string): AncrageError {
  return new AncrageError("ANCRAGE_VALUE_INVALID", `a look-up in ${table.name} got ${got}, expected ${expected}.`, {
    hint: `Correct the condition, as in load.all(${JSON.stringify(table.name)}, { column: value }).`,
  });
}

/** One list of records a tuple, in the order of the tuples. */
async function readMatching(
  db: Reader,
  table: TableInfo,
  lookups: Lookups,
  options: ReadOptions,
): Promise<readonly (readonly KeyedRow[])[]> {
  const { columns, tuples } = lookups;
  const found: KeyedRow[][] = tuples.map(() => []);
  const places = [...tuples.keys()].filter((place) => tuples[place]?.every((text, index) => isPossible(columns[index]?.castType, text)));
  await readPlaces(places);
  return found;

  async function readPlaces(places: readonly number[]): Promise<void> {
    if (places.length === 0) return;
    try {
      await withColumns(db, table, options.columns, async (columns, dropped) => {
        const { rows, fields } = await db.query(matchQuery(table, { ...lookups, places }, columns));
        const toRecord = recordReader(table, { fields: fields.slice(1), dropped, types: options.types });
        for (const [place, ...texts] of rows) found[Number(place)]?.push(toRecord(texts));
      });
    } catch (error) {
      if (!isDataError(error)) throw error;
      // One of the texts is none of its type, and PostgreSQL does not say which: halve until it stands alone.
      const [place = 0] = places;
      if (places.length === 1) return throwUnlessUncastable(db, lookups.columns, tuples[place] ?? [], error);
      const middle = places.length >> 1;
      await readPlaces(places.slice(0, middle));
      await readPlaces(places.slice(middle));
    }
  }
}

/** Reading a row can fail for its data too (a virtual column divides by zero): that must not look like a record that is missing. */
async function throwUnlessUncastable(db: Reader, columns: readonly ColumnInfo[], texts: readonly string[], cause: unknown): Promise<void> {
  const casts = columns.map(({ castType }, index) => `$${index + 1}::text::${castType}`);
  try {
    await db.query({ text: `select ${casts.join(", ")}`, values: [...texts], rowMode: "array", types: rawTexts });
  } catch (error) {
    if (isDataError(error)) return;
    throw error;
  }
  throw cause;
}

/** SQLSTATE class 22, data exception: 22P02 for `abc` as a date, 22008 for February 30th. */
function isDataError(error: unknown): boolean {
  return sqlStateOf(error)?.startsWith("22") === true;
}

function matchQuery(
  table: TableInfo,
  { columns, tuples, nullColumns, places }: Lookups & { readonly places: readonly number[] },
  selected: readonly string[],
): pg.QueryArrayConfig<unknown[]> {
  // Arrays of text first, cast one by one: an array of the column's type would need a literal that no client knows how to write.
  const parameters = ["$1::int4[]", ...columns.map((_, index) => `$${index + 2}::text[]`)];
  const names = ["place", ...columns.map((_, index) => `value_${index}`)];
  const matches = [
    ...columns.map(({ name, castType }, index) => `t.${pg.escapeIdentifier(name)} = asked.value_${index}::${castType}`),
    ...nullColumns.map(({ name }) => `t.${pg.escapeIdentifier(name)} is null`),
  ];
  const order = ["asked.place", ...table.keyColumns.map((name) => `t.${pg.escapeIdentifier(name)}`)];
  return {
    text: `
      select ${["asked.place", ...selected.map(quoteColumn)].join(", ")}
      from unnest(${parameters.join(", ")}) as asked (${names.join(", ")})
      join ${quoteTable(table)} t on ${matches.join(" and ")}
      order by ${order.join(", ")}`,
    values: [places, ...columns.map((_, index) => places.map((place) => tuples[place]?.[index]))],
    rowMode: "array",
    types: rawTexts,
  };
}

const integerRanges: Readonly<Record<string, readonly [bigint, bigint]>> = {
  "pg_catalog.int2": [-(2n ** 15n), 2n ** 15n - 1n],
  "pg_catalog.int4": [-(2n ** 31n), 2n ** 31n - 1n],
  "pg_catalog.int8": [-(2n ** 63n), 2n ** 63n - 1n],
};

/**
 * Whether a text may be a value of this type, for the types that keys have, so that what users commonly mistake costs no query.
 * It may say yes to what PostgreSQL refuses (the query is then halved), but never no to what PostgreSQL writes.
 *
 * `pg_input_is_valid` would ask PostgreSQL itself, but only from version 16 on.
 */
export function isPossible(castType: string | undefined, text: string): boolean {
  // No text of PostgreSQL's holds it, and a parameter with it is refused whole.
  if (text.includes("\0")) return false;
  const type = castType === undefined ? "" : plainType(castType);
  if (type === "pg_catalog.uuid") return /^\{?[0-9a-f-]{32,39}\}?$/i.test(text);
  const range = integerRanges[type];
  if (range === undefined) return true;
  if (!/^[+-]?\d{1,40}$/.test(text)) return false;
  const value = BigInt(text.startsWith("+") ? text.slice(1) : text);
  return value >= range[0] && value <= range[1];
}

export interface NewestOptions extends ReadOptions {
  /** Newest by this column; else by `created_at` where the table has it, else by the primary key. */
  readonly orderColumn?: string | undefined;
  readonly limit: number;
  /** How many of the newest to pass over. */
  readonly offset?: number;
}

/** A sample is not worth more of the database's time than this. */
const newestTimeoutMs = 2000;

/**
 * The newest records, descending. Records without a value in the order column are read only where there are no others, by key.
 *
 * @example await readNewest(pool, deal, { types, orderColumn: "won_at", limit: 50, offset: 50 }) // the second page
 * @throws what pg throws; SQLSTATE 57014 where it took longer than 2 s: give the order column an index
 */
export async function readNewest(db: Reader, table: TableInfo, options: NewestOptions): Promise<readonly KeyedRow[]> {
  const name = options.orderColumn ?? table.columns.find((column) => column.name === "created_at")?.name;
  const column = name === undefined ? undefined : columnOf(table, name);
  const records = await readNewestBy(db, table, column, options);
  const isRead = records.length > 0 || column?.isNullable !== true || (options.offset ?? 0) > 0;
  return isRead ? records : readNewestBy(db, table, undefined, options);
}

async function readNewestBy(
  db: Reader,
  table: TableInfo,
  column: ColumnInfo | undefined,
  { types, limit, offset = 0 }: NewestOptions,
): Promise<readonly KeyedRow[]> {
  const order = [...(column === undefined ? [] : [column.name]), ...table.keyColumns].map((name) => `t.${pg.escapeIdentifier(name)} desc`);
  // `nulls last` would not match the order of an index made without it; to leave them out does.
  const where = column?.isNullable === true ? `where t.${pg.escapeIdentifier(column.name)} is not null` : "";
  return await withColumns(db, table, undefined, async (columns, dropped) => {
    // Statements in one message are one transaction, so that the settings end with them, on a pooled session too. Such a message takes
    // no parameters; these are integers. (Sessions of the API read no table in its own order, which is the best way for one without an index.)
    const answer: unknown = await db.query({
      text: `
        set local statement_timeout = ${newestTimeoutMs};
        set local enable_seqscan = on;
        set local enable_bitmapscan = on;
        select ${columns.map(quoteColumn).join(", ")} from ${quoteTable(table)} t ${where}
        ${order.length === 0 ? "" : `order by ${order.join(", ")}`} limit ${asCount(limit)} offset ${asCount(offset)}`,
      rowMode: "array",
      types: rawTexts,
    });
    const { rows, fields } = (answer as readonly unknown[]).at(-1) as pg.QueryArrayResult<(string | null)[]>;
    return rows.map(recordReader(table, { fields, dropped, types }));
  });
}

/**
 * Reads with the columns that the table was seen to have; where PostgreSQL says that one of them is not there, with those that are.
 *
 * A migration of the application may drop or rename a column at any time: only what reads that column is to fail by it.
 *
 * @param wanted default: all, and the key's in any case
 * @param read told also which of the wanted ones are gone; it may be called twice
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` where a column of the key is gone
 */
async function withColumns<Result>(
  db: Reader,
  table: TableInfo,
  wanted: readonly string[] | undefined,
  read: (columns: readonly string[], dropped: readonly string[]) => Promise<Result>,
): Promise<Result> {
  const all = wanted === undefined ? table.columns.map(({ name }) => name) : [...new Set([...table.keyColumns, ...wanted])];
  try {
    return await read(all, []);
  } catch (error) {
    if (sqlStateOf(error) !== undefinedColumn) throw error;
    const now = new Set(await readColumnNames(db, table.oid));
    const key = table.keyColumns.find((name) => !now.has(name));
    if (key !== undefined) throw droppedColumn(table, key);
    const dropped = all.filter((name) => !now.has(name));
    // It was another one: of the condition, or of the order.
    if (dropped.length === 0) throw error;
    return await read(
      all.filter((name) => now.has(name)),
      wanted === undefined ? dropped : [],
    );
  }
}

const undefinedColumn = "42703";

async function readColumnNames(db: Reader, oid: number): Promise<readonly string[]> {
  const text = "select attname::text from pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped";
  const { rows } = await db.query({ text, values: [oid], rowMode: "array", types: rawTexts });
  return rows.flatMap(([name]) => name ?? []);
}

function droppedColumn({ name }: TableInfo, column: string): AncrageError {
  return new AncrageError("ANCRAGE_DEFINITION_INVALID", `"${name}" has no column "${column}" any more: it was dropped or renamed.`, {
    hint: 'Let the events read what the table has now, restart, then run "ancrage rejections retry".',
  });
}

function asCount(value: number): string {
  if (Number.isSafeInteger(value) && value >= 0) return String(value);
  throw new AncrageError("ANCRAGE_VALUE_INVALID", `expected a whole number of records from 0 on, got ${value}.`);
}

const quoteColumn = (name: string): string => `t.${pg.escapeIdentifier(name)}`;

/** Leaves each value as PostgreSQL's text: a key is made of texts, and the parsers are looked up once a query. */
const rawTexts = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;

interface Answered {
  readonly fields: readonly pg.FieldDef[];
  /** Columns that the table has no more: they throw when they are read, and are never absent without a word. */
  readonly dropped: readonly string[];
  readonly types: ValueTypes;
}

function recordReader(table: TableInfo, { fields, dropped, types }: Answered): (texts: readonly (string | null)[]) => KeyedRow {
  const names = fields.map((field) => field.name);
  const parsers = fields.map((field) => types.parser(field.dataTypeID));
  const places = new Map(names.map((name, index) => [name, index]));
  const makeKey = keyOf(table);
  return (texts) => {
    const row: Record<string, unknown> = {};
    for (let index = 0; index < names.length; index++) {
      const text = texts[index] ?? null;
      const parse = parsers[index];
      row[names[index] ?? ""] = text === null || parse === undefined ? text : parse(text);
    }
    const key = makeKey((column) => texts[places.get(column) ?? -1] ?? null);
    return { key, row: dropped.length === 0 ? freezeRow(row) : withDropped(row, table, dropped) };
  };
}

/** Frozen here: whoever did it later would read what throws. */
function withDropped(row: Record<string, unknown>, table: TableInfo, dropped: readonly string[]): Row {
  for (const value of Object.values(row)) freezeValue(value);
  for (const column of dropped) {
    Object.defineProperty(row, column, {
      enumerable: true,
      get() {
        throw droppedColumn(table, column);
      },
    });
  }
  return Object.freeze(row);
}
