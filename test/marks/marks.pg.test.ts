import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { serve, type ServerType } from "@hono/node-server";
import { sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import express from "express";
import { Hono } from "hono";
import pg from "pg";
import { from } from "pg-copy-streams";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { expressMarks, honoMarks, markClient, markPool, marksSql, nextMarks, withMarks } from "../../src/marks.ts";
import { startSystem, type System } from "../e2e/system.ts";
import { writers } from "./writers.ts";

/** Every change with its actor, or null. */
const ItemChanged = defineEvent({
  table: "item",
  on: ["insert", "update"],
  payload: (item, { actor }) => ({ id: item["id"], n: item["n"], actor: actor ?? null }),
});

let system: System;
/** Two sessions for everybody, so that requests take over each other's. */
let pool: pg.Pool;
/** What the application does when it is asked to. */
let answerHook: (id: number) => Promise<unknown> = async () => undefined;
const servers: (Server | ServerType)[] = [];
/** Bodies that came to each path, as the applications parsed them, and all of `/watch`. */
const hooked: { readonly path: string; readonly id: number; readonly n: number }[] = [];
let heard: () => void = () => undefined;
const urls: Record<string, string> = {};

beforeAll(async () => {
  system = await startSystem({
    schema: "create table item (id integer primary key, n integer not null default 0)",
    events: { ItemChanged },
  });
  pool = markPool(new pg.Pool({ connectionString: system.database.url, application_name: "test", max: 2 }));
  urls["express"] = await listen(createServer(expressApplication()));
  urls["hono"] = await new Promise((resolve) => {
    servers.push(
      serve({ fetch: honoApplication().fetch, port: 0, hostname: "127.0.0.1" }, ({ port }) => resolve(`http://127.0.0.1:${port}`)),
    );
  });
  urls["next"] = await new Promise((resolve) => {
    servers.push(serve({ fetch: nextHandler, port: 0, hostname: "127.0.0.1" }, ({ port }) => resolve(`http://127.0.0.1:${port}`)));
  });
});
afterAll(async () => {
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  await pool?.end();
  await system?.close();
});
afterEach(async () => {
  for (const { id } of await system.rows<{ id: string }>("select id from ancrage.subscriptions where state <> 'deleted'")) {
    await system.call("DELETE", `/v1/subscriptions/${id}`);
  }
  answerHook = async () => undefined;
});

async function hook(path: string, body: { readonly id: number; readonly n: number }): Promise<void> {
  hooked.push({ path, id: body.id, n: body.n });
  heard();
  await answerHook(body.id);
}

function expressApplication(): express.Express {
  const app = express();
  app.use(express.json());
  app.use(expressMarks((request: express.Request) => request.get("x-user")));
  app.post("/hook", (request, response, next) => {
    hook("express", request.body).then(() => response.sendStatus(204), next);
  });
  app.post("/write", (request, response, next) => {
    answerHook(request.body.id).then(() => response.sendStatus(204), next);
  });
  return app;
}

function honoApplication(): Hono {
  const app = new Hono();
  app.use(honoMarks((context) => context.req.header("x-user")));
  app.post("/hook", async (context) => {
    await hook("hono", await context.req.json());
    return context.body(null, 204);
  });
  return app;
}

const nextHandler = nextMarks(
  async (request: Request) => {
    await hook("next", (await request.json()) as { id: number; n: number });
    return new Response(null, { status: 204 });
  },
  async (request) => request.headers.get("x-user") ?? undefined,
);

async function listen(server: Server): Promise<string> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const subscribe = (url: string, more: object = {}): Promise<unknown> =>
  system.call("POST", "/v1/subscriptions", { event: "ItemChanged", url, format: "bare", ...more });
interface Watched {
  readonly id: number;
  readonly n: number;
  readonly actor: string | null;
}
const watched = (id: number): readonly Watched[] =>
  system.receiver.requests.map(({ body }) => JSON.parse(body) as Watched).filter((change) => change.id === id);
const untilWatched = async (id: number, count: number): Promise<readonly Watched[]> => {
  await system.receiver.until(() => watched(id).length >= count);
  return watched(id).toSorted((a, b) => a.n - b.n);
};
let ids = 0;
async function makeItem(): Promise<number> {
  const id = ++ids;
  await system.rows("insert into item values ($1)", [id]);
  return id;
}

const ways = ["update", "updateInTransaction", "updateAfterSavepoint", "updateSerializable"] as const;

test.each([...Object.keys(writers).map((library) => ["express", library]), ["hono", "kysely"], ["next", "drizzle"]])(
  "%s with %s: who writes back is not told of it, in any way of writing; others are",
  async (framework = "", library = "") => {
    const writer = writers[library]!(pool);
    await subscribe(`${urls[framework]}/hook`);
    await subscribe(`${system.receiver.url}/watch`);
    const made: number[] = [];
    for (const way of ways) {
      answerHook = (id) => writer[way](id);
      const id = await makeItem();
      const changes = await untilWatched(id, 2);
      expect([way, changes.map(({ n }) => n)]).toEqual([way, way === "updateAfterSavepoint" ? [0, 10] : [0, 1]]);
      expect(await causesOf(id)).toEqual([false, true]);
      made.push(id);
    }
    answerHook = async () => undefined;
    const last = await makeItem();
    while (!hooked.some(({ id }) => id === last)) await new Promise<void>((resolve) => (heard = resolve));
    expect(hooked.filter(({ id }) => made.includes(id)).toSorted((a, b) => a.id - b.id)).toEqual(
      made.map((id) => ({ path: framework, id, n: 0 })),
    );
  },
);

/** Whether a delivery caused the messages of a record, in their order; one that was caused by nobody would be sent to the hook again. */
const causesOf = async (id: number): Promise<readonly boolean[]> =>
  (
    await system.rows<{ is: boolean }>(`select caused_by is not null as is from ancrage.messages where key = $1 order by id`, [String(id)])
  ).map(({ is }) => is);

test.each(Object.keys(writers))(
  "%s: the actor of a request is that of its transactions alone, whoever had the session before",
  async (library) => {
    const writer = writers[library]!(pool);
    await subscribe(`${system.receiver.url}/watch`);
    const made: number[] = [];
    // Forty at once on two sessions: each waits for one that another releases. Every second request has nobody to name.
    for (let index = 0; index < 40; index++) made.push(await makeItem());
    answerHook = (id) => (id % 4 < 2 ? writer.update(id) : writer.updateInTransaction(id)).then(() => writer.rollBack(id));
    const statuses = await Promise.all(
      made.map(async (id) => {
        const headers = { "content-type": "application/json", ...(id % 2 === 0 ? { "x-user": `user:${id}` } : {}) };
        return (await fetch(`${urls["express"]}/write`, { method: "POST", headers, body: JSON.stringify({ id }) })).status;
      }),
    );
    expect(new Set(statuses)).toEqual(new Set([204]));
    for (const id of made) {
      expect(await untilWatched(id, 2)).toEqual([
        { id, n: 0, actor: null },
        { id, n: 1, actor: id % 2 === 0 ? `user:${id}` : null },
      ]);
    }
  },
);

test("a statement that fails takes its own transaction back, and the session goes on", async () => {
  const id = await makeItem();
  await withMarks({ actor: "someone" }, async () => {
    await expect(pool.query("insert into item values ($1)", [id])).rejects.toMatchObject({ code: "23505" });
    const client = await pool.connect();
    await expect(client.query("update item set n = 1 / 0")).rejects.toMatchObject({ code: "22012" });
    expect((await client.query("select n from item where id = $1", [id])).rows).toEqual([{ n: 0 }]);
    // Two that nobody awaits in between are two transactions: the first one's end is not the second's.
    const both = await Promise.allSettled([
      client.query("update item set n = 1 / 0"),
      client.query("update item set n = 2 where id = $1", [id]),
    ]);
    expect(both.map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
    client.release();
  });
  expect(await system.rows("select n from item where id = $1", [id])).toEqual([{ n: 2 }]);
});

test("a client of its own; what is read only is not marked; an inner mark is another one", async () => {
  const client = markClient(new pg.Client({ connectionString: system.database.url, application_name: "test" }));
  await client.connect();
  await subscribe(`${system.receiver.url}/watch`);
  const [first, second, third] = [await makeItem(), await makeItem(), await makeItem()];
  const xid = async (): Promise<unknown> => (await client.query("select pg_current_xact_id_if_assigned() as xid")).rows[0].xid;
  await withMarks({ actor: "outer" }, async () => {
    await client.query("begin read only");
    expect(await xid()).toBeNull();
    await client.query("commit");
    await client.query("begin");
    await client.query("update item set n = 1 where id = $1", [first]);
    await withMarks({ actor: "inner" }, () => client.query("update item set n = 1 where id = $1", [second]));
    await client.query("commit");
    await withMarks({ mute: true }, () => client.query("update item set n = 1 where id = $1", [third]));
    // By callback, as pools do.
    await new Promise((resolve, reject) =>
      client.query("update item set n = 2 where id = $1", [third], (error, result) => (error ? reject(error) : resolve(result))),
    );
  });
  await client.end();
  expect((await untilWatched(first, 2))[1]?.actor).toBe("outer");
  expect((await untilWatched(second, 2))[1]?.actor).toBe("inner");
  expect((await untilWatched(third, 2)).map(({ n, actor }) => [n, actor])).toEqual([
    [0, null],
    [2, "outer"],
  ]);
});

test("a text that begins a transaction in its middle leaves it open", async () => {
  const client = markClient(new pg.Client({ connectionString: system.database.url, application_name: "test" }));
  await client.connect();
  const [first, second] = [await makeItem(), await makeItem()];
  await withMarks({ actor: "someone" }, async () => {
    await client.query(`update item set n = 1 where id = ${first}; begin; update item set n = 1 where id = ${second}`);
    await client.query("update item set n = 2 where id = $1", [second]);
    await client.query("rollback");
  });
  await client.end();
  // The transaction has the first one as well.
  expect(await system.rows("select n from item where id = any($1) order by id", [[first, second]])).toEqual([{ n: 0 }, { n: 0 }]);
});

test("a COPY is marked where a transaction is around it", async () => {
  await subscribe(`${system.receiver.url}/watch`);
  const id = ++ids;
  await withMarks({ actor: "import" }, async () => {
    const client = await pool.connect();
    await client.query("begin");
    await pipeline(Readable.from([`${id}\n`]), client.query(from("copy item (id) from stdin")));
    await client.query("commit");
    client.release();
  });
  expect(await untilWatched(id, 1)).toEqual([{ id, n: 0, actor: "import" }]);
});

test("a transaction that may not make a mark is not left open, and says why", async () => {
  await system.rows("create role unmarked login; grant select, update on item to unmarked");
  const id = await makeItem();
  const own = markPool(
    new pg.Pool({ connectionString: system.database.url, options: "-c role=unmarked", application_name: "test", max: 1 }),
  );
  await withMarks({ actor: "someone" }, () =>
    expect(own.query("update item set n = 1 where id = $1", [id])).rejects.toMatchObject({ code: "42501" }),
  );
  expect((await own.query("update item set n = 1 where id = $1", [id])).rowCount).toBe(1);
  await own.end();
  await system.rows("drop owned by unmarked; drop role unmarked");
});

test("what begins only when it is awaited begins with the marks of where it was made", async () => {
  await subscribe(`${system.receiver.url}/watch`);
  const id = await makeItem();
  // Drizzle's queries are no promises, and neither are Prisma's.
  await withMarks({ actor: "someone" }, () => drizzle(pool).execute(sql`update item set n = 1 where id = ${id}`));
  expect((await untilWatched(id, 2))[1]?.actor).toBe("someone");
});

test("what no mark can be made of is refused, or left out", () => {
  expect(() => withMarks({ actor: "" }, () => undefined)).toThrow('actor: expected a name of 1 to 256 characters, got ""');
  expect(withMarks({ causedBy: "x".repeat(5000) }, marksSql)).toBeUndefined();
  expect(withMarks({ actor: "a", causedBy: `msg_1.sub_1.1.${"x".repeat(22)}` }, marksSql)).toEqual({
    text: "select ancrage.actor($1), ancrage.caused_by($2)",
    values: ["a", `msg_1.sub_1.1.${"x".repeat(22)}`],
  });
  expect(marksSql()).toBeUndefined();
});
