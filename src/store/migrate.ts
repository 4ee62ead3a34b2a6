import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import type pg from "pg";
import { inTransaction } from "./database.ts";

const folder = new URL("./migrations/", import.meta.url);

export interface Migration {
  readonly number: number;
  readonly name: string;
  readonly sql: string;
}

/** The numbered files, in order. */
export async function readMigrations(): Promise<readonly Migration[]> {
  const names = (await readdir(folder)).filter((name) => /^\d{4}-[a-z0-9-]+\.sql$/.test(name)).toSorted();
  return Promise.all(
    names.map(async (name) => ({
      number: Number(name.slice(0, 4)),
      name: name.slice(5, -4),
      sql: await readFile(new URL(name, folder), "utf8"),
    })),
  );
}

/** The migrations that the database lacks. An empty list means that it is up to date. */
export async function pendingMigrations(client: pg.ClientBase): Promise<readonly Migration[]> {
  const all = await readMigrations();
  const { rows: found } = await client.query<{ there: boolean }>(`select to_regclass('ancrage.migrations') is not null as there`);
  if (found[0]?.there !== true) return all;
  const { rows } = await client.query<{ number: number }>(`select number from ancrage.migrations`);
  const done = new Set(rows.map((row) => row.number));
  return all.filter((migration) => !done.has(migration.number));
}

/** Two that migrate at once wait for each other: held until `unlockMigrations`, or to the end of the session. Counted. */
export async function lockMigrations(client: pg.ClientBase): Promise<void> {
  await client.query(`select pg_advisory_lock(hashtext('ancrage.migrate'))`);
}

async function unlockMigrations(client: pg.ClientBase): Promise<void> {
  await client.query(`select pg_advisory_unlock(hashtext('ancrage.migrate'))`);
}

/**
 * Brings the schema `ancrage` up to date, as its owner.
 *
 * @returns the names of the migrations that ran
 */
export async function migrateSchema(client: pg.ClientBase): Promise<readonly string[]> {
  await lockMigrations(client);
  try {
    await client.query(`
      create schema if not exists ancrage;
      create table if not exists ancrage.migrations (
        number integer primary key, name text not null, at timestamptz not null default now()
      )`);
    const ran: string[] = [];
    for (const migration of await pendingMigrations(client)) {
      // Its own row first: whatever runs this file a second time fails on it before it has done anything.
      await inTransaction(client, async () => {
        await client.query(`insert into ancrage.migrations (number, name) values ($1, $2)`, [migration.number, migration.name]);
        await client.query(migration.sql);
      });
      ran.push(migration.name);
    }
    await client.query(
      `insert into ancrage.settings (system_identifier, trigger_key)
       select system_identifier::text, $1 from pg_control_system() on conflict do nothing`,
      [randomBytes(64)],
    );
    return ran;
  } finally {
    await unlockMigrations(client);
  }
}
