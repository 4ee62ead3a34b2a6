import pg from "pg";
import { AncrageError } from "../errors.ts";

/** A table as PostgreSQL's catalogue has it. */
export interface TableInfo {
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  /** As users write it: without the schema where that is `public`. */
  readonly name: string;
  readonly columns: readonly ColumnInfo[];
  /** The primary key's columns in its order; empty where there is none. */
  readonly keyColumns: readonly string[];
  /** `pg_class.relreplident`: d default, n nothing, f full, i index. */
  readonly replicaIdentity: "d" | "n" | "f" | "i";
  readonly isPartitioned: boolean;
}

export interface ColumnInfo {
  readonly name: string;
  readonly typeOid: number;
  /** As `format_type` names it, for messages and generated types. */
  readonly typeName: string;
  /**
   * What a value is cast to when it is compared with the column: qualified, the base type of a domain (whose checks would refuse
   * the whole query), and without a length: `'abcd'::varchar(3)` is `abc`, another record's key.
   */
  readonly castType: string;
  readonly isNullable: boolean;
  /** Generated, and not carried by the log: virtual ones never are, stored ones from PostgreSQL 18 on. Reads see both. */
  readonly isGenerated: boolean;
}

/**
 * All ordinary and partitioned tables but those of PostgreSQL and of Ancrage, by name. A partition is left out: its root stands for it,
 * as it does in the log (`publish_via_partition_root`).
 */
export async function readTables(client: pg.ClientBase): Promise<readonly TableInfo[]> {
  const { rows } = await client.query<Omit<TableInfo, "name">>(`
    with recursive base_types as (
      select oid, oid as base_oid from pg_type where typtype <> 'd'
      union all
      select t.oid, b.base_oid from pg_type t join base_types b on b.oid = t.typbasetype where t.typtype = 'd'
    )
    select c.oid, n.nspname as schema, c.relname as table, c.relreplident as "replicaIdentity", c.relkind = 'p' as "isPartitioned",
      coalesce(
        (
          select json_agg(
            json_build_object(
              'name', a.attname,
              'typeOid', a.atttypid::int8,
              'typeName', format_type(a.atttypid, a.atttypmod),
              'castType', quote_ident(bn.nspname) || '.' || quote_ident(bt.typname),
              'isNullable', not a.attnotnull,
              'isGenerated', a.attgenerated = 'v' or (a.attgenerated = 's' and current_setting('server_version_num')::integer < 180000)
            )
            order by a.attnum
          )
          from pg_attribute a
          join base_types b on b.oid = a.atttypid
          join pg_type bt on bt.oid = b.base_oid
          join pg_namespace bn on bn.oid = bt.typnamespace
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        ),
        '[]'
      ) as columns,
      coalesce(
        (
          select json_agg(a.attname order by k.place)
          from pg_constraint p, unnest(p.conkey) with ordinality k(attnum, place)
          join pg_attribute a on a.attnum = k.attnum
          where p.conrelid = c.oid and p.contype = 'p' and a.attrelid = c.oid
        ),
        '[]'
      ) as "keyColumns"
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p')
      and not c.relispartition
      and n.nspname not in ('information_schema', 'ancrage')
      and n.nspname not like 'pg\\_%'
    order by n.nspname, c.relname`);
  return rows.map((row) => ({ ...row, name: nameTable(row.schema, row.table) }));
}

/** As users write a table: `deal`, or `sales.deal` outside the schema `public`. */
export function nameTable(schema: string, table: string): string {
  return schema === "public" ? table : `${schema}.${table}`;
}

/** `"sales"."deal"`, for SQL. */
export function quoteTable(table: Pick<TableInfo, "schema" | "table">): string {
  return `${pg.escapeIdentifier(table.schema)}.${pg.escapeIdentifier(table.table)}`;
}

/** Takes the text of a column, as PostgreSQL wrote it. */
export type TextOf = (column: string) => string | null;

/**
 * Prepares how a table's rows get their key: the text of the one key column, a JSON array of texts for several, and the empty text for
 * a table without a primary key.
 *
 * @example keyOf(table)((column) => texts[column]) // "42", or '["7","2023-10-31"]'
 * @throws AncrageError `ANCRAGE_VALUE_INVALID` where a key column has no text
 */
export function keyOf(table: TableInfo): (textOf: TextOf) => string {
  const [first, ...others] = table.keyColumns;
  if (first === undefined) return () => "";
  const required = (column: string, textOf: TextOf): string => {
    const text = textOf(column);
    if (text !== null) return text;
    throw new AncrageError(
      "ANCRAGE_VALUE_INVALID",
      `a row of ${table.name} has no value in "${column}", which is part of its primary key.`,
      {
        hint: `Check the replica identity of ${table.name}: the log must carry the key's columns.`,
      },
    );
  };
  if (others.length === 0) return (textOf) => required(first, textOf);
  return (textOf) => JSON.stringify(table.keyColumns.map((column) => required(column, textOf)));
}

/**
 * The reverse of `keyOf`: the texts of the key's columns in their order.
 *
 * @throws AncrageError `ANCRAGE_VALUE_INVALID` where the key is no JSON array of as many texts as the key has columns, or the table has no
 *   primary key
 */
export function parseKey(table: TableInfo, key: string): readonly string[] {
  const { keyColumns, name } = table;
  if (keyColumns.length === 1) return [key];
  if (keyColumns.length === 0) {
    throw new AncrageError(
      "ANCRAGE_VALUE_INVALID",
      `table ${name} has no primary key, so no record of it has the key ${JSON.stringify(key)}.`,
      {
        hint: `Give ${name} a primary key, or read it by other columns.`,
      },
    );
  }
  const parts = parseTexts(key);
  if (parts?.length === keyColumns.length) return parts;
  const example = JSON.stringify(keyColumns.map((column) => `<${column}>`));
  throw new AncrageError("ANCRAGE_VALUE_INVALID", `the key ${JSON.stringify(key)} of ${name} is not one: expected ${example}.`, {
    hint: `The primary key of ${name} has ${keyColumns.length} columns: pass a JSON array of their values as strings, in this order.`,
  });
}

function parseTexts(json: string): readonly string[] | undefined {
  try {
    const parsed: unknown = JSON.parse(json);
    return Array.isArray(parsed) && parsed.every((part) => typeof part === "string") ? parsed : undefined;
  } catch {
    return undefined;
  }
}
