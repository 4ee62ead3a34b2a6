import { execFile } from "node:child_process";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, expect, test } from "vitest";
import { createAncrage } from "../../src/create-ancrage.ts";
import { freePort } from "../../src/dev/embedded-postgres.ts";
import { defineEvent } from "../../src/event/define.ts";
import { startOwnServer } from "../own-server.ts";
import { startSystem } from "./system.ts";

/**
 * A primary, and a standby that keeps the slot, promoted after a crash of the primary. Half a minute, since PostgreSQL brings slots to a
 * standby when it likes; run with ANCRAGE_TEST_FAILOVER=1.
 */
const isAsked = process.env["ANCRAGE_TEST_FAILOVER"] !== undefined;
const run = promisify(execFile);
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });

const cleanups: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.toReversed()) await cleanup();
});

/** The standby's server program refuses to run as root, as the primary's does. */
async function asServer(): Promise<{ uid?: number; gid?: number }> {
  if (userInfo().uid !== 0) return {};
  const [uid, gid] = await Promise.all([run("id", ["-u", "postgres"]), run("id", ["-g", "postgres"])]);
  return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
}

async function pgCtl(...words: readonly string[]): Promise<void> {
  const { postgres } = (await import(`@embedded-postgres/${process.platform}-${process.arch}`)) as { postgres: string };
  await run(join(dirname(postgres), "pg_ctl"), [...words], { ...(await asServer()), env: { ...process.env, LC_MESSAGES: "C" } });
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: "test" });
  client.on("error", () => undefined);
  await client.connect();
  cleanups.push(() => client.end().catch(() => undefined));
  return client;
}

async function until(client: pg.Client, sql: string): Promise<void> {
  while ((await client.query<{ ok: boolean }>(`select (${sql}) as ok`)).rows[0]?.ok !== true) {
    await new Promise((done) => setTimeout(done, 100));
  }
}

test.runIf(isAsked)(
  "a standby that keeps the failover slot is promoted: capture goes on there, and nothing is lost",
  { timeout: 240_000 },
  async () => {
    const primary = await startOwnServer();
    cleanups.push(() => primary.remove());
    const database = await primary.createDatabase("shop");
    await database.client.query("select pg_create_physical_replication_slot('standby', true)");
    const { port } = new URL(primary.url("shop"));
    const directory = await mkdtemp(join(tmpdir(), "ancrage-test-"));
    cleanups.push(() => rm(directory, { recursive: true, force: true }));
    const data = join(directory, "data");
    await primary.restart(async () => {
      await cp(primary.directory, data, { recursive: true, preserveTimestamps: true });
      const settings = {
        primary_conninfo: `host=127.0.0.1 port=${port} user=postgres password=postgres dbname=shop`,
        primary_slot_name: "standby",
        hot_standby_feedback: "on",
        sync_replication_slots: "on",
        wal_level: "logical",
        listen_addresses: "127.0.0.1",
        unix_socket_directories: "",
        max_connections: "200",
        max_wal_senders: "64",
        max_replication_slots: "64",
        fsync: "off",
      };
      const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'`);
      await writeFile(join(data, "postgresql.auto.conf"), `${lines.join("\n")}\n`);
      await writeFile(join(data, "standby.signal"), "");
      const { uid, gid } = await asServer();
      if (uid !== undefined) await run("chown", ["-R", `${uid}:${gid}`, directory]);
    });
    const standbyPort = await freePort();
    await pgCtl("start", "-w", "-D", data, "-l", join(directory, "log"), "-o", `-p ${standbyPort}`);
    cleanups.push(() => pgCtl("stop", "-m", "immediate", "-D", data));

    const client = await connect(primary.url("shop"));
    await until(client, "exists (select from pg_stat_replication where state = 'streaming')");
    // Nothing reaches a receiver that the standby has not, and no batch is committed that it has not.
    await client.query("alter system set synchronized_standby_slots = 'standby'");
    await client.query("alter system set synchronous_standby_names = '*'");
    await client.query("select pg_reload_conf()");
    const system = await startSystem({
      schema: "create table item (id integer primary key)",
      events: { ItemCreated },
      options: { failover: true },
      database: { ...database, client, connect: () => connect(primary.url("shop")) },
    });
    cleanups.push(() => system.close());
    const { status } = await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: system.receiver.url, format: "bare" });
    expect(status).toBe(201);
    await system.rows("insert into item values (1)");
    await system.receiver.until((all) => all.length === 1);

    const standby = await connect(`postgres://postgres:postgres@127.0.0.1:${standbyPort}/shop`);
    const begun = performance.now();
    await until(
      standby,
      "exists (select from pg_replication_slots where slot_name like 'ancrage%' and failover and synced and not temporary)",
    );
    const syncedMs = performance.now() - begun;
    for (let id = 2; id <= 50; id++) await client.query("insert into item values ($1)", [id]);
    // As a machine that is gone: nothing is given back, and what is on its way is lost with it.
    process.kill(primary.pid(), "SIGQUIT");
    const promoted = performance.now();
    await standby.query("select pg_promote()");
    await system.ancrage().stop();

    const options = { ...system.options, database: `postgres://postgres:postgres@127.0.0.1:${standbyPort}/shop` };
    const next = createAncrage({ ...options, logLevel: "silent" });
    cleanups.push(() => next.stop());
    await next.start();
    await standby.query("insert into item values (1000)");
    await system.receiver.until((all) => all.some(({ body }) => body === '{"id":1000}'));
    const goesOnMs = performance.now() - promoted;
    // What was committed when the primary went, and is on the standby.
    const { rows } = await standby.query<{ id: number }>("select id from item order by id");
    await system.receiver.until((all) => new Set(all.map(({ body }) => body)).size === rows.length);
    const answer = await next.fetch(
      new Request("http://ancrage.test/v1/status", { headers: { authorization: `Bearer ${String(system.options.token)}` } }),
    );
    expect(await answer.json()).toMatchObject({ isReady: true, problems: [] });
    const twice = await standby.query("select key from ancrage.messages group by key having count(*) > 1");
    expect(twice.rows).toEqual([]);
    process.stdout.write(
      `failover: slot on the standby after ${Math.round(syncedMs)} ms; promoted and sending after ${Math.round(goesOnMs)} ms; ${rows.length} rows, ${system.receiver.requests.length} requests\n`,
    );
  },
);
