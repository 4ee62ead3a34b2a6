import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runProgram } from "../../src/cli/program.ts";
import { migrateSchema } from "../../src/store/migrate.ts";
import { startAncrage, type AncrageProcess } from "../ancrage-process.ts";
import { copyCluster } from "../copy-cluster.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import { startReceiver, type Receiver } from "../receiver.ts";

/**
 * What becomes of a server as a whole: restored from a dump, from its files, promoted without the slot, put back under a process that runs.
 * Each with `ancrage start` as its user runs it, and mended by its words alone.
 */
const token = "a-token-of-the-operator";
const environment = { ANCRAGE_TOKEN: token, ANCRAGE_SECRET_KEY: Buffer.alloc(32, 7).toString("base64") };
/** What the next command is told. */
let capture: "wal" | "outbox" = "wal";
const library = new URL("../../src/index.ts", import.meta.url).href;

let folder: string;
let receiver: Receiver;
let server: OwnServer;
let session: pg.Client;
const cleanups: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, "events"));
  await writeFile(
    join(folder, "events", "ItemCreated.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item.id }) });\n`,
  );
  receiver = await startReceiver();
  cleanups.push(() => receiver.close());
  server = await startOwnServer();
  cleanups.push(() => server.remove());
  session = (await server.createDatabase("shop")).client;
  await session.query("create table item (id integer primary key)");
  expect(await cli(server, "migrate", folder)).toMatchObject({ code: 0 });
});
afterAll(async () => {
  for (const cleanup of cleanups.toReversed()) await cleanup();
});

/** The command line, in this process. */
async function cli(on: OwnServer, ...words: readonly string[]): Promise<{ code: number; text: string }> {
  const text: string[] = [];
  const code = await runProgram(words, {
    env: { DATABASE_URL: on.url("shop"), ANCRAGE_CAPTURE: capture, ...environment },
    workingFolder: folder,
    print: (line) => text.push(line),
    note: (line) => text.push(line),
    heedStopping: () => AbortSignal.abort(),
  });
  return { code, text: text.join("\n") };
}

const run = (on: OwnServer, ...words: readonly string[]): AncrageProcess =>
  startAncrage(["start", folder, "--port", "0", "--allow-http", "--allow-network", "127.0.0.0/8", ...words], {
    DATABASE_URL: on.url("shop"),
    ANCRAGE_CAPTURE: capture,
    ...environment,
  });

interface Running {
  readonly child: AncrageProcess;
  call(method: string, path: string, body?: unknown): Promise<{ readonly status: number; readonly body: any }>; // oxlint-disable-line typescript/no-explicit-any
}

