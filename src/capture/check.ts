import type pg from "pg";
import { AncrageError } from "../errors.ts";
import type { Catalogue } from "../event/catalogue.ts";
import {
  readParts,
  readPublications,
  readServerIdentity,
  readSettings,
  readSlot,
  readWalLevel,
  type SettingsRow,
} from "../store/capture-state.ts";
import { pendingMigrations } from "../store/migrate.ts";
import { captureNames, planCapture, type CaptureNames } from "./wal/slot.ts";
import type { Queryable } from "../store/database.ts";

/** The least version whose logical decoding skips empty transactions and publishes messages as we read them. */
const leastVersion = 150_000;

/** What capture needs that the database does not have yet: the statements that make it, in their order. */
export async function readCapturePlan(db: Queryable, catalogue: Catalogue, names: CaptureNames): Promise<readonly string[]> {
  const walLevel = await readWalLevel(db);
  if (walLevel !== "logical") {
    throw new AncrageError("ANCRAGE_NOT_MIGRATED", `wal_level is "${walLevel}", expected "logical": changes cannot be read from the log.`, {
      hint: `Run "alter system set wal_level = 'logical'" and restart PostgreSQL.`,
    });
  }
  await refuseGenerated(db, catalogue);
  const publications = await readPublications(db, [names.publication, names.insertPublication]);
  const oids = [...catalogue.tables.values()].map(({ table }) => table.oid);
  return planCapture(catalogue, {
    names,
    publications: new Map(publications.map((publication) => [publication.name, publication])),
    hasSlot: (await readSlot(db, names.slot)) !== undefined,
    parts: Map.groupBy(await readParts(db, oids), (part) => part.rootOid),
  });
}

/**
 * From PostgreSQL 18 on an identity must not hold columns that are not published, and generated ones are not: under `replica identity
 * full` the server would refuse the application's own updates and deletes. Nothing that we set may do that.
 */
async function refuseGenerated(db: Queryable, catalogue: Catalogue): Promise<void> {
  const names = [...catalogue.tables.values()]
    .filter(({ table, needsOldValues }) => needsOldValues && table.columns.some(({ isGenerated }) => isGenerated))
    .map(({ table }) => table.name);
  if (names.length === 0 || (await readServerIdentity(db)).version < 180_000) return;
  throw new AncrageError(
    "ANCRAGE_NOT_MIGRATED",
    `${names.join(", ")}: a table with generated columns, of which old values are read. On PostgreSQL 18 the replica identity that this takes would make the server refuse the application's own updates.`,
    { hint: 'Set "oldValues: false" in its events, and use no tracking handler, "enter" or "leave" for it.' },
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
  if (plan.length > 0) throw notMigrated(`the database lacks:\n${plan.map((statement) => `  ${statement};`).join("\n")}\n`);
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
