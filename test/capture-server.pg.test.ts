import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Captured } from "../src/capture/change.ts";
import { EmbeddedPostgres } from "../src/dev/embedded-postgres.ts";
import { Journal } from "../src/journal/journal.ts";
import { migrateSchema } from "../src/store/migrate.ts";
import { commits, migrateCapture, startSource } from "./wal-source.ts";

/** What can be done only to a server of one's own: its settings, and its restarts. */
let directory: string;
let server: EmbeddedPostgres;
let sessions: pg.Client[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  server = new EmbeddedPostgres({ directory, isThrowaway: true });
  sessions = [];
  await server.start();
  const client = await connect();
  await migrateSchema(client);
  await client.query("create table deal (id integer primary key, label text)");
  await migrateCapture({ client }, { deal: "inserts" });
});
afterEach(async () => {
  await Promise.all(sessions.map((session) => session.end().catch(() => undefined)));
  await server.remove();
});

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.url(), application_name: "test" });
  client.on("error", () => undefined);
  await client.connect();
  sessions.push(client);
  return client;
}

test("what waits for a synchronous standby is committed and not visible, and does not leave capture", async () => {
  const admin = await connect();
  const [writer, prober] = [await connect(), await connect()];
  const { source, until } = await startSource({ client: admin, url: server.url() });
  await admin.query("create table other (id integer)");
  await admin.query("alter system set synchronous_standby_names = 'ghost'");
  await admin.query("select pg_reload_conf()");
  // When the server heeds it, this one waits.
  await prober.query("set synchronous_commit = on");
  const reset = new AbortController();
  const probing = (async () => {
    while (!reset.signal.aborted) await prober.query("insert into other values (1)");
  })();
  while ((await admin.query("select 1 from pg_stat_activity where wait_event = 'SyncRep'")).rowCount === 0);
  await writer.query("set synchronous_commit = on");
  let isAnswered = false;
  const written = writer.query("insert into deal values (1, 'a')").then(() => (isAnswered = true));
  // Several looks at it: the change is there, and its writer still waits.
  const taken: Captured[] = [];
  for (let looks = 0; looks < 8;) {
    if (!source.hasWork()) {
      await new Promise<void>((resolve) => source.onWork(resolve));
      continue;
    }
    taken.push(...(await source.take(10)));
    looks++;
  }
  expect(taken).toEqual([]);
  expect(isAnswered).toBe(false);
  reset.abort();
  await admin.query("alter system reset synchronous_standby_names");
  await admin.query("select pg_reload_conf()");
  expect((await until(commits(1))).map((item) => item.kind)).toEqual(["change", "commit"]);
  await Promise.all([written, probing]);
  await source.stop();
});

// Nothing is confirmed here, and the server shuts down all the same.
test("a restart of the server ends neither capture nor the journal, nor a standby of it", async () => {
  const log = pino({ level: process.env["LOG"] ?? "silent" });
  const options = { connectionString: server.url(), sourceId: "wal-test", processName: "test", log };
  const before = await connect();
  const { source, until } = await startSource({ client: before, url: server.url() });
  const [journal, standby] = [new Journal(options), new Journal(options)];
  await journal.lead(() => expect.fail("another one leads"));
  const waits = Promise.withResolvers<void>();
  const leading = standby.lead(waits.resolve);
  await waits.promise;

  await before.query("insert into deal values (1, 'before')");
  const taken = await until(commits(1));
  const { port } = server;
  await server.stop();
  server = new EmbeddedPostgres({ directory, isThrowaway: true, preferredPort: port });
  await server.start();
  expect(server.port).toBe(port);

  const after = await connect();
  await after.query("insert into deal values (2, 'after')");
  taken.push(...(await until(commits(1))));
  expect(taken.flatMap((item) => (item.kind === "change" ? [item.key] : []))).toEqual(["1", "2"]);
  const position = { commitLsn: 1n, changeLsn: 1n, ordinal: 0 };
  const empty = { messages: [], rejections: [], updates: [], starts: [], journaled: position, endLsn: 2n };
  // Whichever of the two came first to the lock leads; the other knows that it does not.
  const outcome = await Promise.race([
    journal.commit(empty).then(
      () => "the first goes on",
      (error: unknown) => error,
    ),
    leading.then(() => "the standby leads"),
  ]);
  if (outcome === "the first goes on") await journal.stop();
  expect(await leading).not.toBe("stopped");
  await standby.commit(empty);
  await expect(journal.commit(empty)).rejects.toThrow(/another process appends|stopped while a batch/);
  await Promise.all([source.stop(), journal.stop(), standby.stop()]);
});

test("a server shuts down while more of its log is unread than is held at once, and nobody takes any of it", async () => {
  const client = await connect();
  const { source } = await startSource({ client, url: server.url() });
  await client.query("insert into deal select i, repeat('x', 1500) from generate_series(1, 40000) i");
  const left = async (): Promise<boolean> => {
    const { rows } = await client.query<{ left: boolean }>(
      "select bool_and(sent_lsn < pg_current_wal_flush_lsn()) and count(*) > 0 as left from pg_stat_replication",
    );
    return rows[0]?.left === true;
  };
  while (!(await left()) || !source.hasWork());
  const { promise: disconnected, resolve } = Promise.withResolvers<void>();
  client.on("end", resolve);
  // Whoever would take may wait for the database itself, to journal what was taken before.
  const stopped = server.stop();
  await disconnected;
  await stopped;
  await expect(connect()).rejects.toThrow("ECONNREFUSED");
  await source.stop();
});
