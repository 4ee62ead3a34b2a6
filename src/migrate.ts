import { captureNames } from "./capture/wal/slot.ts";
import { readCapturePlan } from "./capture/check.ts";
import { buildCatalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { readOptions, requireOptions, type AncrageOptions } from "./options.ts";
import { readServerIdentity } from "./store/capture-state.ts";
import { connectClient } from "./store/database.ts";
import { migrateSchema } from "./store/migrate.ts";
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
    for (const name of await migrateSchema(client)) note(name);
    const { databaseOid } = await readServerIdentity(client);
    const plan = await readCapturePlan(client, catalogue, captureNames(databaseOid));
    for (const statement of plan) {
      // A slot takes the replication privilege, which the owner of the tables may not have.
      if (statement.includes("pg_create_logical_replication_slot") && options.replicationUrl !== undefined) {
        const replication = await connectClient({ connectionString: options.replicationUrl, applicationName: "ancrage migrate" });
        try {
          await replication.query(statement);
        } finally {
          await replication.end();
        }
      } else await client.query(statement);
      note(statement);
    }
    return { ran };
  } finally {
    await client.end();
  }
}
