import { afterAll, beforeAll, expect, test } from "vitest";
import { migrateSchema } from "../src/store/migrate.ts";
import type { TestDatabase } from "./database.ts";
import { startOwnServer, type OwnServer } from "./own-server.ts";
import { startProxy } from "./proxy.ts";
import { commits, migrateCapture, startSource } from "./wal-source.ts";

/** How a server that is busy is told from one that is gone. Its own, since a transaction of a million rows is in everybody's log. */
const senderTimeoutMs = 500;
const rows = Number(process.env["ANCRAGE_TEST_ROWS"] ?? 500_000);
let server: OwnServer;
let database: TestDatabase;

beforeAll(async () => {
  server = await startOwnServer({ max_wal_size: "4GB" });
  database = await server.createDatabase("alive");
  await migrateSchema(database.client);
  await database.client.query("create table deal (id integer primary key); create table untracked (id integer)");
  await migrateCapture(database, { deal: "inserts" });
});
afterAll(() => server.remove());

test("a connection of which one end is gone without a word is given up after two timeouts, and made anew", async () => {
  const proxy = await startProxy(database.url);
  const { source, until } = await startSource(database, { senderTimeoutMs, replicationUrl: proxy.url });
  proxy.stall({ connection: 0 });
  await database.client.query("insert into deal values (1)");
  const items = await until(commits(1));
  expect(items).toMatchObject([{ kind: "change", key: "1" }, { kind: "commit" }]);
  for (const item of items) if (item.kind === "commit") source.confirm(item.endLsn);
  await source.stop();
  await proxy.close();
});

test("a silent session is not given up while the question about it has no answer", async () => {
  const proxy = await startProxy(database.url);
  const { source, until } = await startSource(database, { senderTimeoutMs, replicationUrl: proxy.url });
  const before = await walSenders();
  proxy.stall({ connection: 0, answersOnly: true });
  await proxy.refuse();
  await database.client.query("insert into deal values (3)");
  proxy.resume();
  expect((await until(commits(1))).map((item) => item.kind)).toEqual(["change", "commit"]);
  expect(await walSenders()).toEqual(before);
  await source.stop();
  await proxy.close();
});

// A machine that is busy with other things takes many times as long to write and to skip it.
test("a server that skips a large transaction for several timeouts is not taken for dead", { timeout: 180_000 }, async () => {
  const { source, until } = await startSource(database, { senderTimeoutMs });
  const [before] = await walSenders();
  await database.client.query(`begin; insert into untracked select generate_series(1, ${rows}); commit`);
  await database.client.query("insert into deal values (2)");
  const items = await until(commits(1));
  expect(items.map((item) => item.kind)).toEqual(["change", "commit"]);
  expect(await walSenders()).toEqual([before]);
  await source.stop();
});

async function walSenders(): Promise<readonly number[]> {
  const { rows: senders } = await database.client.query<{ pid: number }>("select pid from pg_stat_replication order by pid");
  return senders.map(({ pid }) => pid);
}
