import { readFile, writeFile } from "node:fs/promises";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cloneDatabase, type TestDatabase } from "./database.ts";

const golden = new URL("../src/store/schema.sql", import.meta.url);

let database: TestDatabase;
beforeAll(async () => (database = await cloneDatabase()));
afterAll(() => database.remove());

const heading = `-- The schema "ancrage" as all migrations together make it: to read, and to see in a diff what a migration changes. Nothing runs it.
-- Written by "UPDATE_SCHEMA=1 npx vitest run test/schema.pg.test.ts"; the test fails where this file is not what is there.
`;

test("schema.sql is what the migrations make", async () => {
  const made = heading + (await printSchema(database.client));
  if (process.env["UPDATE_SCHEMA"] === "1") await writeFile(golden, made);
  expect(await readFile(golden, "utf8")).toBe(made);
});

async function printSchema(client: pg.Client): Promise<string> {
  const lines = async (sql: string): Promise<readonly string[]> => (await client.query<{ line: string }>(sql)).rows.map(({ line }) => line);
  const relations = await client.query<{ oid: number; name: string; kind: string; key: string | null }>(`
    select c.oid, c.relname as name, c.relkind as kind, pg_get_partkeydef(c.oid) as key
    from pg_class c where c.relnamespace = 'ancrage'::regnamespace and c.relkind in ('r', 'p') order by 2`);
  const parts: string[] = [];
  parts.push(
    ...(await lines(`
      select format('create type ancrage.%s as enum (%s);', t.typname, string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)) as line
      from pg_type t join pg_enum e on e.enumtypid = t.oid where t.typnamespace = 'ancrage'::regnamespace group by t.typname order by 1`)),
    ...(await lines(`
      select format('create sequence ancrage.%s;', c.relname) as line from pg_class c
      where c.relnamespace = 'ancrage'::regnamespace and c.relkind = 'S'
        and not exists (select 1 from pg_depend d where d.objid = c.oid and d.deptype = 'i') order by 1`)),
  );
  for (const { oid, name, key } of relations.rows) {
    const columns = await lines(`
      select '  ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        || case when a.attcollation <> 0 and a.attcollation <> t.typcollation then ' collate "' || l.collname || '"' else '' end
        || case when a.attnotnull then ' not null' else '' end
        || case when a.attidentity <> '' then ' generated always as identity' else '' end
        || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') as line
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      left join pg_collation l on l.oid = a.attcollation
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = ${oid} and a.attnum > 0 and not a.attisdropped order by a.attnum`);
    // PostgreSQL 18 names each "not null", too; the columns say it already.
    const constraints = await lines(`
      select '  constraint ' || conname || ' ' || pg_get_constraintdef(oid) as line from pg_constraint
      where conrelid = ${oid} and contype <> 'n' order by conname`);
    const indexes = await lines(`
      select pg_get_indexdef(i.indexrelid) || ';' as line from pg_index i
      where i.indrelid = ${oid} and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid) order by 1`);
    const partition = key === null ? "" : ` partition by ${key}`;
    parts.push(`create table ancrage.${name} (\n${[...columns, ...constraints].join(",\n")}\n)${partition};`, ...indexes);
  }
  parts.push(
    ...(await lines(`
      select pg_get_functiondef(oid) || ';' || coalesce(E'\\n-- ' || array_to_string(proacl, ', '), '') as line from pg_proc
      where pronamespace = 'ancrage'::regnamespace order by proname, oid`)),
  );
  return `${parts.map((part) => part.trimEnd()).join("\n\n")}\n`;
}
