import { createHash, randomBytes } from "node:crypto";
import { subscribe as subscribeTo, unsubscribe as unsubscribeFrom } from "node:diagnostics_channel";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createAncrage } from "../../src/create-ancrage.ts";
import { pause } from "../../src/pause.ts";
import { defineEvent } from "../../src/event/define.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

/** What people do to a system that runs. `FAULT_DELETIONS=1000` for as many at once as a customer who leaves may cause. */
const deletions = Number(process.env["FAULT_DELETIONS"] ?? 100);
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });
const Pinged = defineEvent({ example: { n: 1 }, payload: ({ data }) => ({ data }) });

let system: System;
beforeAll(async () => {
  system = await startSystem({
    schema: "create table item (id integer generated always as identity primary key)",
    events: { ItemCreated, Pinged },
  });
});
afterAll(() => system.close());
beforeEach(() => system.receiver.answer(200));

const subscribe = async (path: string, project = "default"): Promise<string> =>
  (await system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: system.receiver.url + path, format: "bare", project })).body
    .id;

test("a storm of deletions while rows are delivered: none is sent to after its answer, and whoever stays gets all", async () => {
  const stays = await subscribe("/stays");
  const leaving = await Promise.all(Array.from({ length: deletions }, (_, index) => subscribe(`/leaves/${index}`)));
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is null", 0);
  system.receiver.answer((_: ReceivedRequest, response): void => void setTimeout(() => response.writeHead(200).end(), 20));
  const gone = new Set<string>();
  const late: string[] = [];
  // Told as the request is written.
  const watch = (attempt: unknown): void => {
    const { id } = (attempt as { readonly subscription: { readonly id: string } }).subscription;
    if (gone.has(id)) late.push(id);
  };
  subscribeTo("ancrage:attempt", watch);
  const writer = new AbortController();
  let rows = 0;
  const writing = (async () => {
    for (; !writer.signal.aborted; rows++) {
      await system.rows("insert into item default values");
      // About 1,000 deliveries a second.
      await pause(deletions, writer.signal);
    }
  })();
  await system.receiver.until((all) => all.length > deletions);
  await Promise.all(
    leaving.map(async (id) => {
      let { status } = await system.call("DELETE", `/v1/subscriptions/${id}`);
      // All sessions of the API are busy for too long: it says so, and is asked again.
      while (status === 503) ({ status } = await system.call("DELETE", `/v1/subscriptions/${id}`));
      expect(status).toBe(200);
      gone.add(id);
    }),
  );
  writer.abort();
  await writing;
  await system.until(`select count(*) from ancrage.deliveries where subscription_id = '${stays}' and state = 'delivered'`, rows);
  await system.until("select count(*) from ancrage.deliveries where state in ('pending', 'retrying')", 0);
  unsubscribeFrom("ancrage:attempt", watch);
  expect(late).toEqual([]);
}, 120_000);

test("a receiver that answers 410 to all of its subscriptions ends each of them, and is told of; nobody else's are touched", async () => {
  system.receiver.answer(({ path }: ReceivedRequest) => (path.startsWith("/gone") ? 410 : 200));
  const gone = await Promise.all(Array.from({ length: 30 }, (_, index) => subscribe(`/gone/${index}`)));
  const stays = await subscribe("/stays/too");
  const url = `${system.receiver.url}/told`;
  await system.call("POST", "/v1/subscriptions", { event: "subscription.disabled", url, format: "bare" });
  await system.until("select count(*) from ancrage.subscriptions where start_lsn is null", 0);
  await system.rows("insert into item default values");
  await system.until("select count(*) from ancrage.subscriptions where state = 'disabled' and state_reason = 'gone'", gone.length);
  const told = (all: readonly ReceivedRequest[]) => all.filter(({ path }) => path === "/told");
  await system.receiver.until((all) => told(all).length === gone.length);
  await system.rows("insert into item default values");
  await system.receiver.until((all) => all.filter(({ path }) => path === "/stays/too").length === 2);
  expect(system.receiver.requests.filter(({ path }) => path.startsWith("/gone"))).toHaveLength(gone.length);
  expect((await system.call("GET", `/v1/subscriptions/${stays}`)).body.state).toBe("enabled");
});

test("a token that is revoked in the middle of a request: that one is answered, the next one is refused", async () => {
  const token = randomBytes(32).toString("hex");
  await system.rows("insert into ancrage.tokens (id, project, name, hash) values ('tok_1', null, 'acme', $1)", [
    createHash("sha256").update(token).digest(),
  ]);
  const ask = () => system.call("POST", "/v1/events/Pinged/trigger", { key: "1" }, { authorization: `Bearer ${token}`, prefer: "wait=20" });
  // The journal waits for this transaction, and the request for the journal.
  const holder = await system.database.connect();
  await holder.query("begin");
  await holder.query("lock table ancrage.batches in exclusive mode");
  const first = ask();
  await system.until(
    "select count(*) from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database() and wait_event_type = 'Lock'",
    1,
  );
  await system.rows("delete from ancrage.tokens where id = 'tok_1'");
  await holder.query("commit");
  expect(await first).toMatchObject({ status: 200, body: { event: "Pinged" } });
  expect(await ask()).toMatchObject({ status: 401, body: { code: "unauthorized" } });
});

test("another secret key: a start says which key sealed what, and what to do; nothing is sent, and nothing is lost", async () => {
  await subscribe("/sealed");
  await system.ancrage().stop();
  const wrong = createAncrage({ ...system.options, secretKey: randomBytes(32).toString("base64") }, { log: pino({ level: "silent" }) });
  await expect(wrong.start()).rejects.toMatchObject({
    code: "ANCRAGE_SECRET_KEY_INVALID",
    message: expect.stringMatching(
      /^the secret of subscription sub_\w+ was sealed with key [0-9a-f]{16}, ANCRAGE_SECRET_KEY is key [0-9a-f]{16}\.$/,
    ),
    hint: expect.stringContaining("Start with the key that sealed it"),
  });
  await wrong.stop();
  const before = system.receiver.requests.length;
  await system.rows("insert into item default values");
  await system.restart();
  await system.receiver.until((all) => all.slice(before).some(({ path }) => path === "/sealed"));
});
