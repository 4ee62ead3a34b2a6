import { randomBytes } from "node:crypto";
import type { Profiler } from "node:inspector/promises";
import pg from "pg";
import { largestWindow } from "../src/deliver/window.ts";
import { nowMs } from "./clock.ts";
import { inTime, openEnvironment, type Environment } from "./environment.ts";
import { runCeiling, runSystem } from "./round.ts";
import type { Database, Server } from "./server.ts";

/** A process that starts over a journal full of pending deliveries. */
export interface Backlog extends Drain {
  readonly deliveries: number;
  /** The figures above are the worst of these. */
  readonly oneSubscription: Drain;
  readonly hundredSubscriptions: Drain;
  /** One subscription, while a transaction that began before keeps all that drains from being vacuumed. */
  readonly besideOldSnapshot: Drain;
}

interface Drain {
  /** From the start of the process to the first request that arrives. */
  readonly startMs: number;
  /** The most memory that the process had, code and all. */
  readonly rssMiB: number;
  /** Deliveries a second to the ceiling in the same minutes. */
  readonly drainRatio: number;
  readonly drainPerS: number;
  /** Of the process that sends, from its start on, and of PostgreSQL; undefined where it cannot be told. */
  readonly cpuUsPerDelivery: number;
  readonly postgresCpuUsPerDelivery: number | undefined;
}

export interface BacklogSize {
  readonly deliveries: number;
  /** How many are drained and timed. */
  readonly drained: number;
}

export async function measureBacklog(server: Server, size: BacklogSize, tell: (words: string) => void): Promise<Backlog> {
  const env = await openEnvironment(server);
  try {
    await env.subscribe([`${env.urls.http}/hook`]);
    // Makes the partitions of the day, and a batch that everything before is settled in.
    await runSystem(env, { deliveries: 1_000 });
    await env.restart({}, async () => {
      tell(`backlog: ${size.deliveries} messages are written`);
      await insertMessages(env.database.client, size.deliveries);
    });
    const measure = async (name: string, subscriptions: number): Promise<Drain> => {
      const drain = await measureDrain(env, size, subscriptions);
      tell(
        `backlog, ${name}: first arrival after ${Math.round(drain.startMs)} ms, ${Math.round(drain.rssMiB)} MiB, ${Math.round(drain.drainPerS)}/s, ${drain.drainRatio.toFixed(2)} of the ceiling; ${Math.round(drain.cpuUsPerDelivery)} µs, PostgreSQL ${Math.round(drain.postgresCpuUsPerDelivery ?? Number.NaN)} µs`,
      );
      return drain;
    };
    const oneSubscription = await measure("one subscription", 1);
    const besideOldSnapshot = await besideSnapshot(env.database, () => measure("beside an old snapshot", 1));
    const hundredSubscriptions = await measure("100 subscriptions", 100);
    const all = [oneSubscription, hundredSubscriptions, besideOldSnapshot];
    return {
      startMs: Math.max(...all.map(({ startMs }) => startMs)),
      rssMiB: Math.max(...all.map(({ rssMiB }) => rssMiB)),
      drainRatio: Math.min(...all.map(({ drainRatio }) => drainRatio)),
      drainPerS: Math.min(...all.map(({ drainPerS }) => drainPerS)),
      cpuUsPerDelivery: Math.max(...all.map(({ cpuUsPerDelivery }) => cpuUsPerDelivery)),
      postgresCpuUsPerDelivery: oneSubscription.postgresCpuUsPerDelivery,
      deliveries: size.deliveries,
      oneSubscription,
      hundredSubscriptions,
      besideOldSnapshot,
    };
  } finally {
    await env.remove();
  }
}

async function measureDrain(env: Environment, { deliveries, drained }: BacklogSize, subscriptions: number): Promise<Drain> {
  const { receiver, urls, database } = env;
  await env.subscribe(Array.from({ length: subscriptions }, (_, index) => `${urls.http}/hook?${index}`));
  // The stream must have come to them: it is what places them.
  await runSystem(env, { deliveries: 100 * subscriptions, fanOut: subscriptions });
  const { bodyBytes } = await receiver.call("until", 0);
  const ceilingWork = { url: `${urls.http}/hook`, count: drained, bodyBytes: Math.round(bodyBytes), inFlight: largestWindow };
  const ceilingBefore = await runCeiling(env, ceilingWork);
  // What is written by hand here is in the log: a journal that filled in its own time has had that read long ago.
  await env.restart({}, async () => {
    await insertDeliveries(database.client, deliveries);
    await setState(database.client, "paused");
  });
  await env.caughtUp();
  let startedAtMs = 0;
  let first = Promise.resolve({ lastAtMs: 0 });
  await env.restart({}, async () => {
    await setState(database.client, "enabled");
    await receiver.call("reset");
    first = receiver.call("until", 1);
    startedAtMs = nowMs();
  });
  const { lastAtMs: firstAtMs } = await inTime(first);
  const postgresCpuUs = await env.server.cpuUs();
  const { lastAtMs } = await inTime(receiver.call("until", drained));
  const cpuUsPerDelivery = (await env.system.call("cpuUs")) / drained;
  const postgresEndUs = await env.server.cpuUs();
  const postgresCpuUsPerDelivery =
    postgresCpuUs === undefined || postgresEndUs === undefined ? undefined : (postgresEndUs - postgresCpuUs) / drained;
  const rssMiB = await env.system.call("mostMemoryMiB");
  const drainPerS = (drained * 1000) / (lastAtMs - firstAtMs);
  // Nothing is left to drain beside the ceiling.
  await env.restart({}, () => deleteDeliveries(database.client));
  const ceilingAfter = await runCeiling(env, ceilingWork);
  const drainRatio = drainPerS / ((ceilingBefore.perS + ceilingAfter.perS) / 2);
  return { startMs: firstAtMs - startedAtMs, rssMiB, drainRatio, drainPerS, cpuUsPerDelivery, postgresCpuUsPerDelivery };
}

