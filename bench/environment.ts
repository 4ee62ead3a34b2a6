import { mkdtemp } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { EmbeddedPostgres } from "../src/dev/embedded-postgres.ts";
import { startChild, type Child } from "./child.ts";
import type { CeilingMethods } from "./ceiling.ts";
import { readCpuUsOfTree } from "./process-cpu.ts";
import type { ReceiverMethods } from "./receiver.ts";
import type { SystemMethods } from "./system.ts";
import type { WriterMethods } from "./writer.ts";

/** All that a measurement needs, running: PostgreSQL and four processes. */
export interface Environment {
  readonly receiver: Child<ReceiverMethods>;
  readonly receiverUrl: string;
  readonly system: Child<SystemMethods>;
  readonly writer: Child<WriterMethods>;
  readonly ceiling: Child<CeilingMethods>;
  readonly settings: Settings;
  /** CPU of PostgreSQL so far, in microseconds; undefined where the operating system does not tell. */
  postgresCpuUs(): Promise<number | undefined>;
  /** Resolves when the journal has an outcome for so many deliveries. */
  journaled(deliveries: number): Promise<void>;
  /** Waits, but not for ever: a system that has stopped would hang the bench without a word. */
  inTime<Result>(work: Promise<Result>): Promise<Result>;
  remove(): Promise<void>;
}

/** What the figures were measured on; reported with them. */
export interface Settings {
  readonly cores: number;
  readonly processor: string;
  /** Processes that wanted a core, on average over the minute before: what others took of the machine. */
  readonly loadBefore: number;
  readonly node: string;
  readonly postgres: string;
  readonly fsync: string;
  readonly synchronousCommit: string;
  readonly fullPageWrites: string;
}

const databaseName = "bench";
const journalPollMs = 20;
/** Twenty times what a round takes here. */
const roundMs = 60_000;

/** @throws Error where PostgreSQL does not wait for the disk: such figures would be of a system that loses messages */
export async function startEnvironment(): Promise<Environment> {
  const postgres = new EmbeddedPostgres({ directory: await mkdtemp(join(tmpdir(), "ancrage-bench-")) });
  const receiver = startChild<ReceiverMethods>(new URL("receiver.ts", import.meta.url));
  const system = startChild<SystemMethods>(new URL("system.ts", import.meta.url));
  const writer = startChild<WriterMethods>(new URL("writer.ts", import.meta.url));
  const ceiling = startChild<CeilingMethods>(new URL("ceiling.ts", import.meta.url));
  let client: pg.Client | undefined;

  const remove = async (): Promise<void> => {
    await Promise.all([receiver, system, writer, ceiling].map((child) => child.end()));
    await client?.end();
    await postgres.remove();
  };

  try {
    await postgres.start();
    await createDatabase(postgres.url());
    const url = postgres.url(databaseName);
    client = new pg.Client({ connectionString: url, application_name: "bench" });
    await client.connect();
    const journal = client;
    const settings = await readSettings(client);
    requireDurable(settings);
    await client.query("create table item (id integer generated always as identity primary key, note text not null)");
    const receiverUrl = await receiver.call("listen");
    await system.call("start", url);
    await system.call("subscribe", `${receiverUrl}/hook`);
    await writer.call("connect", url);
    return {
      receiver,
      receiverUrl,
      system,
      writer,
      ceiling,
      settings,
      postgresCpuUs: async () => (postgres.pid === undefined ? undefined : readCpuUsOfTree(postgres.pid)),
      async journaled(deliveries) {
        while ((await countDelivered(journal)) < deliveries) await new Promise((resolve) => setTimeout(resolve, journalPollMs));
      },
      inTime,
      async remove() {
        await writer.call("end");
        await system.call("stop");
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function inTime<Result>(work: Promise<Result>): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new Error(`deliveries were still missing after ${roundMs / 1000} s: see what Ancrage logged above, and run it again.`)),
      roundMs,
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function createDatabase(serverUrl: string): Promise<void> {
  const admin = new pg.Client({ connectionString: serverUrl });
  await admin.connect();
  await admin.query(`create database ${databaseName}`);
  await admin.end();
}

async function readSettings(client: pg.Client): Promise<Settings> {
  const { rows } = await client.query<{ name: string; setting: string }>(
    `select name, setting from pg_settings where name in ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes')`,
  );
  const setting = (name: string): string => rows.find((row) => row.name === name)?.setting ?? "unknown";
  return {
    cores: availableParallelism(),
    processor: cpus()[0]?.model ?? "unknown",
    loadBefore: loadavg()[0] ?? 0,
    node: process.version,
    postgres: setting("server_version"),
    fsync: setting("fsync"),
    synchronousCommit: setting("synchronous_commit"),
    fullPageWrites: setting("full_page_writes"),
  };
}

function requireDurable(settings: Settings): void {
  const off = (["fsync", "synchronousCommit", "fullPageWrites"] as const).filter((name) => settings[name] !== "on");
  if (off.length === 0) return;
  throw new Error(
    `PostgreSQL has ${off.map((name) => `${name} = ${settings[name]}`).join(" and ")}, expected on: figures of a journal that does not wait for the disk are not reported.`,
  );
}

async function countDelivered(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `select count(*)::integer as count from ancrage.deliveries where state = 'delivered'`,
  );
  return rows[0]?.count ?? 0;
}
