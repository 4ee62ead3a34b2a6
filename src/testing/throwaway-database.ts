import { randomBytes } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EmbeddedPostgres } from "../dev/embedded-postgres.ts";
import { connectClient } from "../store/database.ts";

/** A database that goes with the test. */
export interface ThrowawayDatabase {
  readonly url: string;
  /** Drops it, and the replication slots on it. */
  remove(): Promise<void>;
}

/**
 * Makes an empty database: on the given server, whose other databases are left alone, else on a PostgreSQL of its own.
 *
 * @param serverUrl of a role that may create databases and replicate
 */
export async function createThrowawayDatabase(serverUrl: string | undefined): Promise<ThrowawayDatabase> {
  if (serverUrl === undefined) return createEmbedded();
  const name = `ancrage_throwaway_${randomBytes(6).toString("hex")}`;
  await runOn(serverUrl, `create database ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return {
    url: url.href,
    async remove() {
      await runOn(
        serverUrl,
        // A walsender that was just left may hold its slot for a moment more: ended, and waited for, before the slot is dropped.
        `select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where database = '${name}' and active_pid is not null`,
        `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '${name}'`,
        `drop database if exists ${name} with (force)`,
      );
    },
  };
}

async function createEmbedded(): Promise<ThrowawayDatabase> {
  const directory = await mkdtemp(join(tmpdir(), "ancrage-test-"));
  const postgres = new EmbeddedPostgres({
    directory,
    isThrowaway: true,
    // With `off` a commit reaches the log's readers only when the server next writes by itself: 200 ms a test.
    settings: { synchronous_commit: "on" },
  });
  try {
    await postgres.start();
  } catch (error) {
    await postgres.remove();
    throw error;
  }
  return { url: postgres.url(), remove: () => postgres.remove() };
}

async function runOn(url: string, ...statements: readonly string[]): Promise<void> {
  const client = await connectClient({ connectionString: url, applicationName: "ancrage testing" });
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
