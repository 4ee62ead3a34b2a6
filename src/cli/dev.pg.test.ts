import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import pg from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import { cloneDatabase } from "../../test/database.ts";
import { forkPipeline } from "../dev/forked-pipeline.ts";
import { type AncrageProcess, startAncrage } from "../../test/ancrage-process.ts";

const library = new URL("../index.ts", import.meta.url).href;

let folder: string;
let running: AncrageProcess[];
beforeEach(async () => {
  running = [];
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  // As root the database runs as another user, who must get to his folder in it.
  await chmod(folder, 0o755);
  await mkdir(join(folder, "events"));
  await writeFile(join(folder, "schema.sql"), "create table deal (id bigint primary key, label text not null);");
  await writeEvent("Won", "({ id: deal.id, label: deal.label })");
});
afterEach(async () => {
  await Promise.all(running.map((dev) => dev.end("SIGTERM")));
  await rm(folder, { recursive: true, force: true });
});

function writeEvent(name: string, payload: string): Promise<void> {
  const source = `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "deal", on: "insert", payload: (deal) => ${payload} });\n`;
  return writeFile(join(folder, "events", `${name}.ts`), source);
}

function startDev(...words: readonly string[]): AncrageProcess {
  const dev = startAncrage(["dev", folder, "--port", "0", ...words]);
  running.push(dev);
  return dev;
}

interface Ready {
  readonly ready: true;
  readonly url: string;
  readonly token: string;
  readonly database: string;
}

async function readyLine(dev: AncrageProcess): Promise<Ready> {
  return JSON.parse(await dev.line(/^\{"ready":true/)) as Ready;
}

async function subscribe({ url, token }: Ready, receiver: string): Promise<void> {
  const response = await fetch(`${url}/v1/subscriptions`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ event: "Won", url: `${url}/_dev/receiver/${receiver}` }),
  });
  expect(response.status).toBe(201);
}

