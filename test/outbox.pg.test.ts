import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { ChangeSource } from "../src/capture/change.ts";
import { OutboxTurns } from "../src/capture/outbox/turns.ts";
import { AncrageError } from "../src/errors.ts";
import { KeptSession } from "../src/store/kept-session.ts";
import { readOutboxSizes } from "../src/store/outbox.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { installOutbox, migrateOutbox, startOutboxSource } from "./outbox-source.ts";

let database: TestDatabase;
let source: ChangeSource | undefined;

beforeEach(async () => {
  database = await cloneDatabase();
  await database.client.query("create table deal (id integer primary key, label text)");
});
afterEach(async () => {
  await source?.stop();
  source = undefined;
  await database.remove();
});

test("a second migration finds all that the first one made, and what is tracked no more leaves", async () => {
  await database.client.query("create table line (id integer primary key)");
  expect(await installOutbox(database, { deal: "old values", line: "inserts" })).toHaveLength(10);
  expect(await installOutbox(database, { deal: "old values", line: "inserts" })).toEqual([]);
  // Disabled by somebody, and changed by another release.
  await database.client.query(`alter table deal disable trigger "00_ancrage"`);
  expect(await installOutbox(database, { deal: "old values", line: "inserts" })).toHaveLength(2);
  expect(await installOutbox(database, { deal: "changes" })).toEqual([
    expect.stringContaining("create or replace function ancrage.capture_"),
    `drop trigger "00_ancrage" on "public"."line"`,
    `drop trigger "00_ancrage_truncate" on "public"."line"`,
    expect.stringContaining("drop function ancrage."),
  ]);
});

test("the outbox stays small beside a transaction that stays open and writes", async () => {
  await migrateOutbox(database, { deal: "inserts" });
  const held = await database.connect();
  await held.query("begin isolation level repeatable read; insert into deal values (-1)");
  const reader = (source = await startOutboxSource(database));
  let seen = 0;
  /** Everything is in the journal as soon as it was taken. */
  const readUntil = async (count: number): Promise<void> => {
    while (seen < count) {
      if (!reader.hasWork()) {
        await new Promise<void>((resolve) => reader.onWork(resolve));
        continue;
      }
      for (const item of await reader.take(1_000)) {
        if (item.kind === "change") seen++;
        else if (item.kind === "commit") reader.confirm(item.endLsn);
      }
    }
  };
  const sizes = async (): Promise<number> => {
    const { a, b } = await readOutboxSizes(database.client);
    return a + b;
  };
  const [rows, each] = [90_000, 100];
  const reading = readUntil(rows);
  let written = 0;
  for (let from = 0; from < rows; from += each) {
    await database.client.query(`insert into deal select i, repeat('x', 100) from generate_series(${from}, ${from + each - 1}) i`);
    if (from % 10_000 === 0) await held.query("insert into deal values ($1)", [-2 - from]);
    written = from + each;
  }
  await reading;
  expect(written).toBe(rows);
  // All of it takes 30 MB.
  expect(await sizes()).toBeLessThan(20 * 1024 * 1024);
  await held.query("commit");
  await readUntil(rows + 10);
  // The one that is written is left as it is below 4 MiB.
  while ((await sizes()) > 4.5 * 1024 * 1024) await new Promise((resolve) => setTimeout(resolve, 20));
});

test("on a database that is another one than before, nothing is read and nothing emptied", async () => {
  await migrateOutbox(database, { deal: "inserts" });
  let isWhole = true;
  source = await startOutboxSource(database, {
    assertWhole: () => (isWhole ? Promise.resolve() : Promise.reject(new AncrageError("ANCRAGE_JOURNAL_WENT_BACK", "it went back."))),
  });
  isWhole = false;
  await database.client.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'ancrage outbox%'");
  await database.client.query("insert into deal values (1)");
  const one = source;
  while (!one.hasWork()) await new Promise<void>((resolve) => one.onWork(resolve));
  await expect(one.take(10)).rejects.toMatchObject({ code: "ANCRAGE_JOURNAL_WENT_BACK" });
});

test("a stop waits neither for the outbox to be emptied nor for a session that is being made", { timeout: 20_000 }, async () => {
  await migrateOutbox(database, { deal: "inserts" });
  const other = await database.connect();
  const waiting = async (name: string): Promise<boolean> =>
    (
      await other.query(
        "select from pg_stat_activity where datname = current_database() and application_name = $1 and wait_event_type = 'Lock'",
        [name],
      )
    ).rowCount === 1;
  await database.client.query("begin; lock table ancrage.outbox_a, ancrage.outbox_b");
  const turns = new OutboxTurns({ connectionString: database.url, check: () => Promise.resolve(), log: pino({ level: "silent" }) });
  turns.consumed("1:1:");
  turns.start();
  while (!(await waiting("ancrage outbox turns")));
  await turns.stop();

  const checked = new KeptSession({
    connectionString: database.url,
    applicationName: "checked",
    check: async (client) => void (await client.query("select from ancrage.outbox_a")),
  });
  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const { port } = silent.address() as AddressInfo;
  const connecting = new KeptSession({ connectionString: `postgres://127.0.0.1:${port}/none`, applicationName: "connecting" });
  const asked = once(silent, "connection") as Promise<[Socket]>;
  const got = Promise.allSettled([checked.get(), connecting.get()]);
  while (!(await waiting("checked")));
  const [socket] = await asked;
  await Promise.all([checked.end(), connecting.end()]);
  expect(await got).toMatchObject([{ status: "rejected" }, { status: "rejected", reason: { code: "ANCRAGE_DATABASE_UNREACHABLE" } }]);
  await database.client.query("rollback");
  // What was ended is connected anew.
  expect((await (await checked.get()).query("select 1")).rowCount).toBe(1);
  await checked.end();
  socket.destroy();
  await new Promise((resolve) => silent.close(resolve));
});

test("a page that is full to the last transaction is confirmed as a whole", async () => {
  await migrateOutbox(database, { deal: "inserts" });
  for (let id = 0; id < 4; id++) await database.client.query("insert into deal values ($1)", [id]);
  const one = (source = await startOutboxSource(database, { maxListed: 2 }));
  let taken = 0;
  while (taken < 4) {
    if (!one.hasWork()) await new Promise<void>((resolve) => one.onWork(resolve));
    for (const item of await one.take(1)) {
      if (item.kind === "change") taken++;
      else if (item.kind === "commit") one.confirm(item.endLsn);
    }
  }
  // Nothing is left that a later change would have to confirm.
  await expect.poll(() => one.idleLsn()).toBeDefined();
});