/** Drains what waits of one subscription while a profiler looks on. */
export async function profileBacklog(env: Environment, drained: number): Promise<Profiler.Profile> {
  const { receiver, urls, database } = env;
  await env.subscribe([`${urls.http}/hook`]);
  await runSystem(env, { deliveries: 1_000 });
  await env.restart({}, async () => {
    await insertMessages(database.client, 2 * drained);
    await insertDeliveries(database.client, 2 * drained);
    await setState(database.client, "paused");
  });
  await env.caughtUp();
  let half = Promise.resolve({ lastAtMs: 0 });
  await env.restart({}, async () => {
    await setState(database.client, "enabled");
    await receiver.call("reset");
    half = receiver.call("until", drained);
  });
  await env.system.call("startProfile");
  await inTime(half);
  return env.system.call("stopProfile");
}

async function besideSnapshot<Result>(database: Database, work: () => Promise<Result>): Promise<Result> {
  const session = new pg.Client({ connectionString: database.url, application_name: "bench old snapshot" });
  await session.connect();
  try {
    await session.query("begin isolation level repeatable read");
    await session.query("select pg_current_xact_id()");
    return await work();
  } finally {
    await session.end();
  }
}

/**
 * Decimal digits are digits of base 32 too, and sort as numbers do. All of them were committed a moment ago, by a log of no length.
 * In transactions of a size that a system writes: one with a million rows would be decoded as a whole, on the disk.
 */
async function insertMessages(client: pg.Client, count: number): Promise<void> {
  for (const [from, to] of chunks(count)) {
    await client.query(
      `insert into ancrage.messages (id, project, event, key, commit_lsn, change_lsn, ordinal, committed_at, body)
       select ${messageId}, 'default', 'ItemCreated', i::text, '0/1'::pg_lsn + i, '0/1'::pg_lsn + i, 0, now(),
         convert_to('{"number":' || i || ',"note":"' || $3 || '"}', 'UTF8')
       from generate_series($1::integer, $2::integer) as i`,
      [from, to, randomBytes(252).toString("base64")],
    );
  }
  await client.query("vacuum (analyze) ancrage.messages");
}

/** One for each message, over all live subscriptions in turn. */
async function insertDeliveries(client: pg.Client, count: number): Promise<void> {
  await deleteDeliveries(client);
  for (const [from, to] of chunks(count)) {
    await client.query(
      `insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, updated_at)
       select ${messageId}, ids[1 + i % cardinality(ids)], 'default', 'pending', 1, 0, now()
       from generate_series($1::integer, $2::integer) as i,
         (select array_agg(id) as ids from ancrage.subscriptions where state <> 'deleted') as live`,
      [from, to],
    );
  }
  await client.query("vacuum (analyze) ancrage.deliveries");
}

const chunkRows = 10_000;
const chunks = (count: number): readonly (readonly [number, number])[] =>
  Array.from({ length: Math.ceil(count / chunkRows) }, (_, index) => [index * chunkRows + 1, Math.min(count, (index + 1) * chunkRows)]);

async function deleteDeliveries(client: pg.Client): Promise<void> {
  await client.query("truncate ancrage.deliveries, ancrage.attempts");
}

/** Behind the back of a process that does not run: one that starts reads it. */
async function setState(client: pg.Client, state: "paused" | "enabled"): Promise<void> {
  await client.query("update ancrage.subscriptions set state = $1 where state <> 'deleted'", [state]);
}

/** Of today: its partition is there. */
const messageId = `'msg_' || ancrage.base32((extract(epoch from date_trunc('hour', now())) * 1000)::bigint, 10)
  || lpad(i::text, 13, '0') || lpad(i::text, 13, '0') || '0000000' || lpad(i::text, 13, '0')`;