async function query(database: string, sql: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const client = new pg.Client({ connectionString: database });
  // A server that is going down ends a session that it has just taken: that is an answer, and no fault of the test.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

/** The temporary folder of an ephemeral dev. */
async function stateFolderOf({ database }: Ready): Promise<string> {
  const [row] = await query(database, "show data_directory");
  return dirname(String(row?.["data_directory"]));
}

function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function received({ url }: Ready, receiver: string): Promise<readonly { readonly body: { readonly data?: unknown } }[]> {
  const response = await fetch(`${url}/_dev/receiver/${receiver}`);
  return ((await response.json()) as { data: readonly { body: { data?: unknown } }[] }).data;
}

/** Whether a PostgreSQL of that address still takes connections. */
async function isUp(database: string): Promise<boolean> {
  return query(database, "select 1").then(
    () => true,
    () => false,
  );
}

test("an ephemeral dev: one line of JSON, a delivery, and nothing left behind", async () => {
  const dev = startDev("--ephemeral", "--json");
  const ready = await readyLine(dev);
  expect(Object.keys(ready)).toEqual(["ready", "url", "token", "database"]);
  await subscribe(ready, "demo");
  await query(ready.database, "insert into deal values (1, 'A')");
  await expect
    .poll(() => received(ready, "demo"), { timeout: 10_000 })
    .toMatchObject([{ body: { type: "Won", data: { id: "1", label: "A" } } }]);
  const state = await stateFolderOf(ready);
  expect(await isThere(state)).toBe(true);
  expect(await dev.end("SIGTERM")).toBe(0);
  expect(dev.out).toHaveLength(1);
  expect(await isUp(ready.database)).toBe(false);
  expect(await readdir(join(folder, ".ancrage"))).toEqual([".gitignore"]);
  expect(await isThere(state)).toBe(false);
});

test("an ephemeral dev leaves alone what DATABASE_URL and ANCRAGE_REPLICATION_URL name, and says so", async () => {
  const other = await cloneDatabase();
  try {
    const dev = startAncrage(["dev", folder, "--port", "0", "--ephemeral", "--json"], {
      DATABASE_URL: other.url,
      ANCRAGE_REPLICATION_URL: other.url,
    });
    running.push(dev);
    const ready = await readyLine(dev);
    expect(ready.database).not.toBe(other.url);
    expect(dev.err.join("\n")).toMatch(
      /^DATABASE_URL .* and ANCRAGE_REPLICATION_URL .* are ignored: --ephemeral takes a database of its own/m,
    );
    expect(await query(other.url, "select from pg_replication_slots where database = current_database()")).toEqual([]);
    // schema.sql is run while a database has no tables, as this one.
    expect(await query(other.url, "select to_regclass('deal') as deal")).toEqual([{ deal: null }]);
    const both = startDev("--ephemeral", "--database", other.url);
    expect(await both.ended).toBe(2);
  } finally {
    await other.remove();
  }
});

test("what a folder keeps outlives a dev: data, token, port of the database; a second one is refused meanwhile", async () => {
  const first = startDev("--json");
  const before = await readyLine(first);
  await query(before.database, "insert into deal values (1, 'A')");
  const second = startDev("--json");
  expect(await second.ended).toBe(1);
  expect(second.err.join("\n")).toContain(`already runs on ${folder} and serves ${before.url}`);
  expect(await first.end("SIGINT")).toBe(0);

  const after = await readyLine(startDev("--json"));
  expect(after).toMatchObject({ token: before.token, database: before.database });
  await expect(query(after.database, "insert into deal values (1, 'again')")).rejects.toThrow("duplicate key");
});

test("a change is taken over, a mistake is shown and changes nothing, and the receiver keeps what it has", async () => {
  const dev = startDev("--ephemeral");
  await dev.line(/Ancrage is ready/);
  const file = JSON.parse(await readFile(join(folder, ".ancrage", "dev.json"), "utf8")) as Ready;
  await subscribe(file, "demo");
  await query(file.database, "insert into deal values (1, 'A')");
  await expect.poll(() => received(file, "demo"), { timeout: 10_000 }).toHaveLength(1);
  await dev.line(/^\d\d:\d\d:\d\d deal 1 insert → Won$/);
  await dev.line(/^\d\d:\d\d:\d\d Won 1 delivered: 200 in \d+ ms \(msg_\w+\)$/);

  await writeEvent("Won", "({ shout: deal.label.toUpperCase() })");
  await dev.line(/^Reloaded: Won\.$/);
  await query(file.database, "insert into deal values (2, 'b')");
  await expect
    .poll(() => received(file, "demo"), { timeout: 10_000 })
    .toMatchObject([{ body: { data: { shout: "B" } } }, { body: { data: { label: "A" } } }]);

  await writeFile(join(folder, "events", "Won.ts"), "export default { oops");
  await dev.line(/The pipeline goes on as it was before/);
  expect(dev.err.join("\n")).toContain("events/Won.ts");
  await query(file.database, "insert into deal values (3, 'c')");
  await expect.poll(() => received(file, "demo"), { timeout: 10_000 }).toHaveLength(3);

  // An import that never ends holds up no later change.
  await writeFile(join(folder, "events", "Won.ts"), `console.log("for ever"); await new Promise(() => {});`);
  await dev.line(/^for ever$/);
  await writeEvent("Won", "({})");
  await writeEvent("Lost", "({})");
  await dev.line(/^Reloaded: Lost, Won\.$/);
  expect(await dev.end("SIGINT")).toBe(0);
});

test("a mistake that is saved after the check does not stop what was checked; where another process takes over, it ends", async () => {
  const database = await cloneDatabase();
  await database.client.query("create table deal (id bigint primary key, label text not null)");
  const flags = { database: database.url, port: "0" };
  const made = { token: "anc_0123456789abcdef", secretKey: Buffer.alloc(32).toString("base64") };
  // Said by the config, from one reload to the next: what dev made is for where nobody says otherwise.
  await writeFile(join(folder, "ancrage.config.ts"), `export default { token: "of-the-config-0123", allowNetworks: ["10.0.0.0/8"] };`);
  const pipeline = forkPipeline({
    module: new URL("./dev-child.ts", import.meta.url),
    prepare: () => ({ kind: "prepare", folder, flags, made, orphaned: { databasePid: undefined, folder: undefined } }),
    onLine: () => undefined,
  });
  try {
    expect(await pipeline.prepare()).toEqual({ kind: "prepared", events: ["Won"], graceS: 10 });
    await writeFile(join(folder, "events", "Lost.ts"), "export default { oops");
    expect(await pipeline.serve({ port: 0, received: {} })).toMatchObject({ kind: "ready", token: "of-the-config-0123" });
    await database.client.query("insert into deal values (1, 'A')");
    await expect.poll(() => query(database.url, "select from ancrage.messages"), { timeout: 10_000 }).toHaveLength(1);
    // What another process that leads would write: the number of the next batch is taken.
    await database.client.query(
      `insert into ancrage.batches
       select (jsonb_populate_record(b, jsonb_build_object('number', number + 1, 'epoch', epoch + 1))).*
       from ancrage.batches b order by number desc limit 1`,
    );
    await database.client.query("insert into deal values (2, 'B')");
    expect(await pipeline.ended).toBe("exit code 1");
  } finally {
    await pipeline.stop();
    await database.remove();
  }
});

test("a mistake at the start ends a dev that a program waits for: 2; its database is gone", async () => {
  await writeFile(join(folder, "events", "Won.ts"), "export default 1;");
  const dev = startDev("--ephemeral", "--json");
  expect(await dev.ended).toBe(2);
  expect(dev.out).toEqual([]);
  expect(JSON.parse(dev.err.at(-1) ?? "")).toMatchObject({
    error: { code: "ANCRAGE_DEFINITION_INVALID", message: expect.stringContaining("events/Won.ts") },
  });
});

test("without --json it waits for the mistake to be mended", async () => {
  await writeFile(join(folder, "events", "Won.ts"), "export default 1;");
  const dev = startDev("--ephemeral");
  await dev.line(/Nothing runs until this is mended/);
  await writeEvent("Won", "({})");
  expect(await dev.line(/Ancrage is ready/)).toContain("Ancrage is ready");
});

test("a schema.sql that PostgreSQL refuses ends it: 1, with the line", async () => {
  await writeFile(join(folder, "schema.sql"), "create table deal (id bigint primary key);\ncreate tabel x ();");
  const dev = startDev("--ephemeral");
  expect(await dev.ended).toBe(1);
  expect(dev.err.join("\n")).toContain('schema.sql:2: syntax error at or near "tabel"');
});

test("a dev whose terminal is closed, or that is killed, leaves no database behind", async () => {
  const dev = startAncrage(["dev", folder, "--port", "0", "--ephemeral", "--json"], {}, { hasOwnGroup: true });
  running.push(dev);
  const ready = await readyLine(dev);
  const state = await stateFolderOf(ready);
  dev.sendToGroup("SIGHUP");
  await dev.ended;
  await expect.poll(() => isUp(ready.database), { timeout: 20_000 }).toBe(false);
  await expect.poll(() => isThere(state), { timeout: 20_000 }).toBe(false);
  // Its dev.json is still there, and keeps nobody from the folder: the process is gone.
  expect(await isThere(join(folder, ".ancrage", "dev.json"))).toBe(true);
  expect((await readyLine(startDev("--json"))).ready).toBe(true);
});
