import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { startSystem, type System } from "./system.ts";

const ItemChanged = defineEvent({
  table: "item",
  on: ["insert", "update"],
  payload: (item, { actor }) => ({ id: item["id"], n: item["n"], actor: actor ?? null }),
});
const ItemEchoed = defineEvent({ table: "item", on: "update", echo: true, payload: (item) => ({ id: item["id"], n: item["n"] }) });
const Said = defineEvent({ example: { key: "x", data: null }, payload: ({ key }) => ({ key }) });

let system: System;
/** What the application does when a request comes, with the header that came. */
let writeBack: ((request: ReceivedRequest) => Promise<unknown>) | undefined;
const writing = new Set<Promise<unknown>>();
beforeAll(async () => {
  system = await startSystem({
    schema: "create table item (id integer primary key, n integer not null default 0)",
    events: { ItemChanged, ItemEchoed, Said },
  });
  system.receiver.answer((request, response) => {
    const work = writeBack?.(request) ?? Promise.resolve();
    writing.add(work);
    void work.finally(() => writing.delete(work)).then(() => response.writeHead(200).end());
  });
});
afterAll(() => system.close());
afterEach(async () => {
  writeBack = undefined;
  for (const { id } of await system.rows<{ id: string }>("select id from ancrage.subscriptions where state <> 'deleted'")) {
    await system.call("DELETE", `/v1/subscriptions/${id}`);
  }
  await system.rows("delete from item");
});

const subscribe = async (event: string, path: string): Promise<string> =>
  (await system.call("POST", "/v1/subscriptions", { event, url: system.receiver.url + path, format: "bare" })).body.id;
/** All that was committed so far has been journaled, and nothing waits to be delivered. */
async function settled(): Promise<void> {
  await system.call("POST", "/v1/events/Said/trigger", { key: "end" }, { prefer: "wait=20" });
  await system.until(
    `select count(*) from ancrage.messages m join ancrage.subscriptions s on m.event = any (s.events) and s.state = 'enabled'
     where not exists (select from ancrage.deliveries d where d.message_id = m.id and d.state = 'delivered')
       and m.depth < 5 and m.caused_by is distinct from s.id and m.committed_at >= s.created_at`,
    0,
  );
  await Promise.all(writing);
}
const bodies = (path: string): readonly unknown[] =>
  system.receiver.requests.filter((request) => request.path === path).map((request) => JSON.parse(request.body) as unknown);

/** An integration that passes on what it was told by: `update`, in a transaction of its own. */
async function update(cause: string | undefined): Promise<void> {
  const session = await system.database.connect();
  await session.query("begin");
  await session.query("select ancrage.caused_by($1)", [cause]);
  await session.query("update item set n = n + 1");
  await session.query("commit");
  await session.end();
}

test("a receiver that writes back to the row is not told of its own change; others are", async () => {
  await subscribe("ItemChanged", "/writes");
  await subscribe("ItemChanged", "/reads");
  writeBack = (request) => (request.path === "/writes" ? update(request.headers["ancrage-cause"]) : Promise.resolve());
  await system.rows("insert into item values (1)");
  await system.receiver.until(() => bodies("/reads").length === 2);
  await settled();
  expect([bodies("/writes"), bodies("/reads")]).toEqual([
    [{ id: 1, n: 0, actor: null }],
    [
      { id: 1, n: 0, actor: null },
      { id: 1, n: 1, actor: null },
    ],
  ]);
});

test("two that write back to each other end at depth 5", async () => {
  await subscribe("ItemChanged", "/a");
  await subscribe("ItemChanged", "/b");
  writeBack = (request) => update(request.headers["ancrage-cause"]);
  await system.rows("insert into item values (2)");
  // One insert, and two answers to each of five depths.
  await system.until("select n from item where id = 2", 10);
  await system.until("select count(*) from ancrage.messages where key = '2' and event = 'ItemChanged'", 11);
  await settled();
  expect((await system.rows<{ n: number }>("select n from item"))[0]?.n).toBe(10);
  expect([bodies("/a").length, bodies("/b").length]).toEqual([5, 5]);
  expect(
    await system.rows(
      "select depth, count(*)::integer from ancrage.messages where key = '2' and event = 'ItemChanged' group by 1 order by 1",
    ),
  ).toEqual([1, 2, 2, 2, 2, 2].map((count, depth) => ({ depth, count })));
});

test("an event that echoes is told to whoever caused it, until the depth ends it", async () => {
  await subscribe("ItemEchoed", "/echo");
  writeBack = (request) => update(request.headers["ancrage-cause"]);
  await system.rows("insert into item values (3)");
  await system.rows("update item set n = 100");
  await system.until("select n from item where id = 3", 105);
  await system.until("select count(*) from ancrage.messages where key = '3' and event = 'ItemEchoed'", 6);
  await settled();
  expect(bodies("/echo").length).toBe(5);
});

