import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import type { Finding } from "../src/doctor/finding.ts";
import { runProgram } from "../src/cli/program.ts";
import { findElsewhere } from "../src/replication-place.ts";
import type { TestDatabase } from "./database.ts";
import { startOwnServer, type OwnServer } from "./own-server.ts";

/**
 * A newcomer's way, from a server that nobody prepared to one that captures, by the words of doctor alone, with three roles that may as
 * little as they need.
 */
let server: OwnServer;
let database: TestDatabase;
let folder: string;
const library = new URL("../src/index.ts", import.meta.url).href;

beforeAll(async () => {
  server = await startOwnServer({ wal_level: "replica" });
  database = await server.createDatabase("shop");
  await database.client.query(`
    create role owner login password 'owner';
    create role app login password 'app';
    create table orders (id integer primary key, total numeric);
    alter table orders owner to owner`);
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  await mkdir(join(folder, "events"));
  await writeFile(
    join(folder, "events", "OrderPaid.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "orders", on: "update", payload: (order) => ({ id: order.id }) });\n`,
  );
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await server.remove();
});

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** The command line, in this process: with one of its own each the test would take a minute. */
async function run(
  role: string,
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
  stopping: AbortSignal = words[0] === "start" ? new AbortController().signal : AbortSignal.abort(),
): Promise<Ran> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await runProgram(words, {
    env: { DATABASE_URL: server.url("shop", role), ...env },
    workingFolder: folder,
    print: (text) => out.push(text),
    note: (text) => err.push(text),
    heedStopping: () => stopping,
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}

async function doctor(role: string, env: Readonly<Record<string, string>> = {}): Promise<{ code: number | null; bad: readonly Finding[] }> {
  const { code, out, err } = await run(role, ["doctor", folder, "--json"], env);
  expect(err).toBe("");
  const { findings } = JSON.parse(out) as { readonly findings: readonly Finding[] };
  return { code, bad: findings.filter(({ severity }) => severity !== "ok") };
}

/** The SQL of a mend, without what is said beside it. */
const sqlOf = (found: readonly Finding[], check: string, line = 0): string =>
  (found.find((finding) => finding.check === check)?.mend[line] ?? "").replace(/ *--.*$/, "");

test("from wal_level = replica and no rights to a system that captures, by doctor's words", async () => {
  const unprepared = await doctor("owner");
  expect(unprepared.code).toBe(3);
  expect(unprepared.bad.map(({ check, severity }) => `${severity} ${check}`)).toEqual([
    "error wal-level",
    "warning slot-bound",
    // The server of the tests gives durability up.
    "warning durability",
    "warning synchronous-commit",
    "error replication-role",
    "error role",
    "error schema",
    "error plan",
    "warning secrets",
  ]);
  // An outbox needs nothing of the log.
  const outbox = await doctor("owner", { ANCRAGE_CAPTURE: "outbox" });
  expect(outbox.bad.filter(({ severity }) => severity === "error").map(({ check }) => check)).toEqual(["role", "schema"]);
  // What would start all the same says the same, in words and with no stack.
  const early = await run("owner", ["migrate", folder]);
  expect(early).toMatchObject({
    code: 3,
    err: expect.stringMatching(/^ANCRAGE_NOT_MIGRATED: wal_level is "replica".*\n.*alter system set wal_level/),
  });
  expect(early.err).not.toContain("    at ");

  expect(sqlOf(unprepared.bad, "wal-level")).toBe("alter system set wal_level = 'logical';");
  await server.restart(undefined, { wal_level: "logical" });
  const admin = await database.connect();
  await admin.query(sqlOf(unprepared.bad, "role"));
  const denied = await run("owner", ["migrate", folder]);
  expect(denied).toMatchObject({
    code: 3,
    err: expect.stringMatching(/ANCRAGE_NOT_PERMITTED: .*PostgreSQL refused the role "owner".*pg_create_logical_replication_slot/s),
  });
  expect(denied.err).not.toContain("    at ");
  // The second way of the two: a role of its own for the log.
  expect(unprepared.bad.find(({ check }) => check === "replication-role")?.mend[1]).toContain("create role ancrage_repl login replication");
  await admin.query("create role ancrage_repl login replication password 'ancrage_repl'");
  // Of another database, or another server: no slot is made there.
  const elsewhere = { ANCRAGE_REPLICATION_URL: server.url("postgres", "ancrage_repl") };
  expect(await run("owner", ["migrate", folder], elsewhere)).toMatchObject({
    code: 2,
    err: expect.stringMatching(/ANCRAGE_OPTION_INVALID: options.replicationUrl: expected .*\("shop" of the server .*\), got "postgres" of/),
  });
  expect((await admin.query("select from pg_replication_slots")).rowCount).toBe(0);
  expect((await doctor("owner", elsewhere)).bad.map(({ check }) => check)).toContain("replication-url");
  const env = { ANCRAGE_REPLICATION_URL: server.url("shop", "ancrage_repl") };
  const fixed = await run("owner", ["doctor", folder, "--fix", "--json"], env);
  expect(fixed.err).toContain("done: select pg_create_logical_replication_slot");
  expect((await doctor("owner", env)).bad.filter(({ severity }) => severity === "error")).toEqual([]);

  // The role that runs: no rights yet, then those that migrate grants, and no more.
  const running = await doctor("app", env);
  expect(running).toMatchObject({ code: 3, bad: expect.arrayContaining([expect.objectContaining({ check: "rights" })]) });
  const refused = await run("app", ["start", folder, "--port", "0"], { ...env, ...secrets });
  expect(refused).toMatchObject({
    code: 3,
    err: expect.stringMatching(/^ANCRAGE_NOT_PERMITTED: PostgreSQL refused the role "app".*\n.*--grant-to app/),
  });
  expect((await run("owner", ["migrate", folder, "--grant-to", "app"], env)).code).toBe(0);
  expect((await doctor("app", env)).bad.filter(({ severity }) => severity === "error")).toEqual([]);

  expect(await run("app", ["start", folder, "--port", "0"], { ...elsewhere, ...secrets })).toMatchObject({ code: 2 });
  const stopping = new AbortController();
  const started = run("app", ["start", folder, "--port", "0", "--log-level", "silent"], { ...env, ...secrets }, stopping.signal);
  await admin.query("insert into orders values (1, 5); update orders set total = 6");
  // It makes the partitions of the day, which are the owner's, and writes into them.
  const isJournaled = async (): Promise<boolean> =>
    (await admin.query("select from ancrage.messages where event = 'OrderPaid'")).rowCount === 1;
  while (!(await isJournaled())) await new Promise((resolve) => setTimeout(resolve, 50));
  stopping.abort();
  expect(await started).toMatchObject({ code: 0, out: expect.stringContaining("Ancrage listens on") });
  expect(await run("app", ["slot", "status"])).toMatchObject({ code: 0, out: expect.stringContaining("resume") });
  await admin.end();
});

const secrets = { ANCRAGE_TOKEN: "a-token-of-the-operator", ANCRAGE_SECRET_KEY: Buffer.alloc(32, 7).toString("base64") };

test("a server and its copy are two, whatever identifier they have", async () => {
  const [here, there] = [await server.connect("postgres"), new pg.Client({ connectionString: inject("serverUrl") })];
  await there.connect();
  expect(await findElsewhere(here, there)).toMatchObject({ code: "ANCRAGE_OPTION_INVALID" });
  expect(await findElsewhere(here, await server.connect("postgres"))).toBeUndefined();
  await there.end();
});

test("without a folder the server and the roles are checked; a server that does not answer is one error", async () => {
  const { code, out } = await run("owner", ["doctor"]);
  expect(code).toBe(3);
  expect(out).toContain('ERROR    the role "owner" may not read the log');
  expect(await run("owner", ["doctor", "--fix"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("--fix: expected a folder, got none"),
  });
  const silent = await run("owner", ["doctor", "--json"], { DATABASE_URL: "postgres://app:hunter2@127.0.0.1:1/shop" });
  expect(silent.code).toBe(3);
  expect(JSON.parse(silent.out)).toMatchObject({ worst: "error", findings: [{ check: "connection" }] });
  expect(silent.out).not.toContain("hunter2");
});

test("a database in SQL_ASCII is refused by doctor and by what would start all the same, with the way out", async () => {
  await (
    await server.connect("postgres")
  ).query("create database ascii encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'");
  // Why: what reads the log meets this, and again at the same place each time.
  const ascii = await server.connect("ascii");
  await ascii.query("create table orders (id integer primary key, name text); create publication why for table orders");
  await ascii.query("select pg_create_logical_replication_slot('why', 'pgoutput')");
  await ascii.query("set synchronous_commit = on; insert into orders values (1, E'\\xe9')");
  const read = "select pg_logical_slot_get_binary_changes('why', null, null, 'proto_version', '1', 'publication_names', 'why')";
  await expect(ascii.query(read)).rejects.toMatchObject({ code: "22021" });

  const on = { DATABASE_URL: server.url("ascii") };
  const looked = await run("owner", ["doctor", "--json"], on);
  expect(looked.code).toBe(3);
  expect((JSON.parse(looked.out) as { findings: Finding[] }).findings.find(({ check }) => check === "encoding")).toMatchObject({
    severity: "error",
    message: expect.stringMatching(/SQL_ASCII, expected one that says what its texts are/),
    mend: [expect.stringContaining("encoding 'UTF8'")],
  });
  for (const command of ["migrate", "start"]) {
    const refused = await run("owner", [command, folder], { ...on, ...secrets });
    expect(refused).toMatchObject({
      code: 3,
      err: expect.stringMatching(/^ANCRAGE_NOT_MIGRATED: the encoding of the database "ascii" is SQL_ASCII/),
    });
  }
});
