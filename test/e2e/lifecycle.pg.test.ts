import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import { pino } from "pino";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createAncrage, migrate, type Ancrage } from "../../src/create-ancrage.ts";
import { AncrageError } from "../../src/errors.ts";
import { defineEvent } from "../../src/event/define.ts";
import type { SignalName } from "../../src/test-signal.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { startProxy } from "../proxy.ts";
import { startSystem, type System } from "./system.ts";

const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });

let system: System;
/** Called at each point of the flow, of every instance of the test. */
let onSignal: (name: SignalName) => void = () => undefined;
beforeEach(async () => {
  onSignal = () => undefined;
  system = await startSystem({
    schema: "create table item (id integer generated always as identity primary key)",
    events: { ItemCreated },
    options: { retry: { schedule: [0, 0.1, 0.1, 0.1], jitter: 0 } },
    internals: { signal: (name) => onSignal(name) },
    isStarted: false,
  });
});
afterEach(() => system.close());

const subscribe = async (path = "/"): Promise<string> =>
  (await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: system.receiver.url + path, format: "bare" })).body.id;
const insert = (rows: number): Promise<unknown> => system.rows("insert into item select from generate_series(1, $1::integer)", [rows]);
const idsOf = (requests: readonly ReceivedRequest[]): readonly (string | undefined)[] =>
  requests.map(({ headers }) => headers["webhook-id"]);
const ofPipeline = "application_name in ('ancrage journal', 'ancrage replication', 'ancrage snapshots')";
/** Of ours, as soon as the server has seen those off that were closed. */
async function sessions(): Promise<readonly object[]> {
  const list = (): Promise<readonly object[]> =>
    system.rows(
      "select application_name, query from pg_stat_activity where datname = current_database() and application_name like 'ancrage%'",
    );
  // A backend ends a moment after its socket.
  const untilMs = performance.now() + 5_000;
  let left = await list();
  while (left.length > 0 && performance.now() < untilMs) left = await list();
  return left;
}

interface Shown {
  readonly isReady: boolean;
  readonly problems: readonly { readonly code: string }[];
  readonly details: { readonly role: string };
}

async function statusOf(ancrage: Ancrage): Promise<Shown> {
  const request = new Request("http://ancrage.test/v1/status", { headers: { authorization: `Bearer ${String(system.options.token)}` } });
  return (await (await ancrage.fetch(request)).json()) as Shown;
}

/** A change is sent again until it is heeded, as its error says. */
async function heeded(change: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await change();
      return;
    } catch (error) {
      if (!(error instanceof AncrageError) || error.code !== "ANCRAGE_CHANGE_UNHEEDED") throw error;
    }
  }
}

async function untilRole(ancrage: Ancrage, role: string): Promise<void> {
  while ((await statusOf(ancrage)).details.role !== role) await new Promise((resolve) => setTimeout(resolve, 20));
}

test("a stop before a start, a start twice, a stop twice, and a start after it", async () => {
  const never = system.another();
  await never.stop();
  await expect(never.start()).rejects.toMatchObject({ code: "ANCRAGE_COMMAND_FAILED" });

  const ancrage = system.ancrage();
  await Promise.all([ancrage.start(), ancrage.start()]);
  await ancrage.start();
  await expect.poll(() => statusOf(ancrage)).toMatchObject({ isReady: true, problems: [], details: { role: "leading" } });
  expect(
    await system.rows(`select 1 from pg_stat_activity where datname = current_database() and application_name = 'ancrage journal'`),
  ).toHaveLength(1);
  await Promise.all([ancrage.stop(), ancrage.stop()]);
  await ancrage.stop();
  expect(await sessions()).toEqual([]);
  await expect(ancrage.start()).rejects.toMatchObject({ code: "ANCRAGE_COMMAND_FAILED" });

  const hasty = system.another();
  await Promise.all([expect(hasty.start()).rejects.toMatchObject({ code: "ANCRAGE_COMMAND_FAILED" }), hasty.stop()]);
  expect(await sessions()).toEqual([]);
});

