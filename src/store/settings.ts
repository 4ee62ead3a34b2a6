import type { Footing } from "./capture-state.ts";
import type { Queryable } from "./database.ts";

/** A switch from one to the other leaves what was written of the other. */
export type Footings = Readonly<Partial<Record<"log" | "outbox", Footing>>>;

export interface SettingsRow {
  readonly systemIdentifier: string;
  /** Null until the database was migrated as a whole. */
  readonly databaseOid: number | null;
  readonly timeline: number | null;
  readonly environment: string;
  readonly generation: number;
  /** What capture stood on when it was last seen to be right, by where changes are read. */
  readonly footings: Footings;
  /** Where changes are written. */
  readonly capture: "wal" | "outbox";
  readonly triggerKey: Buffer;
}

export async function readSettings(db: Queryable): Promise<SettingsRow | undefined> {
  const { rows } = await db.query<SettingsRow>(
    `select system_identifier as "systemIdentifier", database_oid as "databaseOid", timeline, environment, generation, footings, capture,
       trigger_key as "triggerKey"
     from ancrage.settings`,
  );
  return rows[0];
}

/** Says which environment a database belongs to. A process that runs as another one neither captures nor sends from it. */
export async function writeEnvironment(db: Queryable, environment: string): Promise<void> {
  await db.query(`update ancrage.settings set environment = $1`, [environment]);
}

/** Which database of which server this is; once, by the first migration that came to its end. */
export async function writeDatabaseOid(db: Queryable, oid: number): Promise<void> {
  await db.query(`update ancrage.settings set database_oid = $1 where database_oid is null`, [oid]);
}

export async function writeTimeline(db: Queryable, timeline: number): Promise<void> {
  await db.query(`update ancrage.settings set timeline = $1 where timeline is distinct from $1`, [timeline]);
}

/** What capture stands on, when it was seen to be right. */
export async function writeFooting(db: Queryable, reads: keyof Footings, footing: Footing): Promise<void> {
  await db.query(
    `update ancrage.settings set footings = footings || jsonb_build_object($1::text, $2::jsonb)
     where footings -> $1 is distinct from $2::jsonb`,
    [reads, JSON.stringify(footing)],
  );
}

/** The same, where what is written down is still what it was. */
export async function replaceFooting(
  db: Queryable,
  reads: keyof Footings,
  { before, now }: { readonly before: Footing | undefined; readonly now: Footing },
): Promise<void> {
  await db.query(
    `update ancrage.settings set footings = footings || jsonb_build_object($1::text, $2::jsonb)
     where footings -> $1 is not distinct from $3::jsonb and footings -> $1 is distinct from $2::jsonb`,
    [reads, JSON.stringify(now), before === undefined ? null : JSON.stringify(before)],
  );
}

/** Makes a copy a database of its own. Its positions begin anew: those of before were another server's, or another history's. */
export async function adoptDatabase(
  db: Queryable,
  as: { readonly systemIdentifier: string; readonly databaseOid: number; readonly timeline: number; readonly environment: string },
): Promise<void> {
  await db.query(
    `update ancrage.settings set system_identifier = $1, database_oid = $2, timeline = $3, environment = $4,
       generation = generation + 1, footings = '{}'`,
    [as.systemIdentifier, as.databaseOid, as.timeline, as.environment],
  );
}
