import { randomBytes } from "node:crypto";
import { nowMs } from "./clock.ts";
import { startChild, type Child } from "./child.ts";
import { inTime, openEnvironment, type Environment } from "./environment.ts";
import { installPeers } from "./peers/install.ts";
import { sentTable, type PeerMethods } from "./peers/work.ts";
import type { Server } from "./server.ts";
import { computeMedian } from "./statistics.ts";

/** The same work (sign, send, record) done with a job queue, by its name. */
export type Peers = Readonly<Record<string, Peer>>;

export interface Peer {
  /** Ancrage's deliveries a second ÷ theirs, of rounds right beside each other; the median of these. */
  readonly ratio: number;
  /** From the begin of the application's transaction to the last result that is durable. */
  readonly perS: number;
  readonly oursPerS: number;
  /** Of the process that sends. */
  readonly cpuUsPerDelivery: number;
  readonly oursCpuUsPerDelivery: number;
  readonly rounds: number;
}

export interface PeersSize {
  readonly rounds: number;
  readonly deliveries: number;
}

const note = randomBytes(252).toString("base64");

export async function measurePeers(server: Server, size: PeersSize, tell: (words: string) => void): Promise<Peers> {
  const peersFolder = new URL("peers/", import.meta.url);
  await installPeers(peersFolder, tell);
  const names = ["graphile-worker", "pg-boss"];
  if (process.env["REDIS_URL"] !== undefined) {
    await installPeers(new URL("bullmq/", peersFolder), tell);
    names.push("bullmq");
  }
  const env = await openEnvironment(server);
  const [secret = ""] = await env.subscribe([`${env.urls.http}/hook`]);
  await env.receiver.call("check", secret);
  await env.system.call("stop");
  const peers: Contender[] = [];
  const contenders: Contender[] = [];
  try {
    contenders.push(ancrage(env));
    for (const name of names) {
      const peer = await openPeer(env, name, secret);
      peers.push(peer);
      contenders.push(peer);
    }
    const rounds = new Map<string, Timed[]>(contenders.map(({ name }) => [name, []]));
    for (let round = 0; round <= size.rounds; round++) {
      const these: string[] = [];
      for (const contender of contenders) {
        const timed = await runContender(env, contender, size.deliveries);
        these.push(`${contender.name} ${Math.round(timed.perS)}/s at ${Math.round(timed.cpuUs)} µs`);
        if (round > 0) rounds.get(contender.name)?.push(timed);
      }
      tell(`peers, ${round === 0 ? "warm-up" : `${round}/${size.rounds}`}: ${these.join("; ")}`);
    }
    const ours = rounds.get("ancrage") ?? [];
    return Object.fromEntries(peers.map(({ name }) => [name, compare(ours, rounds.get(name) ?? [])]));
  } finally {
    for (const { end } of contenders) await end();
    await env.remove();
  }
}

interface Timed {
  readonly perS: number;
  readonly cpuUs: number;
}

/** Whoever does the work. Only one of them runs at a time. */
interface Contender {
  readonly name: string;
  start(): Promise<void>;
  /** Rows, and what makes them be sent; returns when its transaction began. */
  write(rows: number): Promise<number>;
  /** Resolves when so many results are in the database. */
  recorded(count: number): Promise<void>;
  cpuUs(): Promise<number>;
  stop(): Promise<void>;
  end(): Promise<void>;
}

async function runContender(env: Environment, contender: Contender, rows: number): Promise<Timed> {
  await contender.start();
  try {
    // The first ones meet what a start leaves to the first ones: connections, a log that was written meanwhile.
    await runOnce(env, contender, 100);
    return await runOnce(env, contender, rows);
  } finally {
    await contender.stop();
  }
}

async function runOnce(env: Environment, contender: Contender, rows: number): Promise<Timed> {
  const { all } = await env.arrivals(rows);
  const cpuUs = await contender.cpuUs();
  const startedAtMs = await contender.write(rows);
  const { count, distinct, unsigned } = await all;
  await inTime(contender.recorded(rows));
  const endedAtMs = nowMs();
  if (count !== rows || distinct !== rows || unsigned > 0) {
    throw new Error(`${contender.name}: expected ${rows} signed requests, got ${count}, of ${distinct} rows, ${unsigned} unsigned.`);
  }
  return { perS: (rows * 1000) / (endedAtMs - startedAtMs), cpuUs: ((await contender.cpuUs()) - cpuUs) / rows };
}

function ancrage(env: Environment): Contender {
  const { database, writer, system } = env;
  return {
    name: "ancrage",
    start: () => system.call("start", database.url, {}),
    write: async (rows) => (await writer.call("writeBulk", rows)).startedAtMs,
    recorded: () => env.settled(),
    cpuUs: () => system.call("cpuUs"),
    stop: () => system.call("stop"),
    end: async () => undefined,
  };
}

async function openPeer(env: Environment, name: string, secret: string): Promise<Contender> {
  // A database of its own: what it writes is not in what Ancrage reads.
  const database = await env.server.createDatabase();
  await database.client.query(sentTable);
  const file = new URL(`peers/${name}.ts`, import.meta.url);
  const [application, worker]: [Child<PeerMethods>, Child<PeerMethods>] = [startChild(file), startChild(file)];
  await application.call("prepare", database.url);
  let recordedBefore = 0;
  return {
    name,
    start: () => worker.call("start", { databaseUrl: database.url, url: `${env.urls.http}/hook`, secret }),
    write: async (rows) => (await application.call("enqueue", { databaseUrl: database.url, rows, note })).startedAtMs,
    async recorded(count) {
      recordedBefore += count;
      for (;;) {
        const { rows } = await database.client.query<{ count: number }>("select count(*)::integer as count from sent");
        if ((rows[0]?.count ?? 0) >= recordedBefore) return;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
    cpuUs: () => worker.call("cpuUs"),
    stop: () => worker.call("stop"),
    async end() {
      await application.call("stop");
      await Promise.all([application.end(), worker.end()]);
      await database.remove();
    },
  };
}

function compare(ours: readonly Timed[], theirs: readonly Timed[]): Peer {
  return {
    ratio: computeMedian(ours.map(({ perS }, index) => perS / (theirs[index]?.perS ?? Number.NaN))),
    perS: computeMedian(theirs.map(({ perS }) => perS)),
    oursPerS: computeMedian(ours.map(({ perS }) => perS)),
    cpuUsPerDelivery: computeMedian(theirs.map(({ cpuUs }) => cpuUs)),
    oursCpuUsPerDelivery: computeMedian(ours.map(({ cpuUs }) => cpuUs)),
    rounds: theirs.length,
  };
}
