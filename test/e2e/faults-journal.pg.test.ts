import { spawnSync } from "node:child_process";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { sqlStateOf } from "../../src/errors.ts";
import type { Batch } from "../../src/journal/journal.ts";
import { defineEvent } from "../../src/event/define.ts";
import { startOwnServer, type OwnServer } from "../own-server.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

/** What keeps a database from taking batches, brought about on a server of this file's own: nothing is lost, confirmed, or sent twice. */
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"], filler: item["filler"] }) });

let server: OwnServer;
let system: System;
/** A file system of 32 MiB for the journal's days; undefined where this user may not mount one. */
let small: string | undefined;
/** Batches that the journal began to write, again or for the first time. */
let tried: Batch[] = [];
beforeAll(async () => {
  server = await startOwnServer({ max_connections: "30" });
  const database = await server.createDatabase("faults");
  small = await mountSmall((await stat(server.directory)).uid);
  if (small !== undefined) {
    await database.client.query(`create tablespace small location '${small}'`);
    // Of sessions that begin now: the days that they make lie there.
    await database.client.query("alter database faults set default_tablespace = small");
  }
  system = await startSystem({
    schema: "create table item (id integer generated always as identity primary key, filler text) tablespace pg_default",
    events: { ItemCreated },
    database,
    internals: { signal: (name, detail) => void (name === "journaling" && tried.push(detail as Batch)) },
  });
  await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: system.receiver.url, format: "bare" });
  await insert();
});
afterAll(async () => {
  await system.close();
  await server.remove();
  if (small === undefined) return;
  spawnSync("umount", [small]);
  await rm(small, { recursive: true });
});
beforeEach(() => {
  tried = [];
  system.receiver.answer(200);
});

