import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, inject, test } from "vitest";
import { copyCluster } from "../../test/copy-cluster.ts";
import { cloneDatabase, type TestDatabase } from "../../test/database.ts";
import { EmbeddedPostgres, makeCluster } from "./embedded-postgres.ts";
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

test("a process that is killed with its throwaway server takes it along, and the folder", async () => {
  const directory = await copyCluster(inject("templateCluster"));
  const child = startServer(directory);
  const [pid] = (await once(child, "message")) as [number];
  child.kill("SIGKILL");
  await expect.poll(() => isThere(directory), { timeout: 10_000 }).toBe(false);
  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
});

test("initdb that is killed in the middle leaves no half cluster behind that nothing starts on", async () => {
  const directory = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  const child = startServer(directory);
  // What stands in its place while it is made.
  const begun = async (): Promise<boolean> => (await isThere(`${directory}.new/PG_VERSION`)) || isThere(`${directory}/PG_VERSION`);
  await expect.poll(begun, { interval: 5, timeout: 10_000 }).toBe(true);
  process.kill(-(child.pid ?? 0), "SIGKILL");
  expect(await isThere(`${directory}/PG_VERSION`)).toBe(false);
  await expect.poll(() => isThere(`${directory}.new`), { timeout: 10_000 }).toBe(false);
  // Nor does what another one left, which a shell of ours could not remove any more.
  await mkdir(`${directory}.new`);
  await writeFile(`${directory}.new/PG_VERSION`, "18");
  const postgres = new EmbeddedPostgres({ directory, isThrowaway: true });
  await postgres.start();
  await postgres.stop();
  await writeFile(join(directory, "PG_VERSION"), "9.6\n");
  await expect(postgres.start()).rejects.toMatchObject({
    message: expect.stringContaining("9.6"),
    hint: expect.stringContaining(`delete ${directory} to begin anew`),
  });
  await postgres.remove();
});

/** In a process and a group of its own, which tells the server's process once there is one. */
function startServer(directory: string): ChildProcess {
  const script = `
    import { EmbeddedPostgres, makeCluster } from ${JSON.stringify(new URL("embedded-postgres.ts", import.meta.url).href)};
    const postgres = new EmbeddedPostgres({ directory: ${JSON.stringify(directory)}, isThrowaway: true });
    await postgres.start();
    process.send(postgres.pid);
    process.on("message", () => undefined);`;
  return spawn(process.execPath, ["--input-type=module", "--eval", script], {
    detached: true,
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
}

const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

test("an empty folder that is a link to another disk becomes a cluster where it is", async () => {
  // As root the cluster is another user's, who must come through here.
  await chmod(folder, 0o755);
  const [disk, link] = [join(folder, "disk"), join(folder, "link")];
  await mkdir(disk);
  await symlink(disk, link);
  await makeCluster(link);
  expect((await stat(join(disk, "PG_VERSION"))).isFile()).toBe(true);
  await rm(disk, { recursive: true });
});
