import pg from "pg";
import { answerGraceMs, destroyClient, endWithClient, inTransaction, type Queryable } from "./database.ts";
import { keyOf, quoteTable, type TableInfo } from "./tables.ts";

/** Records that were there before: found in one snapshot, kept by their keys until their turn comes. */

const fetchCount = 5_000;
/** However large the table is, its snapshot must not hold vacuum back for longer. */
const readTimeoutMs = 30 * 60_000;
/** Of the pool's own, which is for short ones. */
const limits = { query_timeout: readTimeoutMs + answerGraceMs };

interface KeysRead {
  readonly table: TableInfo;
  readonly where: string | undefined;
  /** Takes some thousands at a time; the snapshot is held no longer than it takes them. */
  readonly onKeys: (keys: readonly string[]) => Promise<void>;
  /** Breaks the session off: a process that ends does not wait for a statement that may take half an hour. */
  readonly stopping: AbortSignal;
}

/**
 * The keys of all records that `where` (SQL) holds for, as one snapshot has them, in the order of the primary key.
 *
 * By a cursor in a transaction that reads only: a list of pages with a snapshot each would find a record that moves twice, or never.
 *
 * @throws what PostgreSQL answers: 42… where `where` is no condition of this table, 57014 where it took half an hour; at once where it
 * is to stop
 */
export async function readKeys(pool: pg.Pool, { table, where, onKeys, stopping }: KeysRead): Promise<void> {
  stopping.throwIfAborted();
  const client = await pool.connect();
  const breakOff = (): void => destroyClient(client);
  stopping.addEventListener("abort", breakOff);
  try {
    await endWithClient(client);
    await inTransaction(client, async () => {
      await client.query("set transaction isolation level repeatable read, read only");
      await client.query(`set local statement_timeout = ${readTimeoutMs}`);
      // As a prepared statement, which is one statement: `where` cannot bring another.
      await client.query({
        ...limits,
        name: "records",
        text: `declare records no scroll cursor for ${keysSql(table, where)} order by ${keyColumns(table)}`,
      });
      const makeKey = keyOf(table);
      for (;;) {
        const { rows } = await client.query<(string | null)[]>({
          ...limits,
          text: `fetch ${fetchCount} from records`,
          rowMode: "array",
          types: rawTexts,
        });
        if (rows.length === 0) return;
        stopping.throwIfAborted();
        await onKeys(rows.map((texts) => makeKey((column) => texts[table.keyColumns.indexOf(column)] ?? null)));
      }
    });
    // Its prepared statement is for this one.
    client.release(true);
  } catch (error) {
    client.release(true);
    throw error;
  } finally {
    stopping.removeEventListener("abort", breakOff);
  }
}

/** How many records `where` holds for, counted no further than `limit`. */
export async function countRecords(db: Queryable, table: TableInfo, where: string | undefined, limit: number): Promise<number> {
  const { rows } = await db.query<{ count: number }>(
    // A parameter, though it is a number: with one, PostgreSQL takes a single statement, and `where` cannot bring another.
    `select count(*)::integer as count from (${keysSql(table, where)} limit $1) as records`,
    [limit],
  );
  return rows[0]?.count ?? 0;
}

/** @throws what PostgreSQL says of a `where` that is no condition of this table, SQLSTATE 42… or 22… */
export async function checkWhere(db: Queryable, table: TableInfo, where: string): Promise<void> {
  await db.query(`explain select from (${keysSql(table, where)} limit $1) as records`, [1]);
}

const keyColumns = (table: TableInfo): string => table.keyColumns.map((name) => `t.${pg.escapeIdentifier(name)}`).join(", ");

/** On lines of its own: a comment at its end must not take what follows with it. */
function keysSql(table: TableInfo, where: string | undefined): string {
  return `select ${keyColumns(table)} from ${quoteTable(table)} t${where === undefined ? "" : ` where (\n${where}\n)`}`;
}

/** A key is made of PostgreSQL's own texts. */
const rawTexts = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;

/** Keeps keys, numbered from `from` on. */
export async function insertRecords(db: Queryable, jobId: string, from: number, keys: readonly string[]): Promise<void> {
  await db.query(
    `insert into ancrage.job_records (job_id, number, key)
     select $1, $2::integer + place::integer - 1, key from unnest($3::text[]) with ordinality as found (key, place)`,
    [jobId, from, keys],
  );
}

/** The next ones after a number. */
export async function readRecords(
  db: Queryable,
  jobId: string,
  page: { readonly after: number; readonly limit: number },
): Promise<readonly { readonly number: number; readonly key: string }[]> {
  const { rows } = await db.query<{ number: number; key: string }>(
    `select number, key from ancrage.job_records where job_id = $1 and number > $2 order by number limit $3`,
    [jobId, page.after, page.limit],
  );
  return rows;
}

export async function deleteRecords(db: Queryable, jobId: string): Promise<void> {
  await db.query(`delete from ancrage.job_records where job_id = $1`, [jobId]);
}

/** Forgets the records of jobs that have ended. */
export async function deleteLeftRecords(db: Queryable): Promise<void> {
  await db.query(
    `delete from ancrage.job_records r where not exists (
       select from ancrage.jobs j where j.id = r.job_id and j.state in ('waiting', 'running'))`,
  );
}
