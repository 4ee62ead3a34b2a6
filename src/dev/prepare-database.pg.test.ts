import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { cloneDatabase, type TestDatabase } from "../../test/database.ts";
import { createDatabase, runSchemaFile } from "./prepare-database.ts";

let database: TestDatabase;
let folder: string;
beforeAll(async () => {
  database = await cloneDatabase();
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
});
afterAll(async () => {
  await database.remove();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => database.client.query(`drop schema public cascade; create schema public; drop schema if exists app cascade`));

const write = (sql: string): Promise<void> => writeFile(join(folder, "schema.sql"), sql);

test("schema.sql runs while there is no table but Ancrage's own, and not again", async () => {
  await write("create table deal (id bigint primary key);\ninsert into deal values (1), (2);");
  expect(await runSchemaFile(database.url, folder)).toBe(true);
  expect(await runSchemaFile(database.url, folder)).toBe(false);
  expect((await database.client.query("select count(*)::int as count from deal")).rows).toEqual([{ count: 2 }]);
});

test("a table in another schema counts", async () => {
  await database.client.query("create schema app; create table app.deal (id int)");
  await write("create table deal (id int)");
  expect(await runSchemaFile(database.url, folder)).toBe(false);
});

test("a mistake is named with its line, and nothing of the file is kept", async () => {
  await write("create table deal (id bigint);\n\ncreate tabel customer (id bigint);\n");
  await expect(runSchemaFile(database.url, folder)).rejects.toMatchObject({
    code: "ANCRAGE_COMMAND_FAILED",
    message: `${join(folder, "schema.sql")}:3: syntax error at or near "tabel"`,
  });
  expect((await database.client.query("select to_regclass('deal') as deal")).rows).toEqual([{ deal: null }]);
  await write("create table deal (id bigint);");
  expect(await runSchemaFile(database.url, folder)).toBe(true);
});

test("without schema.sql nothing runs", async () => {
  await rm(join(folder, "schema.sql"), { force: true });
  expect(await runSchemaFile(database.url, folder)).toBe(false);
});

test("a database is made once, whatever its name", async () => {
  const name = `${database.name} "made"`;
  const exists = async (): Promise<number | null> =>
    (await database.client.query("select from pg_database where datname = $1", [name])).rowCount;
  expect(await exists()).toBe(0);
  await createDatabase(database.url, name);
  await createDatabase(database.url, name);
  expect(await exists()).toBe(1);
  await database.client.query(`drop database "${name.replaceAll('"', '""')}"`);
});