test("a start that fails says why, leaves no session, and may be tried again; one whose slot was moved captures nothing", async () => {
  const ancrage = system.ancrage();
  await system.rows("update ancrage.settings set system_identifier = 'x' || system_identifier");
  await expect(ancrage.start()).rejects.toMatchObject({ code: "ANCRAGE_DATABASE_COPIED" });
  expect(await sessions()).toEqual([]);
  await system.rows("update ancrage.settings set system_identifier = substr(system_identifier, 2)");
  await ancrage.start();
  await subscribe();
  await insert(3);
  await system.receiver.until((all) => all.length === 3);
  await ancrage.stop();

  // Capture stands, and says so; delivery and the API go on.
  await insert(1);
  await system.rows(
    "select pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) from pg_replication_slots where database = current_database()",
  );
  const next = system.another();
  await next.start();
  while (!(await statusOf(next)).problems.some(({ code }) => code === "gap")) await insert(1);
  await expect
    .poll(() => statusOf(next))
    .toMatchObject({
      isReady: false,
      problems: [{ code: "ANCRAGE_SLOT_LOST", message: expect.stringContaining("was moved to") }, { code: "gap" }],
      details: { role: "leading" },
    });
  await next.stop();
  expect(await sessions()).toEqual([]);
});

test("a slot that was made anew is a gap: noted by migrate, shown by the status, and then gone on from", async () => {
  await system.ancrage().start();
  await subscribe();
  await insert(1);
  await system.receiver.until((all) => all.length === 1);
  await system.ancrage().stop();
  await system.rows("select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()");
  await insert(1);
  const lost = system.another();
  await lost.start();
  await expect
    .poll(() => statusOf(lost))
    .toMatchObject({
      isReady: false,
      problems: [{ code: "ANCRAGE_SLOT_LOST", message: expect.stringContaining("is gone") }, { code: "gap" }],
    });
  await lost.stop();

  const { ran } = await migrate(system.options);
  expect(ran.at(-1)).toMatch(/^GAP: changes between .* were not seen: the replication slot was gone\.$/);
  const next = system.another();
  await next.start();
  await insert(1);
  await system.receiver.until((all) => all.length === 2);
  const headers = { authorization: `Bearer ${system.options.token}` };
  const status = (await (await next.fetch(new Request("http://localhost/v1/status", { headers }))).json()) as {
    problems: readonly { code: string; message: string }[];
  };
  expect(status.problems).toMatchObject([
    { code: "gap", message: expect.stringContaining("were not seen: the replication slot was gone") },
  ]);
  await next.stop();
});

test("a subscription that is made in a gap begins with the new slot", async () => {
  await system.ancrage().start();
  await subscribe("/first");
  await insert(1);
  await system.receiver.until((all) => all.length === 1);
  await system.ancrage().stop();
  await system.rows("select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()");
  const api = system.another();
  await api.subscriptions.create({ event: "ItemCreated", url: `${system.receiver.url}/in-gap` });
  await insert(1);
  await migrate(system.options);
  const next = system.another();
  await next.start();
  await insert(1);
  await system.receiver.until((all) => all.length >= 3);
  expect(system.receiver.requests.map(({ path }) => path).toSorted()).toEqual(["/first", "/first", "/in-gap"]);
  expect(await system.rows("select 1 from ancrage.subscriptions where start_lsn is null")).toEqual([]);
});

test("a subscription that is made before the first start gets what was committed after it", async () => {
  await insert(2);
  await subscribe();
  await insert(1);
  await system.ancrage().start();
  await system.until("select count(*) from ancrage.messages", 3);
  await system.receiver.until((all) => all.length > 0);
  await system.ancrage().stop();
  expect(system.receiver.requests).toHaveLength(1);
});

test("a subscription that another key sealed holds up nobody, and gets what waited once the key is right", async () => {
  await system.ancrage().start();
  await subscribe("/good");
  const other = createAncrage({ ...system.options, secretKey: randomBytes(32).toString("base64") }, { log: pino({ level: "silent" }) });
  await other.subscriptions.create({ event: "ItemCreated", url: `${system.receiver.url}/sealed` });
  await insert(1);
  await system.receiver.until((all) => all.length === 1);
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is not null", 2);
  // The next start has both in the registry, and its log as well.
  await system.restart();
  await insert(1);
  await system.receiver.until((all) => all.length === 2);
  expect(system.receiver.requests.map(({ path }) => path)).toEqual(["/good", "/good"]);
  await system.until("select count(*) from ancrage.deliveries where state = 'pending'", 2);
  await system.ancrage().stop();

  await other.start();
  await system.receiver.until((all) => all.filter(({ path }) => path === "/sealed").length === 2);
  await other.stop();
  // Here none opens: it is the key of the process that is wrong.
  const wrong = createAncrage({ ...system.options, secretKey: randomBytes(32).toString("base64") }, { log: pino({ level: "silent" }) });
  await expect(wrong.start()).rejects.toMatchObject({ code: "ANCRAGE_SECRET_KEY_INVALID" });
  await wrong.stop();
});

