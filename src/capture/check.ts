import type pg from "pg";
import { AncrageError } from "../errors.ts";
import type { Catalogue } from "../event/catalogue.ts";
import {
  readParts,
  readPublications,
  readServerIdentity,
  readSettings,
  readSlot,
  readVirtualColumns,
  readWalLevel,
  type SettingsRow,
} from "../store/capture-state.ts";
import { pendingMigrations } from "../store/migrate.ts";
import { captureNames, planCapture, type CaptureNames, type PlanStep } from "./wal/slot.ts";
import type { Queryable } from "../store/database.ts";

/** The least version whose logical decoding skips empty transactions and publishes messages as we read them. */
const leastVersion = 150_000;

/** What capture needs that the database does not have yet: the statements that make it, in their order. */
export async function readCapturePlan(db: Queryable, catalogue: Catalogue, names: CaptureNames): Promise<readonly PlanStep[]> {
  const walLevel = await readWalLevel(db);
  if (walLevel !== "logical") {
    throw new AncrageError("ANCRAGE_NOT_MIGRATED", `wal_level is "${walLevel}", expected "logical": changes cannot be read from the log.`, {
      hint: `Run "alter system set wal_level = 'logical'" and restart PostgreSQL.`,
    });
  }
  const { version } = await readServerIdentity(db);
  if (version >= 180_000) await refuseVirtual(db, catalogue);
  const publications = await readPublications(db, [names.publication, names.insertPublication]);
  const oids = [...catalogue.tables.values()].map(({ table }) => table.oid);
  return planCapture(catalogue, {
    names,
    publications: new Map(publications.map((publication) => [publication.name, publication])),
    hasSlot: (await readSlot(db, names.slot)) !== undefined,
    version,
    parts: Map.groupBy(await readParts(db, oids), (part) => part.rootOid),
  });
}

/**
 * From PostgreSQL 18 on an identity must not hold columns that are not published, and virtual generated ones cannot be: under
 * `replica identity full` the server would refuse the application's own updates and deletes. Nothing that we set may do that.
 */
async function refuseVirtual(db: Queryable, catalogue: Catalogue): Promise<void> {
  const tables = [...catalogue.tables.values()].filter(({ needsOldValues }) => needsOldValues).map(({ table }) => table);
  const columns = await readVirtualColumns(
    db,
    tables.map(({ oid }) => oid),
  );
  if (columns.size === 0) return;
  const refused = tables.filter(({ oid }) => columns.has(oid));
  const names = refused.map(({ name, oid }) => `${name} (${columns.get(oid)?.join(", ") ?? ""})`).join(", ");
  throw new AncrageError(
    "ANCRAGE_NOT_MIGRATED",
    `${names}: a virtual generated column in a table of which old values are read. No log carries such a column, and with the replica identity that old values take PostgreSQL would refuse the application's own updates.`,
    {
      hint: 'Make the column "stored", or set "oldValues: false" in the events of the table and use no tracking handler, "enter" or "leave" for it.',
    },
  );
}

export interface CheckedDatabase {
  readonly names: CaptureNames;
  readonly settings: SettingsRow;
  readonly systemIdentifier: string;
  readonly databaseOid: number;
  /** Up to where PostgreSQL has forgotten what it sent: what we confirmed. */
  readonly confirmedLsn: string;
  readonly flushLsn: string;
}

/**
 * What must hold before anything is captured or sent.
 *
 * @throws AncrageError `ANCRAGE_NOT_MIGRATED` with the SQL that is missing, `ANCRAGE_SLOT_LOST`, `ANCRAGE_DATABASE_COPIED`
 */
export async function checkDatabase(
  db: Queryable,
  { catalogue, environment }: { readonly catalogue: Catalogue; readonly environment: string },
): Promise<CheckedDatabase> {
  const { databaseOid, systemIdentifier, flushLsn, version } = await readServerIdentity(db);
  if (version < leastVersion) {
    throw new AncrageError("ANCRAGE_NOT_MIGRATED", `PostgreSQL ${Math.floor(version / 10_000)} is too old: expected 15 or later.`);
  }
  const pending = await pendingMigrations(db as pg.ClientBase);
  if (pending.length > 0) {
    const list = pending.map(({ number, name }) => `${String(number).padStart(4, "0")}-${name}`).join(", ");
    throw notMigrated(`the schema "ancrage" lacks the migrations ${list}.`);
  }
  const settings = await readSettings(db);
  if (settings === undefined) throw notMigrated('the table "ancrage.settings" has no row.');
  if (settings.systemIdentifier !== systemIdentifier) {
    throw new AncrageError(
      "ANCRAGE_DATABASE_COPIED",
      `this database is a copy: it was migrated on the server ${settings.systemIdentifier}, and this is ${systemIdentifier}. Nothing is captured or sent from it.`,
      {
        hint: `If this copy is to send from now on (and the first one is not), run: update ancrage.settings set system_identifier = '${systemIdentifier}'`,
      },
    );
  }
  if (settings.environment !== environment) {
    throw new AncrageError(
      "ANCRAGE_DATABASE_COPIED",
      `this database belongs to the environment "${settings.environment}", and this process runs as "${environment}". Nothing is captured or sent from it.`,
      {
        hint: `Start it with --environment ${settings.environment}. If this is a copy that is to send under its own name, run: update ancrage.settings set environment = '${environment}'`,
      },
    );
  }
  const names = captureNames(databaseOid);
  const plan = await readCapturePlan(db, catalogue, names);
  const needed = plan.filter(({ isNeeded }) => isNeeded);
  if (needed.length > 0) throw notMigrated(`the database lacks:\n${needed.map(({ sql }) => `  ${sql};`).join("\n")}\n`);
  const slot = await readSlot(db, names.slot);
  if (slot?.confirmedLsn === undefined || slot.confirmedLsn === null || slot.walStatus === "lost") {
    throw new AncrageError(
      "ANCRAGE_SLOT_LOST",
      `replication slot "${names.slot}" is ${slot?.walStatus ?? "gone"}: the log after the last journaled position is no longer there.`,
      {
        hint: 'Changes since then were not seen. Raise max_slot_wal_keep_size, drop the slot, and run "ancrage migrate".',
      },
    );
  }
  return { names, settings, systemIdentifier, databaseOid, confirmedLsn: slot.confirmedLsn, flushLsn };
}

function notMigrated(what: string): AncrageError {
  return new AncrageError("ANCRAGE_NOT_MIGRATED", what, { hint: 'Run "ancrage migrate <folder>" as the owner of the tracked tables.' });
}