async function mountSmall(owner: number): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "ancrage-small-"));
  const isMounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=32m,uid=${owner},mode=700`, "tmpfs", folder]).status === 0;
  if (!isMounted) await rm(folder, { recursive: true });
  return isMounted ? folder : undefined;
}

const requestsOf = (id: number): readonly ReceivedRequest[] =>
  system.receiver.requests.filter(({ body }) => (JSON.parse(body) as { readonly id: number }).id === id);
const arrived = (id: number): Promise<unknown> => system.receiver.until(() => requestsOf(id).length > 0);

async function insertOnly(filler = ""): Promise<number> {
  const [row] = await system.rows<{ id: number }>("insert into item (filler) values ($1) returning id", [filler]);
  return row?.id ?? 0;
}

/** A row that goes through: all is well. */
async function insert(): Promise<void> {
  await arrived(await insertOnly());
}

async function readiness(): Promise<{ readonly status: number; readonly problems: readonly string[] }> {
  const { status, body } = await system.call("GET", "/readyz");
  return { status, problems: body.problems };
}

async function untilStatus(status: number): Promise<void> {
  while ((await readiness()).status !== status) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Ends sessions of ours, so that the next ones begin under what was set meanwhile. */
const endSessions = (name: string): Promise<unknown> =>
  system.rows("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like $1", [
    name,
  ]);

const confirmed = "select max(confirmed_flush_lsn)::text as lsn from pg_replication_slots where database = current_database()";

/** Nothing that comes while the journal refuses is lost, confirmed, or sent before it is journaled; `end` is all that it takes. */
async function expectSurvival(fault: { readonly because: RegExp; readonly filler?: string; begin(): Promise<void>; end(): Promise<void> }) {
  await insert();
  await fault.begin();
  const [before] = await system.rows<{ lsn: string }>("select pg_current_wal_lsn()::text as lsn");
  const id = await insertOnly(fault.filler);
  await untilStatus(503);
  expect(await readiness()).toEqual({ status: 503, problems: ["ANCRAGE_JOURNAL_REFUSED"] });
  const { problems } = (await system.call("GET", "/v1/status")).body;
  expect(problems).toMatchObject([{ code: "ANCRAGE_JOURNAL_REFUSED", message: expect.stringMatching(fault.because) }]);
  expect(await system.rows(`select ($1::pg_lsn >= lsn::pg_lsn) as held from (${confirmed}) as slot`, [before?.lsn])).toEqual([
    { held: true },
  ]);
  expect(requestsOf(id)).toEqual([]);
  await fault.end();
  await arrived(id);
  await untilStatus(200);
  await insert();
  expect(requestsOf(id)).toHaveLength(1);
}

test("a disk that is full", async (context) => {
  if (small === undefined) return context.skip("this user may not mount a small file system");
  const filler = join(small, "filler");
  await expectSurvival({
    because: /No space left on device|could not extend file/,
    // A page more than there is.
    filler: Array.from({ length: 4_000 }, () => Math.random().toString(36)).join(""),
    begin: () => fillUp(filler),
    end: () => rm(filler),
  });
});

/** Writes until there is no room, byte by byte at the end. */
async function fillUp(file: string): Promise<void> {
  for (let bytes = 1024 * 1024; bytes >= 1; bytes = Math.floor(bytes / 2)) {
    try {
      for (;;) await writeFile(file, Buffer.alloc(bytes), { flag: "a" });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
}

test("a deadlock that the journal is ended for", async () => {
  const other = await system.database.connect();
  await expectSurvival({
    because: /deadlock detected/,
    async begin() {
      // Whoever looks finds the cycle and ends itself: the journal's session is to look, and this one not.
      await other.query("set deadlock_timeout = '1h'");
      await other.query("begin");
      await other.query("lock table ancrage.messages in exclusive mode");
      void closeTheCycle(other);
    },
    end: async () => void (await other.query("rollback")),
  });
});

/** Once the journal waits for `other`, lets `other` wait for the journal. */
async function closeTheCycle(other: pg.Client): Promise<void> {
  await system.until(
    "select count(*) from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database() and wait_event_type = 'Lock'",
    1,
  );
  await other.query(
    `insert into ancrage.batches select distinct on (source) source, number + 1, epoch, journaled_commit_lsn, journaled_change_lsn,
       journaled_ordinal, settled_commit_lsn, settled_change_lsn, settled_ordinal, unsettled_from, end_lsn, cursor
     from ancrage.batches order by source, number desc`,
  );
}

test("a database that takes no changes, for sessions that began meanwhile", async () => {
  await expectSurvival({
    because: /read-only transaction/,
    async begin() {
      await system.rows("alter database faults set default_transaction_read_only = on");
      await endSessions("ancrage journal");
    },
    end: async () => void (await system.rows("alter database faults reset default_transaction_read_only")),
  });
  // Of the API's sessions too.
  await system.rows("alter database faults set default_transaction_read_only = on");
  await endSessions("ancrage api");
  const create = () => system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: `${system.receiver.url}/other` });
  expect(await create()).toMatchObject({ status: 503, body: { code: "unavailable" } });
  await system.rows("alter database faults reset default_transaction_read_only");
  const { status, body } = await create();
  expect(status).toBe(201);
  expect((await system.call("DELETE", `/v1/subscriptions/${body.id}`)).status).toBe(200);
});

test("a server without a session left", async () => {
  const hogs: pg.Client[] = [];
  const takeAll = async (): Promise<void> => {
    for (;;) {
      try {
        hogs.push(await system.database.connect());
      } catch (error) {
        if (sqlStateOf(error) !== "53300") throw error;
        return;
      }
    }
  };
  await expectSurvival({
    because: /too many clients|remaining connection slots/,
    async begin() {
      const isThere = "select from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database()";
      for (await takeAll(); (await system.rows(isThere)).length > 0; await takeAll()) await endSessions("ancrage journal");
    },
    end: async () => void (await Promise.all(hogs.map((hog) => hog.end()))),
  });
});

test("a database whose transactions are serializable by default: what is ours is not, and waits for a row's lock without a fault", async () => {
  await system.rows("alter database faults set default_transaction_isolation = 'serializable'");
  await endSessions("ancrage%");
  await insert();
  const held: ServerResponse[] = [];
  system.receiver.answer((_: ReceivedRequest, response: ServerResponse): void => void held.push(response));
  const id = await insertOnly();
  await arrived(id);
  // It is open for long, so that its outcome is an update.
  const open = "select message_id from ancrage.deliveries where state = 'pending'";
  await system.until(`select count(*) from (${open}) as open`, 1);
  const other = await system.database.connect();
  await other.query("begin isolation level read committed");
  await other.query(`update ancrage.deliveries set updated_at = now() where message_id in (${open})`);
  tried = [];
  held[0]?.writeHead(200).end();
  await system.until(
    "select count(*) from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database() and wait_event_type = 'Lock'",
    1,
  );
  await other.query("commit");
  await system.until("select count(*) from ancrage.deliveries where state <> 'delivered'", 0);
  expect(tried.filter(({ updates }) => updates.length > 0)).toHaveLength(1);
  await system.rows("alter database faults reset default_transaction_isolation");
});