test("after a stop in order nothing repeats, and nothing is missed", async () => {
  system.receiver.answer((_: ReceivedRequest, response: ServerResponse): void => void setTimeout(() => response.writeHead(200).end(), 20));
  await system.ancrage().start();
  await subscribe();
  for (let turn = 0; turn < 4; turn++) {
    const before = system.receiver.requests.length;
    await insert(200);
    // In the middle of it.
    await system.receiver.until((all) => all.length > before + 50);
    await system.restart();
  }
  await system.receiver.until((all) => all.length >= 800);
  await system.ancrage().stop();
  expect(system.receiver.requests.length).toBe(800);
  expect(new Set(idsOf(system.receiver.requests)).size).toBe(800);
  expect(await system.rows("select state, count(*)::integer as count from ancrage.deliveries group by 1")).toEqual([
    { state: "delivered", count: 800 },
  ]);
});

test("a second instance waits, and takes over when the first one stops", async () => {
  const first = system.ancrage();
  await first.start();
  const second = system.another();
  await second.start();
  await expect.poll(() => statusOf(second)).toMatchObject({ isReady: true, problems: [], details: { role: "standby" } });
  await subscribe();
  await insert(100);
  await system.receiver.until((all) => all.length === 100);
  await Promise.all([first.stop(), insert(100)]);
  await untilRole(second, "leading");
  await insert(100);
  await system.receiver.until((all) => all.length >= 300);
  await second.stop();
  expect(idsOf(system.receiver.requests).length).toBe(300);
  expect(new Set(idsOf(system.receiver.requests)).size).toBe(300);
});

test("a leader that was superseded stops capturing and sending, and leaves the slot to the other", async () => {
  const proxy = await startProxy(system.database.url);
  const first = createAncrage(
    { ...system.options, database: proxy.url },
    { log: pino({ level: process.env["LOG"] ?? "silent" }), leaseMs: 2_000 },
  );
  await first.start();
  await subscribe();
  await insert(1);
  await system.receiver.until((all) => all.length === 1);
  const second = system.another({ leaseMs: 2_000 });
  await second.start();
  // It has nothing to commit, and nobody tells it.
  proxy.stall();
  await insert(50);
  await untilRole(second, "leading");
  await insert(50);
  await system.receiver.until((all) => new Set(idsOf(all)).size === 101);
  proxy.resume();
  await untilRole(first, "failed");
  await expect
    .poll(() => statusOf(first))
    .toMatchObject({ isReady: false, problems: [{ code: "ANCRAGE_SUPERSEDED" }], details: { role: "failed" } });
  expect(system.receiver.requests).toHaveLength(101);
  expect(
    await system.rows(`select application_name, count(*)::integer as count from pg_stat_activity
    where datname = current_database() and ${ofPipeline} group by 1 order by 1`),
  ).toMatchObject([
    { application_name: "ancrage journal", count: 1 },
    { application_name: "ancrage replication", count: 1 },
    { application_name: "ancrage snapshots", count: 1 },
  ]);
  await first.stop();
  await proxy.close();
});

test("a leader that meets a fault of its own lets the lead go: its standby takes over", async () => {
  let isFaulty = false;
  const first = system.another({
    signal(name) {
      if (isFaulty && name === "captured") throw new Error("a fault of our own");
    },
  });
  await first.start();
  const second = system.another();
  await second.start();
  await subscribe();
  await insert(1);
  await system.receiver.until((all) => all.length === 1);
  isFaulty = true;
  await insert(10);
  await untilRole(second, "leading");
  await system.receiver.until((all) => new Set(idsOf(all)).size === 11);
  await expect
    .poll(() => statusOf(first))
    .toMatchObject({ isReady: false, problems: [{ code: "capture-stopped" }], details: { role: "failed" } });
  expect(
    await system.rows(`select 1 from pg_stat_activity where datname = current_database() and application_name = 'ancrage journal'`),
  ).toHaveLength(1);
});

