import { randomBytes } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { EmbeddedPostgres } from "../src/dev/embedded-postgres.ts";
import { readCpuUsOfTree } from "./process-cpu.ts";

/** One PostgreSQL for the whole run; each section has a database of its own in it. */
export interface Server {
  readonly settings: Settings;
  createDatabase(): Promise<Database>;
  /** CPU of PostgreSQL so far, in microseconds; undefined where it is not ours, or the operating system does not tell. */
  cpuUs(): Promise<number | undefined>;
  remove(): Promise<void>;
}

export interface Database {
  readonly url: string;
  /** The bench's own session in it. */
  readonly client: pg.Client;
  /** Drops its slots too: one that stays would keep the log of all later sections. */
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

/**
 * @param givenUrl a server to measure on; without one the embedded PostgreSQL is started
 * @throws Error where PostgreSQL does not wait for the disk: such figures would be of a system that loses messages
 */
export async function startServer(givenUrl: string | undefined): Promise<Server> {
  const embedded =
    givenUrl === undefined ? new EmbeddedPostgres({ directory: await mkdtemp(join(tmpdir(), "ancrage-bench-")) }) : undefined;
  try {
    await embedded?.start();
    const serverUrl = givenUrl ?? embedded?.url() ?? "";
    const settings = await withClient(serverUrl, readSettings);
    requireDurable(settings);
    return {
      settings,
      createDatabase: () => createDatabase(serverUrl),
      cpuUs: async () => (embedded?.pid === undefined ? undefined : readCpuUsOfTree(embedded.pid)),
      remove: async () => embedded?.remove(),
    };
  } catch (error) {
    await embedded?.remove();
    throw error;
  }
}

async function createDatabase(serverUrl: string): Promise<Database> {
  const name = `ancrage_bench_${randomBytes(4).toString("hex")}`;
  await withClient(serverUrl, (admin) => admin.query(`create database ${name}`));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const client = await connect(url.href);
  // A database or a role may have a setting of its own.
  requireDurable(await readSettings(client));
  await client.query("create table item (id integer generated always as identity primary key, note text not null)");
  return {
    url: url.href,
    client,
    async remove() {
      await client.query(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active",
      );
      await client.end();
      await withClient(serverUrl, (admin) => admin.query(`drop database ${name} with (force)`));
    },
  };
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: "bench" });
  // A run that fails stops the server first: what failed is to be heard, and not that.
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

async function withClient<Result>(url: string, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = await connect(url);
  try {
    return await work(client);
  } finally {
    await client.end();
  }
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
  const words = off.map((name) => `${name} = ${settings[name]}`).join(" and ");
  throw new Error(`PostgreSQL has ${words}, expected on: figures of a journal that does not wait for the disk are not reported.`);
}
