import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type AncrageProcess, startAncrage } from "../../test/ancrage-process.ts";
import { cloneDatabase, type TestDatabase } from "../../test/database.ts";

const library = new URL("../index.ts", import.meta.url).href;
const secretKey = Buffer.alloc(32, 7).toString("base64");
const token = "anc_0123456789abcdef";

let database: TestDatabase;
let folder: string;
beforeAll(async () => {
  database = await cloneDatabase();
  await database.client.query("create table deal (id bigint primary key, label text not null)");
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  await mkdir(join(folder, "events"));
  await writeFile(
    join(folder, "events", "Won.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
console.log("what a file says");
export default defineEvent({ table: "deal", on: "insert", payload: (deal) => ({ label: deal.label }) });\n`,
  );
});
afterAll(async () => {
  await database.remove();
  await rm(folder, { recursive: true, force: true });
});

/** With a password, also where the server under test asks for none. */
const withPassword = (): string => {
  const url = new URL(database.url);
  url.password ||= "a-password";
  return url.href;
};

const run = (...words: readonly string[]): AncrageProcess =>
  startAncrage(words, { DATABASE_URL: withPassword(), ANCRAGE_TOKEN: token, ANCRAGE_SECRET_KEY: secretKey });

test("start refuses a database that is not migrated: 3, with the SQL", async () => {
  const start = run("start", folder, "--port", "0");
  expect(await start.ended).toBe(3);
  expect(start.out).toEqual([]);
  expect(start.err.join("\n")).toMatch(/^ANCRAGE_NOT_MIGRATED: /m);
  expect(start.err.join("\n")).toContain("create publication");
});

test("a command that is asked to end while it waits ends at once, with its session; nobody else waits for what it waits for", async () => {
  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const asked = once(silent, "connection") as Promise<[Socket]>;
  const address = silent.address();
  const url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  const status = startAncrage(["status", "--url", url, "--token", token]);
  const [socket] = await asked;
  expect(await status.end("SIGTERM")).toBe(143);
  socket.destroy();
  silent.close();

  // A reader that takes its time is waited for with the table, a writer of anything with the slot.
  const [reader, writer] = [await database.connect(), await database.connect()];
  await reader.query("begin; lock table deal in access share mode");
  await writer.query("begin; select pg_current_xact_id()");
  const updates = join(folder, "updates");
  await mkdir(join(updates, "events"), { recursive: true });
  await writeFile(
    join(updates, "events", "Changed.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "deal", on: "update", payload: (deal) => ({ label: deal.label }) });\n`,
  );
  const migrating = run("migrate", updates);
  const migrateWaits = `select from pg_stat_activity where datname = current_database() and application_name = 'ancrage migrate' and wait_event_type = 'Lock'`;
  await expect.poll(() => count(`${migrateWaits} and query like 'alter table%identity full'`), { timeout: 10_000 }).toBe(1);
  await database.client.query("set statement_timeout = '5s'; select from deal; reset statement_timeout");
  await reader.query("commit");
  await expect.poll(() => count(`${migrateWaits} and query like '%create_logical%'`), { timeout: 10_000 }).toBe(1);
  expect(await migrating.end("SIGTERM")).toBe(143);
  await expect.poll(() => count(migrateWaits), { timeout: 10_000 }).toBe(0);
  await writer.query("commit");
});

async function count(sql: string): Promise<number | null> {
  return (await database.client.query(sql)).rowCount;
}

test("migrate tells each step and is done when run again; then start serves until it is asked to end", async () => {
  const first = run("migrate", folder, "--json");
  expect(await first.ended).toBe(0);
  const { ran } = JSON.parse(first.out.join("")) as { ran: readonly string[] };
  expect(ran.at(-1)).toContain("pg_create_logical_replication_slot");
  expect(first.err).toEqual(["what a file says", ...ran.map((step) => `done: ${step}`)]);
  const second = run("migrate", folder);
  expect(await second.ended).toBe(0);
  expect(second.out).toEqual(["Nothing to do: the database is up to date."]);

  const start = run("start", folder, "--port", "0", "--json");
  const ready = JSON.parse(await start.line(/^\{"ready":true/)) as { url: string };
  // What a container prints is kept: no token in it, and no password.
  const shown = new URL(withPassword());
  shown.password = "…";
  expect(ready).toEqual({
    ready: true,
    url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    role: "leading",
    token: null,
    database: decodeURI(shown.href),
  });
  const status = startAncrage(["status", "--json", "--url", ready.url, "--token", token]);
  expect(await status.ended).toBe(0);
  expect(JSON.parse(status.out.join(""))).toMatchObject({ isReady: true });
  expect(await start.end("SIGTERM")).toBe(0);
  expect(start.out).toHaveLength(1);

  // As one that was killed leaves it: a start waits for that lease to run out, and is asked to end meanwhile.
  await database.client.query("update ancrage.leaders set is_given_back = false");
  const waiting = run("start", folder, "--port", "0", "--json");
  await waiting.line(/its lease runs out within/);
  expect([await waiting.end("SIGTERM"), waiting.out]).toEqual([0, []]);
});

test("generate writes the types of the database", async () => {
  const generate = run("generate", folder, "--json");
  expect(await generate.ended).toBe(0);
  expect(JSON.parse(generate.out.join(""))).toEqual({ path: join(folder, "ancrage.d.ts"), isChanged: true });
  expect(await readFile(join(folder, "ancrage.d.ts"), "utf8")).toContain("readonly label: string;");
});

test("what start cannot do without is refused together: 2", async () => {
  const start = startAncrage(["start", folder], { DATABASE_URL: database.url });
  expect(await start.ended).toBe(2);
  expect(start.err.join("\n")).toBe(
    "ANCRAGE_OPTION_INVALID: options.token: expected a text of at least 16 characters without spaces, got undefined\n" +
      "options.secretKey: expected 32 bytes in base64, got undefined\n" +
      "Set ANCRAGE_TOKEN and ANCRAGE_SECRET_KEY, or the option in ancrage.config.ts.",
  );
});

test("a port that is taken: 2; a database that does not answer: 3", async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const address = other.address();
  const port = String(typeof address === "object" ? address?.port : "");
  const taken = run("start", folder, "--port", port);
  expect(await taken.ended).toBe(2);
  expect(taken.err.join("\n")).toContain(`could not listen on 127.0.0.1:${port}: another program listens there.`);
  await new Promise((resolve) => other.close(resolve));

  const silent = run("migrate", folder, "--database", "postgres://u:hunter2@127.0.0.1:1/app");
  expect(await silent.ended).toBe(3);
  expect(silent.err.join("\n")).toMatch(/^ANCRAGE_DATABASE_UNREACHABLE: /);
  expect(silent.err.join("\n")).not.toContain("hunter2");
});
