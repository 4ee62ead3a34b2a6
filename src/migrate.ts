import type pg from "pg";
import { captureNames, sourceIdOf } from "./capture/wal/slot.ts";
import { readCapturePlan } from "./capture/check.ts";
import { buildCatalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { readOptions, requireOptions, type AncrageOptions } from "./options.ts";
import { formatLsn, parseLsn } from "./lsn.ts";
import { readLastBatch } from "./store/batches.ts";
import { readServerIdentity, readSlot } from "./store/capture-state.ts";
import { connectClient } from "./store/database.ts";
import { insertGap } from "./store/gaps.ts";
import { migrateSchema } from "./store/migrate.ts";
import { writeEnvironment } from "./store/settings.ts";
import { markUnplacedSubscriptions } from "./store/subscription-starts.ts";
import { readTables } from "./store/tables.ts";

export interface Migrated {
  /** What was done, in order: names of migrations, then the SQL that capture lacked. */
  readonly ran: readonly string[];
}

/**
 * Does all the DDL, as the owner of the tracked tables: the schema `ancrage`, replica identities, publications, and last the slot.
 * Where nothing is to do it does nothing.
 *
 * @example
 * await migrate({ database: process.env.DATABASE_URL, events: "./hooks" });
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` before anything is changed; `ANCRAGE_NOT_MIGRATED` where the server itself lacks
 * something
 */
export async function migrate(given: AncrageOptions, onStep: (step: string) => void = () => undefined): Promise<Migrated> {
  const options = readOptions(given);
  const { database } = requireOptions(options, "database");
  const client = await connectClient({ connectionString: database, applicationName: "ancrage migrate" });
  try {
    const found = await discover(options.events ?? ".");
    const catalogue = buildCatalogue({ ...found, tables: await readTables(client), config: options });
    const ran: string[] = [];
    const note = (step: string): void => {
      ran.push(step);
      onStep(step);
    };
    const migrations = await migrateSchema(client);
    // Only where the schema was made just now: a copy that is migrated under another name must be told from its first one.
    if (migrations.includes("journal")) await writeEnvironment(client, options.environment);
    for (const name of migrations) note(name);
    const { databaseOid, systemIdentifier } = await readServerIdentity(client);
    const plan = await readCapturePlan(client, catalogue, captureNames(databaseOid));
    for (const { sql: statement } of plan) {
      const makesSlot = statement.includes("pg_create_logical_replication_slot");
      await (makesSlot ? runAsReplication(client, statement, options.replicationUrl) : client.query(statement));
      note(statement);
      if (!makesSlot) continue;
      const gap = await noteGap(client, sourceIdOf(systemIdentifier, databaseOid), captureNames(databaseOid).slot);
      if (gap !== undefined) note(gap);
    }
    // Each time: a migration that ended between the slot and this would leave them without a place for ever.
    await markUnplacedSubscriptions(client);
    return { ran };
  } finally {
    await client.end();
  }
}

/** A slot takes the replication privilege, which the owner of the tables may not have. */
async function runAsReplication(owner: pg.Client, statement: string, replicationUrl: string | undefined): Promise<void> {
  if (replicationUrl === undefined) {
    await owner.query(statement);
    return;
  }
  const replication = await connectClient({ connectionString: replicationUrl, applicationName: "ancrage migrate" });
  try {
    await replication.query(statement);
  } finally {
    await replication.end();
  }
}

/** A new slot under a journal that has begun: what lies between the two was not seen. Said here, and by the status until it is dealt with. */
async function noteGap(client: pg.Client, sourceId: string, slotName: string): Promise<string | undefined> {
  const last = await readLastBatch(client, sourceId);
  const slot = await readSlot(client, slotName);
  if (last === undefined || typeof slot?.confirmedLsn !== "string") return undefined;
  const toLsn = parseLsn(slot.confirmedLsn);
  if (toLsn <= last.endLsn) return undefined;
  await insertGap(client, sourceId, { fromLsn: last.endLsn, toLsn, reason: "slot-recreated" });
  return `GAP: changes between ${formatLsn(last.endLsn)} and ${slot.confirmedLsn} were not seen, and make no events`;
}
