import { fork, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createAncrage, migrate } from "../../src/create-ancrage.ts";
import { cloneDatabase, type TestDatabase } from "../database.ts";
import { crashEvents } from "./crash-events.ts";
import { createRandom } from "./random.ts";

/** A hundred by hand: `CRASH_KILLS=100 npx vitest run test/e2e/crash.pg.test.ts`. */
const kills = Number(process.env["CRASH_KILLS"] ?? 20);
/** A second process waits as a standby all the time, and is killed as often as the one that leads. */
const hasStandby = process.env["CRASH_STANDBY"] !== undefined;
/** An outcome goes with the next batch that begins; the one under way when its answer is still in the socket does not carry it yet. */
const mostBatchesUntilJournaled = 2;

const random = createRandom();
let database: TestDatabase;
beforeAll(async () => {
  database = await cloneDatabase();
  await database.client.query("create table item (id integer primary key, label text not null, is_wanted boolean not null)");
});
afterAll(() => database.remove());

interface Request {
  readonly id: string;
  readonly subscription: string;
  readonly digest: string;
  readonly atMs: number;
  /** When a 200 was written whole. */
  deliveredAtMs: number | undefined;
}

/** 200 mostly; else 500, a reset, or an answer that takes its time. */
async function startMoodyReceiver(): Promise<{ readonly url: string; readonly requests: readonly Request[]; close(): Promise<void> }> {
  const requests: Request[] = [];
  const receive = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const hash = createHash("sha256");
    for await (const chunk of incoming) hash.update(chunk as Buffer);
    const request: Request = {
      id: String(incoming.headers["webhook-id"]),
      subscription: String(incoming.headers["ancrage-subscription"]),
      digest: hash.digest("hex"),
      atMs: now(),
      deliveredAtMs: undefined,
    };
    requests.push(request);
    const mood = random.next();
    const succeed = (): void => {
      response.writeHead(200).end(() => (request.deliveredAtMs = now()));
    };
    if (mood < 0.05) response.writeHead(500).end("not now");
    else if (mood < 0.08) incoming.socket.destroy();
    else if (mood < 0.12) setTimeout(succeed, random.integer(50, 300));
    else succeed();
  };
  const server = createServer((incoming, response) => {
    // A killed sender takes its half-sent requests with it.
    receive(incoming, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Commits at random, and keeps what the journal must hold for it: `event key`. */
function startWriter(client: pg.Client): { readonly committed: Set<string>; readonly undone: Set<string>; stop(): Promise<void> } {
  const committed = new Set<string>();
  const undone = new Set<string>();
  let lastId = 0;
  const stopping = new AbortController();

  const insert = async (rows: number, names: Set<string>): Promise<void> => {
    const first = lastId + 1;
    lastId += rows;
    await client.query(`insert into item select i, 'item ' || i, i % 4 <> 0 from generate_series($1::integer, $2::integer) i`, [
      first,
      lastId,
    ]);
    for (let id = first; id <= lastId; id++) if (id % 4 !== 0) names.add(`ItemCreated ${id}`);
  };
  const trigger = async (names: Set<string>): Promise<void> => {
    const key = `note ${++lastId}`;
    await client.query(`select ancrage.trigger('ItemNoted', $1, $2)`, [key, JSON.stringify({ at: lastId })]);
    names.add(`ItemNoted ${key}`);
  };
  const works: readonly (() => Promise<void>)[] = [
    () => insert(1, committed),
    () => insert(random.integer(2, 20), committed),
    () => trigger(committed),
    async () => {
      // Noted as committed only once it is.
      const names = new Set<string>();
      const lost = new Set<string>();
      await client.query("begin");
      await insert(random.integer(1, 5), names);
      await client.query("savepoint here");
      await insert(2, lost);
      await trigger(lost);
      await client.query("rollback to savepoint here");
      await trigger(names);
      await client.query("commit");
      for (const name of names) committed.add(name);
      for (const name of lost) undone.add(name);
    },
    async () => {
      await client.query("begin");
      await insert(3, undone);
      await trigger(undone);
      await client.query("rollback");
    },
    () => insert(random.chance(0.02) ? 600 : 1, committed),
  ];
  const written = (async () => {
    while (!stopping.signal.aborted) {
      await works[random.integer(0, works.length - 1)]?.();
      await pause(random.integer(5, 100));
    }
  })();
  return {
    committed,
    undone,
    stop() {
      stopping.abort();
      return written;
    },
  };
}

/** On PostgreSQL's clock, which is this machine's. */
const now = (): number => performance.timeOrigin + performance.now();
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test(
  "killed at random and started again, it misses nothing, invents nothing, and repeats only what was open",
  async () => {
    const receiver = await startMoodyReceiver();
    const options = {
      database: database.url,
      token: "a-token-of-the-operator",
      secretKey: randomBytes(32).toString("base64"),
      allowHttp: true,
      allowNetworks: ["127.0.0.0/8"],
      retry: { schedule: [0, 0.1, 0.1, ...Array.from({ length: 17 }, () => 0.3)], jitter: 0.2 },
      logLevel: "warn",
    } as const;
    await migrate({ ...options, events: crashEvents });
    const api = createAncrage({ ...options, events: crashEvents });
    await api.subscriptions.create({ events: ["ItemCreated", "ItemNoted"], url: `${receiver.url}/a` });
    await api.subscriptions.create({ events: ["ItemCreated", "ItemNoted"], url: `${receiver.url}/b`, format: "bare" });
    await api.stop();

    let said = "";
    const spawn = (): { readonly child: ChildProcess; readonly started: Promise<void>; readonly exited: Promise<number | null> } => {
      const child = fork(fileURLToPath(new URL("crash-child.ts", import.meta.url)), {
        env: { ...process.env, CRASH_OPTIONS: JSON.stringify(options) },
        execArgv: ["-C", "ancrage-source"],
        stdio: ["ignore", "pipe", "pipe", "ipc"],
      });
      child.stdout?.on("data", (chunk: Buffer) => (said += chunk.toString()));
      child.stderr?.on("data", (chunk: Buffer) => (said += chunk.toString()));
      const exited = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
      const started = new Promise<void>((resolve, reject) => {
        child.on("message", () => resolve());
        void exited.then((code) => reject(new Error(`the child ended with ${String(code)} before it had started:\n${said}`)));
      });
      started.catch(() => undefined);
      return { child, started, exited };
    };

    const killedAtMs: number[] = [];
    const writer = startWriter(await database.connect());
    let standby = hasStandby ? spawn() : undefined;
    for (let turn = 0; turn < kills; turn++) {
      const next = spawn();
      // Of two either one leads.
      const { child, started, exited } = standby !== undefined && random.chance(0.5) ? standby : next;
      if (standby !== undefined && child === standby.child) standby = next;
      // Some die while they start.
      if (!random.chance(0.15)) await started;
      await pause(random.integer(0, 1_000));
      child.kill("SIGKILL");
      await exited;
      killedAtMs.push(now());
    }
    if (standby !== undefined) {
      standby.child.kill("SIGKILL");
      await standby.exited;
      killedAtMs.push(now());
    }
    const last = spawn();
    await last.started;
    await writer.stop();

    const { committed, undone } = writer;
    const count = async (sql: string): Promise<number> => Number((await database.client.query<{ n: string }>(sql)).rows[0]?.n);
    const delivered = "select count(*) as n from ancrage.deliveries where state = 'delivered'";
    while ((await count(delivered)) < 2 * committed.size && last.child.exitCode === null) await pause(50);
    last.child.send("stop");
    expect({ code: await last.exited, said }).toMatchObject({ code: 0 });
    await receiver.close();

    const { rows: messages } = await database.client.query<{ id: string; name: string; body: Buffer; place: string }>(
      `select id, event || ' ' || key as name, body, event || key || commit_lsn || change_lsn || ordinal as place from ancrage.messages`,
    );
    expect(new Set(messages.map(({ name }) => name))).toEqual(committed);
    expect(messages.length).toBe(committed.size);
    expect(new Set(messages.map(({ place }) => place)).size).toBe(messages.length);
    expect(messages.filter(({ name }) => undone.has(name))).toEqual([]);
    expect(undone.size).toBeGreaterThan(0);
    expect(await count(delivered)).toBe(2 * committed.size);
    expect(await count("select count(*) as n from ancrage.deliveries where state <> 'delivered'")).toBe(0);
    expect(await count("select count(*) as n from ancrage.rejections")).toBe(0);

    // Same id, same bytes; and each delivery was answered with 200, which the journal says of it.
    const byDelivery = Map.groupBy(receiver.requests, ({ id, subscription }) => `${subscription} ${id}`);
    expect(byDelivery.size).toBe(2 * committed.size);
    const bodies = new Map(messages.map(({ id, body }) => [id, createHash("sha256").update(body).digest("hex")]));
    const differing = [...byDelivery.values()].filter((all) => new Set(all.map(({ digest }) => digest)).size > 1);
    expect(differing).toEqual([]);
    const bare = receiver.requests.filter(({ id, digest }) => bodies.get(id) === digest);
    expect(new Set(bare.map(({ id }) => id)).size).toBe(committed.size);
    expect([...byDelivery.values()].filter((all) => all.every(({ deliveredAtMs }) => deliveredAtMs === undefined))).toEqual([]);

    // What came again after its 200 had been in flight, or not journaled yet, when the process was killed in between.
    const { rows: batches } = await database.client.query<{ ms: number }>(
      "select extract(epoch from at)::float8 * 1000 as ms from ancrage.batches order by number",
    );
    const batchesBetween = (fromMs: number, toMs: number): number => batches.filter(({ ms }) => ms > fromMs && ms < toMs).length;
    const repeats = [...byDelivery.values()].flatMap((all) =>
      all.flatMap((request, index) => {
        const answeredAtMs = all[index - 1]?.deliveredAtMs;
        if (answeredAtMs === undefined) return [];
        const killMs = killedAtMs.find((ms) => ms >= answeredAtMs - 1 && ms <= request.atMs);
        return [{ ...request, answeredAtMs, batches: killMs === undefined ? Infinity : batchesBetween(answeredAtMs, killMs) }];
      }),
    );
    console.log(
      `crash test: seed ${random.seed}, ${kills} kills, ${committed.size} messages, ${receiver.requests.length} requests, ` +
        `${repeats.length} repeated after a 200, at most ${Math.max(0, ...repeats.map((repeat) => repeat.batches))} batches later`,
    );
    expect(repeats.filter((repeat) => repeat.batches > mostBatchesUntilJournaled)).toEqual([]);
    expect(repeats.length).toBeLessThan(kills * 500);
  },
  150_000 + kills * 7_000,
);
