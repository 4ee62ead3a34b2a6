import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type pg from "pg";
import { from as copyFrom } from "pg-copy-streams";

/** What a transaction owes to the subscriptions: how many messages of each event. */
export type Owed = Readonly<Record<string, number>>;

/** A transaction that was written, by whatever means. */
export interface Written {
  /** What was written, in rows and triggers. */
  readonly committed: number;
  readonly owed: Owed;
  /** Just before COMMIT was sent, on the clock of `performance.now()`: what is measured from here includes the commit itself. */
  readonly commitAtMs: number;
}

/** Some plain SQL in a session, each statement its own transaction. */
export async function writePlainRow(client: pg.Client, sql: string, owed: Owed, values: readonly unknown[] = []): Promise<Written> {
  const commitAtMs = performance.now();
  const { rowCount } = await client.query(sql, [...values]);
  return { committed: rowCount ?? 0, owed, commitAtMs };
}

/** An import as a batch job does it: one COPY, one transaction. */
export async function copyDeals(client: pg.Client, count: number): Promise<Written> {
  const rows = (function* () {
    for (let number = 1; number <= count; number++) yield `Import ${number}\tAppel d'offres\n`;
  })();
  await client.query("begin");
  await pipeline(Readable.from(rows), client.query(copyFrom("copy deal (label, type) from stdin")));
  const commitAtMs = performance.now();
  await client.query("commit");
  return { committed: count, owed: { NewOpportunity: count }, commitAtMs };
}

/** An application that says so itself, within its transaction. */
export async function triggerInTransaction(client: pg.Client): Promise<Written> {
  await client.query("begin");
  await client.query("insert into deal (label) values ('Imported by hand')");
  await client.query(`select ancrage.trigger('ImportFinished', 'deals-by-hand', '{"source": "demo", "rows": 1}')`);
  const commitAtMs = performance.now();
  await client.query("commit");
  return { committed: 2, owed: { NewOpportunity: 1, ImportFinished: 1 }, commitAtMs };
}

/** Rows and a trigger that nobody must ever hear of. */
export async function rollBack(client: pg.Client, label: string): Promise<void> {
  await client.query("begin");
  await client.query("insert into deal (label) select $1 from generate_series(1, 100)", [label]);
  await client.query(`select ancrage.trigger('ImportFinished', $1, '{"source": "nowhere", "rows": 100}')`, [label]);
  await client.query("rollback");
}
