import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Attempt } from "../../src/deliver/send.ts";
import { defineEvent } from "../../src/event/define.ts";
import { createRandom } from "./random.ts";
import { startSystem, type System } from "./system.ts";

const workers = 8;
const turnsEach = 125;

/** One event a worker, so that the workers' rows do not meet. */
const events = Object.fromEntries(
  Array.from({ length: workers }, (_, worker) => [
    `Changed${worker}`,
    defineEvent({
      table: "item",
      on: "insert",
      where: (item) => item["worker"] === worker,
      payload: (item) => ({ id: item["id"] }),
    }),
  ]),
);

/** When a request for a key to a subscription's path was begun. */
interface Arrival {
  readonly id: number;
  readonly atMs: number;
}

const arrivals = new Map<string, Arrival[]>();
/** When a request was written: what arrives a moment after a deletion may have been under way before it. */
const sentAtMs = new Map<string, number>();
const onAttempt = (attempt: unknown): void => {
  const { message, subscription } = attempt as Attempt;
  sentAtMs.set(`${subscription.path} ${message.id}`, performance.now());
};
const waiting = new Map<string, () => void>();
const server = createServer((incoming, response) => {
  const path = incoming.url ?? "";
  const atMs = sentAtMs.get(`${path} ${String(incoming.headers["webhook-id"])}`) ?? Number.NaN;
  let body = "";
  incoming.on("data", (chunk: Buffer) => (body += chunk.toString()));
  incoming.on("end", () => {
    const { id } = JSON.parse(body) as { id: number };
    arrivals.set(path, [...(arrivals.get(path) ?? []), { id, atMs }]);
    waiting.get(path)?.();
    response.writeHead(200).end();
  });
});

let system: System;
let url: string;
beforeAll(async () => {
  subscribe("ancrage:attempt", onAttempt);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  system = await startSystem({ schema: "create table item (id integer primary key, worker integer not null)", events });
});
afterAll(async () => {
  unsubscribe("ancrage:attempt", onAttempt);
  await system.close();
  server.closeAllConnections();
  server.close();
});

interface Committed {
  readonly id: number;
  readonly beganAtMs: number;
  readonly returnedAtMs: number;
}

interface Turn {
  readonly path: string;
  readonly subscription: string;
  readonly postedAtMs: number;
  readonly createdAtMs: number;
  readonly deleteSentAtMs: number;
  readonly deletedAtMs: number;
  readonly rows: readonly Committed[];
}

let lastId = 0;

test("a subscription has what was committed after its 201, nothing from before it, and nothing begins after its DELETE's 200", async () => {
  const random = createRandom();
  console.log(`interleavings: seed ${random.seed}`);

  const run = async (worker: number): Promise<readonly Turn[]> => {
    const sessions = [await system.database.connect(), await system.database.connect()];
    const commit = async (session = 0): Promise<Committed> => {
      const id = ++lastId;
      const beganAtMs = performance.now();
      await sessions[session]!.query("insert into item values ($1, $2)", [id, worker]);
      return { id, beganAtMs, returnedAtMs: performance.now() };
    };
    /** Commits beside something else, from one session, until that is done. */
    const commitUntil = async (done: Promise<unknown>, session: number): Promise<readonly Committed[]> => {
      const rows: Committed[] = [];
      const over = new AbortController();
      void done.then(() => over.abort());
      do rows.push(await commit(session));
      while (!over.signal.aborted && random.chance(0.7));
      return rows;
    };
    const turns: Turn[] = [];
    for (let turn = 0; turn < turnsEach; turn++) {
      const path = `/${worker}/${turn}`;
      const rows: Committed[] = [];
      const note = (some: readonly Committed[]): void => void rows.push(...some);
      if (random.chance(0.5)) note([await commit()]);

      const postedAtMs = performance.now();
      const post = system.call("POST", "/v1/subscriptions", { event: `Changed${worker}`, url: url + path, format: "bare" });
      if (random.chance(0.7)) note(await commitUntil(post, 1));
      const { status, body } = await post;
      expect(status).toBe(201);
      const createdAtMs = performance.now();

      for (let left = random.integer(0, 3); left > 0; left--) note([await commit(random.integer(0, 1))]);
      const after = rows.filter(({ beganAtMs }) => beganAtMs > createdAtMs);
      const last = after.at(-1);
      // Now and then all of it is awaited before the end; else the end comes upon it.
      if (last !== undefined && random.chance(0.5)) {
        const isThere = (): boolean => after.every(({ id }) => arrivals.get(path)?.some((arrival) => arrival.id === id) === true);
        while (!isThere()) await new Promise<void>((resolve) => waiting.set(path, resolve));
        waiting.delete(path);
      }

      const deleteSentAtMs = performance.now();
      const deletion = system.call("DELETE", `/v1/subscriptions/${body.id}`);
      if (random.chance(0.7)) note(await commitUntil(deletion, 1));
      expect((await deletion).status).toBe(200);
      const deletedAtMs = performance.now();
      if (random.chance(0.5)) note([await commit()]);
      turns.push({ path, subscription: body.id, postedAtMs, createdAtMs, deleteSentAtMs, deletedAtMs, rows });
    }
    return turns;
  };
  const turns = (await Promise.all(Array.from({ length: workers }, (_, worker) => run(worker)))).flat();
  expect(turns.length).toBe(1_000);

  // All is journaled, and every delivery is over, before anything is judged.
  await system.until("select count(*) from ancrage.messages", lastId);
  await system.until("select count(*) from ancrage.deliveries where state in ('pending', 'retrying')", 0);
  await system.ancrage().stop();
  const deliveries = await system.rows<{ subscription: string; id: number; state: string }>(
    "select d.subscription_id as subscription, m.key::integer as id, d.state from ancrage.deliveries d join ancrage.messages m on m.id = d.message_id",
  );
  const bySubscription = Map.groupBy(deliveries, ({ subscription }) => subscription);

  const faults: string[] = [];
  let owed = 0;
  for (const turn of turns) {
    const arrived = arrivals.get(turn.path) ?? [];
    const states = new Map((bySubscription.get(turn.subscription) ?? []).map(({ id, state }) => [id, state]));
    const known = new Set(turn.rows.map(({ id }) => id));
    for (const { id, atMs } of arrived) {
      if (!known.has(id)) faults.push(`${turn.path}: ${id} is no change of this turn`);
      if (!(atMs <= turn.deletedAtMs)) faults.push(`${turn.path}: ${id} was sent ${atMs - turn.deletedAtMs} ms after the deletion`);
    }
    if (new Set(arrived.map(({ id }) => id)).size < arrived.length) faults.push(`${turn.path}: something came twice`);
    for (const { id, beganAtMs, returnedAtMs } of turn.rows) {
      const isBefore = returnedAtMs < turn.postedAtMs;
      const isBetween = beganAtMs > turn.createdAtMs && returnedAtMs < turn.deleteSentAtMs;
      if (isBefore && (states.has(id) || arrived.some((one) => one.id === id))) faults.push(`${turn.path}: ${id} is from before it`);
      if (beganAtMs > turn.deletedAtMs && states.has(id)) faults.push(`${turn.path}: ${id} is from after its end`);
      if (!isBetween) continue;
      owed++;
      // What the deletion came upon was canceled, or not fanned out any more: that is its meaning.
      const state = states.get(id);
      if (state === "delivered" && !arrived.some((one) => one.id === id)) faults.push(`${turn.path}: ${id} is delivered, says the journal`);
    }
  }
  expect(faults).toEqual([]);
  expect(owed).toBeGreaterThan(500);
});