test("a deletion that a standby answered is heeded by the leader, also once its capture has ended", async () => {
  system.receiver.answer(500);
  const first = createAncrage(
    { ...system.options, retry: { schedule: [0, ...Array<number>(2_000).fill(0.02)], jitter: 0 } },
    { log: pino({ level: "silent" }), signal: (name) => onSignal(name) },
  );
  await first.start();
  const standby = system.another();
  await standby.start();
  const id = await subscribe("/deleted");
  await subscribe("/kept");
  const countOf = (path: string): number => system.receiver.requests.filter((request) => request.path === path).length;
  await insert(1);
  await system.receiver.until(() => countOf("/deleted") > 2);
  // The slot goes from under the leader: it captures no more, and goes on to deliver. (Not ready it also is for a moment on a machine
  // that stands still for longer than a lease lasts.)
  while (!(await statusOf(first)).problems.some(({ code }) => code === "ANCRAGE_SLOT_LOST")) {
    await system.rows(
      "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database() and active_pid is not null",
    );
    await system
      .rows(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and active_pid is null",
      )
      .catch(() => undefined);
  }
  await expect.poll(() => statusOf(first)).toMatchObject({ problems: [{ code: "ANCRAGE_SLOT_LOST" }], details: { role: "leading" } });
  await system.receiver.until(() => countOf("/deleted") > 20);

  await heeded(() => standby.subscriptions.delete(id));
  const [answered, kept] = [countOf("/deleted"), countOf("/kept")];
  // The other one goes on as before, so this one would have.
  await system.receiver.until(() => countOf("/kept") > kept + 10);
  // One that was begun before may still have been on its way.
  expect(countOf("/deleted")).toBeLessThanOrEqual(answered + 1);
  await system.until(`select state from ancrage.deliveries where subscription_id = '${id}'`, "canceled");
  await first.stop();
});

test("a standby waits out what the database cannot answer just now, and takes over then", async () => {
  const first = system.ancrage();
  await first.start();
  await subscribe();
  const waited = Promise.withResolvers<void>();
  const stream = {
    write(line: string) {
      if (line.includes("could not take over yet")) waited.resolve();
    },
  };
  const second = system.another({ log: pino({ level: "warn" }, stream) });
  await second.start();
  // As a server that is about to shut down answers.
  await system.rows(`
    alter table ancrage.settings rename to kept;
    create function answer() returns boolean language plpgsql as $$ begin raise exception 'going away' using errcode = '57P01'; end $$;
    create view ancrage.settings as select * from ancrage.kept where answer()`);
  await first.stop();
  await insert(3);
  await waited.promise;
  expect((await statusOf(second)).details.role).toBe("standby");
  await system.rows("create or replace function answer() returns boolean language plpgsql as $$ begin return true; end $$");
  await untilRole(second, "leading");
  await system.receiver.until((all) => all.length === 3);
});

test("a standby that cannot take over says so", async () => {
  const first = system.ancrage();
  await first.start();
  await subscribe();
  await insert(1);
  await system.receiver.until((all) => all.length === 1);
  const second = system.another();
  await second.start();
  await system.rows("update ancrage.settings set system_identifier = 'x' || system_identifier");
  await first.stop();
  await untilRole(second, "failed");
  await expect.poll(() => statusOf(second)).toMatchObject({ isReady: false, problems: [{ code: "ANCRAGE_DATABASE_COPIED" }] });
  await system.until(`select count(*) from pg_stat_activity where datname = current_database() and ${ofPipeline}`, 0);
});

test("sessions that are ended again and again cost nothing", async () => {
  await system.ancrage().start();
  await subscribe();
  for (let turn = 1; turn <= 8; turn++) {
    const isJournaling = new Promise<void>((resolve) => (onSignal = (name) => void (name === "journaling" && resolve())));
    await insert(100);
    await isJournaling;
    await system.rows(
      "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'ancrage%'",
    );
  }
  await system.receiver.until((all) => all.length >= 800);
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", 800);
  await system.ancrage().stop();
  expect(system.receiver.requests.length).toBe(800);
  expect(new Set(idsOf(system.receiver.requests)).size).toBe(800);
  expect(await system.rows("select count(*)::integer as count from ancrage.rejections")).toEqual([{ count: 0 }]);
});

