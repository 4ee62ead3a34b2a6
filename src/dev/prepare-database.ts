import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { AncrageError } from "../errors.ts";
import { connectClient } from "../store/database.ts";

/** Makes the database if the server lacks it. */
export async function createDatabase(serverUrl: string, name: string): Promise<void> {
  await withClient(serverUrl, async (client) => {
    const { rowCount } = await client.query(`select from pg_database where datname = $1`, [name]);
    if (rowCount === 0) await client.query(`create database ${pg.escapeIdentifier(name)}`);
  });
}

/**
 * Runs `<folder>/schema.sql`, in one transaction, on a database that has no table yet.
 *
 * @returns whether it ran
 * @throws AncrageError `ANCRAGE_COMMAND_FAILED` with the line that PostgreSQL refused
 */
export async function runSchemaFile(databaseUrl: string, folder: string): Promise<boolean> {
  const path = join(folder, "schema.sql");
  const sql = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (sql === undefined) return false;
  return withClient(databaseUrl, async (client) => {
    if (await hasUserTables(client)) return false;
    try {
      // Several statements in one query are one transaction: a mistake half way leaves an empty database, and the next start tries again.
      await client.query(sql);
    } catch (cause) {
      throw new AncrageError(
        "ANCRAGE_COMMAND_FAILED",
        `${path}${lineOf(sql, cause)}: ${cause instanceof Error ? cause.message : String(cause)}`,
        {
          hint: "Correct it and start again: nothing of it was kept. It is sent to PostgreSQL as it is, so commands of psql (\\i, \\copy) cannot be in it.",
          cause,
        },
      );
    }
    return true;
  });
}

/** Whether anyone but PostgreSQL and Ancrage has made a table; those of extensions do not count. */
async function hasUserTables(client: pg.ClientBase): Promise<boolean> {
  const { rowCount } = await client.query(`
    select from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'p') and nspname not in ('ancrage', 'information_schema') and nspname not like 'pg\\_%'
      and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype = 'e')
    limit 1`);
  return rowCount === 1;
}

/** `:12` where PostgreSQL said at which character it stumbled. */
function lineOf(sql: string, error: unknown): string {
  if (!(error instanceof pg.DatabaseError) || error.position === undefined) return "";
  return `:${sql.slice(0, Number(error.position) - 1).split("\n").length}`;
}

async function withClient<Result>(url: string, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = await connectClient({ connectionString: url, applicationName: "ancrage dev" });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
