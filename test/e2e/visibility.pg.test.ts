import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import type { Captured } from "../../src/capture/change.ts";
import { EmbeddedPostgres } from "../../src/dev/embedded-postgres.ts";
import { defineEvent } from "../../src/event/define.ts";
import { startSystem } from "./system.ts";

const schema = `create table customer (id integer primary key, name text not null);
  create table deal (id integer primary key, customer_id integer not null)`;
const DealCreated = defineEvent({
  table: "deal",
  on: "insert",
  async payload(deal, { load }) {
    const customer = await load("customer", deal["customer_id"]);
    if (customer === undefined) throw new Error(`deal ${String(deal["id"])} came before its customer`);
    return { customer: customer["name"] };
  },
});

test("a parent that was inserted in the same transaction is never missed: 10,000 times, by four writers", async () => {
  const system = await startSystem({ schema, events: { DealCreated } });
  const count = 10_000;
  const writers = 4;
  await Promise.all(
    Array.from({ length: writers }, async (_, writer) => {
      const session = await system.database.connect();
      // Without it the log is written so late that all of it is visible when it comes.
      await session.query("set synchronous_commit = on");
      for (let id = writer; id < count; id += writers) {
        await session.query(`insert into customer values (${id}, 'customer ${id}'); insert into deal values (${id}, ${id})`);
      }
    }),
  );
  await system.until("select (select count(*) from ancrage.messages) + (select count(*) from ancrage.rejections)", count);
  expect(await system.rows("select convert_from(error, 'UTF8') as error from ancrage.rejections limit 3")).toEqual([]);
  const wrong = `select key from ancrage.messages where convert_from(body, 'UTF8')::jsonb <> jsonb_build_object('customer', 'customer ' || key)`;
  expect(await system.rows(wrong)).toEqual([]);
  await system.close();
});

test("what its writer still waits for, a standby that is not there, is neither captured nor sent", async () => {
  const server = new EmbeddedPostgres({
    directory: await mkdtemp(join(tmpdir(), "ancrage-test-ghost-")),
    isThrowaway: true,
    // Without it no commit waits for a standby.
    settings: { synchronous_commit: "on" },
  });
  // Also when the test fails: nobody else would end it.
  onTestFinished(() => server.remove());
  await server.start();
  const sessions: pg.Client[] = [];
  const connect = async (): Promise<pg.Client> => {
    const session = new pg.Client({ connectionString: server.url() });
    session.on("error", () => undefined);
    await session.connect();
    sessions.push(session);
    return session;
  };
  const captured: Captured[] = [];
  const system = await startSystem({
    schema,
    events: { DealCreated },
    database: { url: server.url(), name: "postgres", client: await connect(), connect, remove: async () => undefined },
    internals: { signal: (name, detail) => void (name === "captured" && captured.push(...(detail as readonly Captured[]))) },
  });
  await system.call("POST", "/v1/subscriptions", { event: "DealCreated", url: system.receiver.url, format: "bare" });
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is not null", 1);
  const isChange = ({ kind }: Captured): boolean => kind === "change";

  const ghost = async (names: string): Promise<void> => {
    await system.rows(`alter system set synchronous_standby_names = '${names}'`);
    await system.rows("select pg_reload_conf()");
    await system.until("show synchronous_standby_names", names);
  };
  await ghost("ghost");
  const writer = await connect();
  const written = writer.query("insert into customer values (1, 'Colombe'); insert into deal values (1, 1)");
  await system.until("select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like 'insert into customer%'", 1);
  // Its log has been sent to us, and we have asked several times whether others see it.
  const [{ lsn }] = (await system.rows<{ lsn: string }>("select pg_current_wal_flush_lsn() as lsn")) as [{ lsn: string }];
  await system.until(`select bool_or(sent_lsn >= '${lsn}') from pg_stat_replication`, true);
  const asked = "select query_start::text from pg_stat_activity where application_name = 'ancrage snapshots'";
  for (let times = 0; times < 3; times++) {
    const [before] = await system.rows<{ query_start: string }>(asked);
    await system.until(`select (${asked}) is distinct from ${before === undefined ? "null" : `'${before.query_start}'`}`, true);
  }
  expect(captured.filter(isChange)).toEqual([]);
  expect(system.receiver.requests).toEqual([]);

  await ghost("");
  await written;
  const [request] = await system.receiver.until((all) => all.length === 1);
  expect(request!.body).toBe('{"customer":"Colombe"}');
  expect(captured.filter(isChange).length).toBe(1);
  await system.close();
  await Promise.all(sessions.map((session) => session.end()));
});