test("the actor reaches the payload, for what follows it in its transaction", async () => {
  await subscribe("ItemChanged", "/actor");
  await system.rows("begin");
  await system.rows("insert into item values (10)");
  await system.rows("select ancrage.actor('integration:zapier')");
  await system.rows("insert into item values (11)");
  await system.rows("commit");
  await system.rows("insert into item values (12)");
  await system.receiver.until(() => bodies("/actor").length === 3);
  expect(new Set(bodies("/actor"))).toEqual(
    new Set([
      { id: 10, n: 0, actor: null },
      { id: 11, n: 0, actor: "integration:zapier" },
      { id: 12, n: 0, actor: null },
    ]),
  );
});

test("an actor's changes are not told to a subscription that its token made, or that ignores it; to others they are", async () => {
  await system.rows("insert into ancrage.tokens (id, name, hash) values ('tok_1', 'integration:zapier', sha256('a-token-of-zapier'))");
  const asZapier = { authorization: "Bearer a-token-of-zapier" };
  const subscribeAs = async (
    path: string,
    more: object,
    headers = {},
  ): Promise<{ readonly id: string; readonly ignoredActors: readonly string[] }> =>
    (
      await system.call(
        "POST",
        "/v1/subscriptions",
        { event: "ItemChanged", url: system.receiver.url + path, format: "bare", ...more },
        headers,
      )
    ).body;
  const own = await subscribeAs("/own", {}, asZapier);
  expect(own.ignoredActors).toEqual(["integration:zapier"]);
  await subscribeAs("/ignores", { ignoredActors: ["someone", "integration:zapier"] });
  await subscribeAs("/wants-its-own", { ignoredActors: [] }, asZapier);
  const changed = await subscribeAs("/changed", {});
  await system.rows("begin; select ancrage.actor('integration:zapier'); insert into item values (20); commit");
  await system.receiver.until(() => bodies("/changed").length === 1);
  await system.call("PATCH", `/v1/subscriptions/${changed.id}`, { ignoredActors: ["integration:zapier"] });
  await system.rows("begin; select ancrage.actor('integration:zapier'); insert into item values (21); commit");
  await system.rows("insert into item values (22)");
  const idsAt = (path: string): readonly number[] =>
    (bodies(path) as { readonly id: number }[]).map(({ id }) => id).toSorted((a, b) => a - b);
  await system.receiver.until(
    () => bodies("/wants-its-own").length === 3 && ["/own", "/ignores", "/changed"].every((path) => idsAt(path).includes(22)),
  );
  expect(["/own", "/ignores", "/wants-its-own", "/changed"].map(idsAt)).toEqual([[22], [22], [20, 21, 22], [20, 22]]);
});

test("what is muted is not tracked, and wins over the others; a trigger is told all the same; a savepoint takes it back", async () => {
  await subscribe("ItemChanged", "/mute");
  await subscribe("Said", "/said");
  await system.rows("begin");
  await system.rows("select ancrage.actor('import')");
  await system.rows("select ancrage.mute()");
  await system.rows("insert into item select from generate_series(1, 0)");
  await system.rows("insert into item select i from generate_series(100, 400) i");
  await system.rows("select ancrage.trigger('Said', 'imported')");
  await system.rows("commit");
  await system.rows("begin");
  await system.rows("savepoint s");
  await system.rows("select ancrage.mute()");
  await system.rows("rollback to s");
  await system.rows("insert into item values (500)");
  await system.rows("commit");
  await system.receiver.until(() => bodies("/mute").length > 0);
  await settled();
  expect(bodies("/mute")).toEqual([{ id: 500, n: 0, actor: null }]);
  expect(bodies("/said")).toContainEqual({ key: "imported" });
});

test("a mark that was not made by ours is ignored and counted, and the change is told", async () => {
  const ignored = async (): Promise<number> => (await system.call("GET", "/v1/status")).body.details.ignoredTriggers;
  const before = await ignored();
  await subscribe("ItemChanged", "/forged");
  await system.rows("begin");
  await system.rows(`select pg_logical_emit_message(true, 'ancrage.origin', convert_to('{"mute":true}', 'UTF8'))`);
  await system.rows("select ancrage.caused_by('msg_1.sub_1.1.aaaaaaaaaaaaaaaaaaaaaa')");
  await system.rows("insert into item values (600)");
  await system.rows("commit");
  await system.receiver.until(() => bodies("/forged").length === 1);
  expect((await ignored()) - before).toBe(2);
});

test.each(["ancrage.actor(null)", "ancrage.actor('')", "ancrage.actor(repeat('x', 257))", "ancrage.caused_by(repeat('x', 257))"])(
  "%s is refused with words",
  async (call) => {
    await expect(system.rows(`select ${call}`)).rejects.toMatchObject({ code: "22023", message: expect.stringContaining("expected") });
  },
);