test("while the journal takes nothing, nothing is sent and /readyz is 503; then all arrives", async () => {
  await system.ancrage().start();
  const hung: ServerResponse[] = [];
  system.receiver.answer((request: ReceivedRequest, response: ServerResponse): void => {
    if (request.path === "/hangs") hung.push(response);
    else response.writeHead(request.path === "/fails" ? 500 : 200).end();
  });
  for (const path of ["/", "/hangs", "/fails"]) await subscribe(path);
  const leaving = await subscribe("/leaves");
  expect((await system.call("GET", "/readyz")).status).toBe(200);
  await insert(1);
  await system.receiver.until((all) => all.length >= 4 && hung.length === 1);

  await system.rows("alter table ancrage.messages rename to hidden");
  await insert(20);
  while ((await system.call("GET", "/readyz")).status !== 503) await new Promise((resolve) => setTimeout(resolve, 10));
  expect((await system.call("GET", "/readyz")).body).toEqual({ isReady: false, problems: ["ANCRAGE_JOURNAL_REFUSED"] });
  const before = system.receiver.requests.length;
  // An outcome that comes now waits with the batch; so do retries that are due, for as long as the journal takes nothing.
  for (const response of hung.splice(0)) response.writeHead(200).end();
  let tries = 0;
  await new Promise<void>((resolve) => (onSignal = (name) => void (name === "journaling" && ++tries === 4 && resolve())));
  // A subscription ends all the same, and its end is acknowledged.
  expect((await system.call("DELETE", `/v1/subscriptions/${leaving}`)).status).toBe(200);
  expect(system.receiver.requests.length).toBe(before);
  expect(
    await system.rows(
      "select 1 from ancrage.deliveries d join ancrage.subscriptions s on s.id = d.subscription_id where s.url like '%/hangs' and d.state = 'delivered'",
    ),
  ).toEqual([]);

  system.receiver.answer(200);
  await system.rows("alter table ancrage.hidden rename to messages");
  await system.until(
    "select count(*) from ancrage.deliveries d join ancrage.subscriptions s on s.id = d.subscription_id where d.state = 'delivered' and s.url not like '%/leaves'",
    63,
  );
  expect((await system.call("GET", "/readyz")).status).toBe(200);
  for (const path of ["/", "/hangs"]) expect(system.receiver.requests.filter((request) => request.path === path)).toHaveLength(21);
  expect(system.receiver.requests.filter(({ path }) => path === "/leaves")).toHaveLength(1);
});

test("a stop ends although the journal takes nothing; what it could not note is sent again after the next start", async () => {
  await system.ancrage().start();
  await subscribe();
  await system.rows("alter table ancrage.messages rename to hidden");
  await insert(5);
  while ((await statusOf(system.ancrage())).isReady) await new Promise((resolve) => setTimeout(resolve, 10));
  await system.ancrage().stop();
  expect(await sessions()).toEqual([]);
  await system.rows("alter table ancrage.hidden rename to messages");
  await system.restart();
  await system.receiver.until((all) => all.length === 5);
});

test("a stop ends although a statement of a job does not", async () => {
  const ancrage = createAncrage({ ...system.options, shutdown: { graceS: 0 } }, { log: pino({ level: "silent" }) });
  await ancrage.start();
  const holder = await system.database.connect();
  await holder.query("begin; lock table ancrage.rejections");
  await system.rows(`insert into ancrage.jobs (id, kind, input)
    values ('job_stuck', 'retry', '{"kind": "retry", "from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}')`);
  const waits = `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
    and query like '%from ancrage.rejections%'`;
  await system.until(waits, 1);
  await ancrage.stop();
  expect((await system.rows<{ is_given_back: boolean }>("select is_given_back from ancrage.leaders"))[0]?.is_given_back).toBe(true);
  // Ended by now: the statement itself is not.
  await system.until(waits, 1);
  await holder.query("rollback");
}, 15_000);

test("before the first session, and after the end, the API answers with problems; a probe of the process needs no database", async () => {
  const secretKey = Buffer.alloc(32, 1).toString("base64");
  const unreachable = {
    database: "postgres://127.0.0.1:1/nothing",
    events: {},
    token: "a-token-of-the-operator",
    secretKey,
    logLevel: "silent",
  } as const;
  const ancrage = createAncrage(unreachable);
  const ask = (path: string): Promise<Response> => ancrage.fetch(new Request(`http://ancrage.test${path}`));
  expect((await ask("/healthz")).status).toBe(200);
  for (const path of ["/readyz", "/v1/me"]) {
    const answer = await ask(path);
    expect([answer.status, answer.headers.get("retry-after"), answer.headers.get("cache-control")]).toEqual([503, "5", "no-store"]);
    expect(await answer.json()).toMatchObject({ code: "unavailable" });
  }
  await ancrage.stop();
  expect((await ask("/v1/me")).status).toBe(503);
});
