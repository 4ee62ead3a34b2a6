import type pg from "pg";

/** Says which environment a database belongs to. A process that runs as another one neither captures nor sends from it. */
export async function writeEnvironment(db: Pick<pg.ClientBase, "query">, environment: string): Promise<void> {
  await db.query(`update ancrage.settings set environment = $1`, [environment]);
}