async function start(on: OwnServer, ...words: readonly string[]): Promise<Running> {
  const child = run(on, ...words);
  cleanups.push(async () => child.end("SIGKILL"));
  const url = /http\S+[^.\s]/.exec(await child.line(/Ancrage listens on/))?.[0] ?? "";
  return {
    child,
    async call(method, path, body) {
      const answer = await fetch(`${url}${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      return { status: answer.status, body: path.startsWith("/v1") ? JSON.parse(text) : text };
    },
  };
}

const subscribe = ({ call }: Running): Promise<unknown> =>
  call("POST", "/v1/subscriptions", { event: "ItemCreated", url: receiver.url, format: "bare" });
const insert = (into: pg.Client, id: number): Promise<unknown> => into.query("insert into item values ($1)", [id]);
const count = (id: number): number => receiver.requests.filter(({ body }) => body === `{"id":${id}}`).length;
const received = (id: number): Promise<unknown> => receiver.until(() => count(id) > 0);
const connect = async (to: OwnServer): Promise<pg.Client> => await to.connect("shop");

/** What `pg_restore` would bring, where no `pg_dump` of this version is at hand: the rows, under the oids and the identity of another server. */
async function restoreDump(from: pg.Client, to: pg.Client): Promise<void> {
  await to.query("create table item (id integer primary key)");
  await migrateSchema(to);
  for (const table of ["settings", "subscriptions", "batches"]) {
    const { rows: columns } = await from.query<{ names: string }>(
      `select string_agg(quote_ident(attname), ', ') as names from pg_attribute
       where attrelid = $1::regclass and attnum > 0 and not attisdropped and attgenerated = ''`,
      [`ancrage.${table}`],
    );
    const names = columns[0]?.names ?? "";
    const { rows } = await from.query<{ rows: unknown }>(
      `select coalesce(json_agg(t), '[]') as rows from (select ${names} from ancrage.${table}) as t`,
    );
    await to.query(`truncate ancrage.${table}`);
    await to.query(
      `insert into ancrage.${table} (${names}) overriding system value
       select ${names} from json_populate_recordset(null::ancrage.${table}, $1)`,
      [JSON.stringify(rows[0]?.rows)],
    );
  }
}

/**
 * @param base what its rows are numbered from: the receiver has those of other tests too
 * @returns the status at the end
 */
async function putBack(server: OwnServer, base: number): Promise<unknown> {
  let session = await connect(server);
  const first = await start(server);
  await subscribe(first);
  await insert(session, base + 1);
  await received(base + 1);
  // As a snapshot of its volume has it, of a server that runs: the process goes on, and the snapshot has it as the one that leads.
  const snapshot = `${server.directory}.snapshot`;
  cleanups.push(() => rm(snapshot, { recursive: true, force: true }));
  await server.restart(async () => void (await copyCluster(server.directory, snapshot)), {}, "immediate");
  session = await connect(server);
  await insert(session, base + 2);
  await received(base + 2);
  await session.query("select pg_logical_emit_message(true, 'filler', repeat('x', 4000000))");
  await insert(session, base + 3);
  await received(base + 3);
  await server.restart(async () => void (await copyCluster(snapshot, server.directory)));
  session = await connect(server);
  // Its log begins again where the process has read already.
  await insert(session, base + 4);
  expect(await first.child.ended).toBe(1);
  const last = first.child.err.join("\n");
  expect(last).toMatch(/ANCRAGE_JOURNAL_WENT_BACK: the journal ends at batch \d+, and this process has committed batch \d+/);
  expect(last).toContain("Start it anew: it goes on from where this database stands.");
  const second = await start(server);
  await received(base + 4);
  const { body } = await second.call("GET", "/v1/status");
  expect(await second.child.end("SIGTERM")).toBe(0);
  return body;
}

test("put back under a process that runs: it ends and says so, and started anew it misses nothing of what is written there", async () => {
  expect(await putBack(server, 0)).toMatchObject({ problems: [] });
  session = await connect(server);
});

test("a dump that is restored into another server neither captures nor sends until it is adopted", async () => {
  const other = await startOwnServer({}, { isOfItsOwnIdentity: true });
  cleanups.push(() => other.remove());
  const { client } = await other.createDatabase("shop");
  await restoreDump(session, client);
  const child = run(other);
  expect(await child.ended).toBe(3);
  expect(child.err.join("\n")).toMatch(
    /ANCRAGE_DATABASE_COPIED: this database is a copy: it was migrated on the server \d+, and this is \d+ \(a restored dump, .*ancrage adopt FOLDER/s,
  );
  expect(await cli(other, "doctor", folder)).toMatchObject({ code: 3, text: expect.stringContaining("this database is a copy") });
  expect(await cli(other, "migrate", folder)).toMatchObject({ code: 3 });
  expect(await cli(other, "adopt", folder)).toMatchObject({ code: 0, text: expect.stringMatching(/paused/) });
  const adopted = await start(other);
  const before = receiver.requests.length;
  await insert(client, 5);
  while ((await client.query("select from ancrage.messages where key = '5'")).rowCount === 0)
    await new Promise((done) => setTimeout(done, 20));
  expect((await adopted.call("GET", "/v1/subscriptions")).body.data).toMatchObject([{ state: "paused" }]);
  expect(receiver.requests.length).toBe(before);
  expect(await adopted.child.end("SIGTERM")).toBe(0);
});

test("a replica that is promoted without the slot: what it has not seen is said, and comes by a backfill", async () => {
  const former = await start(server);
  await server.restart(
    async () => {
      // `pg_basebackup` brings no slots along.
      const slots = join(server.directory, "pg_replslot");
      for (const slot of await readdir(slots)) await rm(join(slots, slot), { recursive: true });
      await writeFile(join(server.directory, "recovery.signal"), "");
    },
    { restore_command: "/bin/false" },
  );
  session = await connect(server);
  expect(await former.child.ended).toBe(1);
  expect(former.child.err.join("\n")).toMatch(
    /ANCRAGE_JOURNAL_WENT_BACK: the server is on timeline 2, and was on 1 when this process took the lead/,
  );
  const promoted = await start(server);
  await insert(session, 6);
  expect(promoted.child.err.join("\n")).toMatch(
    /replication slot \\"ancrage_\d+\\" is gone\. The server is on timeline 2, and was on 1 at the last start: a replica was promoted, or a backup restored\. Changes committed after [0-9A-F]+\/[0-9A-F]+ \(\d{4}-.*Z\) are not captured/,
  );
  expect((await promoted.call("GET", "/readyz")).status).toBe(503);
  expect((await promoted.call("GET", "/v1/status")).body.problems[0]).toMatchObject({
    code: "ANCRAGE_SLOT_LOST",
    hint: expect.stringMatching(/after a failover or a restore no slot is there.*ancrage slot recreate FOLDER/),
  });
  expect(await cli(server, "slot", "status")).toMatchObject({ code: 3 });
  expect(await cli(server, "slot", "recreate", folder)).toMatchObject({
    code: 0,
    text: expect.stringContaining("ancrage backfill ItemCreated"),
  });
  expect(await promoted.child.end("SIGTERM")).toBe(0);
  const again = await start(server);
  const { body: subscriptions } = await again.call("GET", "/v1/subscriptions");
  await again.call("POST", "/v1/jobs", {
    kind: "backfill",
    event: "ItemCreated",
    subscriptionId: subscriptions.data[0].id,
    where: "id = 6",
  });
  await insert(session, 7);
  await received(6);
  await received(7);
  expect([count(6), count(7)]).toEqual([1, 1]);
  expect(await cli(server, "gaps", "resolve", "--all")).toMatchObject({ code: 0 });
  expect(await again.child.end("SIGTERM")).toBe(0);
});

test("files that are copied have the identity of the first server: started as another environment it is a copy", async () => {
  const child = run(server, "--environment", "staging");
  expect(await child.ended).toBe(3);
  expect(child.err.join("\n")).toMatch(
    /ANCRAGE_DATABASE_COPIED: this database belongs to the environment "production", and this process runs as "staging"\..*ancrage adopt FOLDER/s,
  );
  expect(await cli(server, "adopt", folder, "--environment", "staging")).toMatchObject({ code: 0 });
  const staging = await start(server, "--environment", "staging");
  const before = receiver.requests.length;
  await insert(session, 8);
  while ((await session.query("select from ancrage.messages where key = '8'")).rowCount === 0)
    await new Promise((done) => setTimeout(done, 20));
  expect(await staging.child.end("SIGTERM")).toBe(0);
  expect(receiver.requests.length).toBe(before);
});

test("put back under a process that reads an outbox: the same", async () => {
  capture = "outbox";
  const other = await startOwnServer();
  cleanups.push(() => other.remove());
  const { client } = await other.createDatabase("shop");
  await client.query("create table item (id integer primary key)");
  expect(await cli(other, "migrate", folder)).toMatchObject({ code: 0 });
  expect(await putBack(other, 100)).toMatchObject({ problems: [] });
});
