import type pg from "pg";
import { AncrageError } from "../errors.ts";
import type { Catalogue } from "../event/catalogue.ts";
import {
  readParts,
  readPublications,
  readServerIdentity,
  readSlot,
  readVirtualColumns,
  type ServerIdentity,
  type SlotRow,
} from "../store/capture-state.ts";
import { readLastBatch } from "../store/batches.ts";
import type { Queryable } from "../store/database.ts";
import { readEndlessGap } from "../store/gaps.ts";
import { pendingMigrations } from "../store/migrate.ts";
import { readSettings, type SettingsRow } from "../store/settings.ts";
import { readOutboxFunctions, readOutboxTriggers } from "../store/outbox-triggers.ts";
import { planOutbox } from "./outbox/install.ts";
import { explainDenied } from "./rights.ts";
import { captureNames, planCapture, sourceIdOf, type CaptureNames, type PlanStep } from "./wal/slot.ts";

/** The least version whose logical decoding skips empty transactions and publishes messages as we read them. */
const leastVersion = 150_000;

/** What capture needs that the database does not have yet: the statements that make it, in their order. */
export async function readCapturePlan(
  db: Queryable,
  catalogue: Catalogue,
  names: CaptureNames,
  isFailover = false,
): Promise<readonly PlanStep[]> {
  const { version } = await readServerIdentity(db);
  if (version >= 180_000) await refuseVirtual(db, catalogue);
  const publications = await readPublications(db, [names.publication, names.insertPublication]);
  const oids = [...catalogue.tables.values()].map(({ table }) => table.oid);
  return planCapture(catalogue, {
    names,
    publications: new Map(publications.map((publication) => [publication.name, publication])),
    hasSlot: (await readSlot(db, names.slot)) !== undefined,
    isFailover: isFailover && version >= 170_000,
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
  readonly server: ServerIdentity;
  readonly sourceId: string;
  /** Undefined where it is gone under a journal that has begun: that is a gap, and no lack that `migrate` may fill in silence. */
  readonly slot: SlotRow | undefined;
  /** What was taken away while capture ran, and is still not there; else empty. */
  readonly lacks: readonly PlanStep[];
  /** Where changes are read now; `until-switch`: what was written there before `migrate` switched is not all in the journal yet. */
  readonly reads: "log" | "log-until-switch" | "outbox" | "outbox-until-switch";
}

export interface ExpectedDatabase {
  readonly catalogue: Catalogue;
  readonly environment: string;
  /** Default: the log. */
  readonly capture?: "wal" | "outbox";
}

/**
 * What must hold before anything is captured or sent.
 *
 * @throws AncrageError `ANCRAGE_NOT_MIGRATED` with the SQL that is missing, `ANCRAGE_DATABASE_COPIED`, `ANCRAGE_NOT_PERMITTED`
 */
export function checkDatabase(db: Queryable, expected: ExpectedDatabase): Promise<CheckedDatabase> {
  return explainDenied(db, () => check(db, expected));
}

async function check(db: Queryable, { catalogue, environment, capture = "wal" }: ExpectedDatabase): Promise<CheckedDatabase> {
  const server = await readServerIdentity(db);
  refuseServer(server);
  const pending = await pendingMigrations(db as pg.ClientBase);
  if (pending.length > 0) {
    const list = pending.map(({ number, name }) => `${String(number).padStart(4, "0")}-${name}`).join(", ");
    throw notMigrated(`the schema "ancrage" lacks the migrations ${list}.`);
  }
  const settings = await readSettings(db);
  if (settings === undefined) throw notMigrated('the table "ancrage.settings" has no row.');
  refuseCopy(settings, server, environment);
  if (settings.capture !== capture) {
    throw notMigrated(`this database writes its changes to ${placeOf(settings.capture)}, and this process is to read ${placeOf(capture)}.`);
  }
  const names = captureNames(server.databaseOid);
  const sourceId = sourceIdOf({ ...server, generation: settings.generation });
  const last = await readLastBatch(db, sourceId);
  if (capture === "outbox") {
    const lacks = (await readOutboxPlan(db, catalogue)).filter(({ isNeeded }) => isNeeded);
    if (lacks.length > 0 && !(await wasAltered(db, sourceId)))
      throw notMigrated(`the database lacks triggers of the outbox:\n${lacks.map(({ sql }) => `  ${sql};`).join("\n")}\n`);
    const slot = await readSlot(db, names.slot);
    const reads = last?.cursor === undefined && slot !== undefined ? "log-until-switch" : "outbox";
    return { names, settings, server, sourceId, slot, lacks, reads };
  }
  refuseWalLevel(server);
  const hasJournal = last !== undefined;
  const plan = (await readCapturePlan(db, catalogue, names)).filter(({ isNeeded }) => isNeeded);
  const lacks = plan.filter(({ makesSlot, partition }) => partition === undefined && !(makesSlot && hasJournal));
  if (lacks.length > 0 && !(await wasAltered(db, sourceId))) {
    throw notMigrated(`the database lacks:\n${lacks.map(({ sql }) => `  ${sql};`).join("\n")}\n`);
  }
  return {
    names,
    settings,
    server,
    sourceId,
    slot: await readSlot(db, names.slot),
    lacks,
    reads: last?.cursor === undefined ? "log" : "outbox-until-switch",
  };
}

/** It is known, and noted as a gap: then delivery and the API go on without capture. */
const wasAltered = async (db: Queryable, sourceId: string): Promise<boolean> =>
  (await readEndlessGap(db, sourceId))?.reason === "capture-altered";

const placeOf = (capture: "wal" | "outbox"): string => (capture === "wal" ? 'the log (capture: "wal")' : 'the outbox (capture: "outbox")');

/** What the outbox lacks: the statements that make it, in their order. */
export async function readOutboxPlan(db: Queryable, catalogue: Catalogue): Promise<readonly PlanStep[]> {
  return planOutbox(catalogue, { functions: await readOutboxFunctions(db), triggers: await readOutboxTriggers(db) });
}

/** @throws AncrageError `ANCRAGE_NOT_MIGRATED` where no setting of ours can make it work */
export function refuseServer({ version, isReplica, encoding, databaseName }: ServerIdentity): void {
  if (version < leastVersion) {
    throw new AncrageError("ANCRAGE_NOT_MIGRATED", `PostgreSQL ${Math.floor(version / 10_000)} is too old: expected 15 or later.`);
  }
  // One row whose text is no UTF-8 would end the session that reads the log (SQLSTATE 22021), and again at the same place after each start.
  if (encoding === "SQL_ASCII") {
    throw new AncrageError("ANCRAGE_NOT_MIGRATED", `the encoding of the database "${databaseName}" is SQL_ASCII, ${asciiExpected}`, {
      hint: asciiWayOut,
    });
  }
  if (!isReplica) return;
  throw new AncrageError("ANCRAGE_NOT_MIGRATED", "this server is a replica, which takes no writes: expected the primary.", {
    hint: "Let DATABASE_URL name the primary, or a host name that follows it.",
  });
}

export const asciiExpected =
  "expected one that says what its texts are (UTF8, LATIN1, …): PostgreSQL keeps any bytes there, and the first row whose text is no UTF-8 would stop capture for good.";
export const asciiWayOut =
  "Restore a dump of it into a database with encoding 'UTF8' (create database … encoding 'UTF8' template template0); what pg_restore refuses there is what could not be sent.";

/**
 * A copy must not send what the first one sends: it is told by the server, by the database on it, or by the environment.
 *
 * @throws AncrageError `ANCRAGE_DATABASE_COPIED`
 */
export function refuseCopy(settings: SettingsRow, server: ServerIdentity, environment: string): void {
  const { systemIdentifier, databaseOid } = settings;
  const hint = (first: string): string =>
    `${first}If this copy is to send from now on, run "ancrage adopt FOLDER": it says what it found, and makes this database one of its own.`;
  if (systemIdentifier !== server.systemIdentifier) {
    throw new AncrageError(
      "ANCRAGE_DATABASE_COPIED",
      `this database is a copy: it was migrated on the server ${systemIdentifier}, and this is ${server.systemIdentifier} (a restored dump, or a server that was upgraded by pg_upgrade). Nothing is captured or sent from it.`,
      { hint: hint("") },
    );
  }
  if (databaseOid !== null && databaseOid !== server.databaseOid) {
    throw new AncrageError(
      "ANCRAGE_DATABASE_COPIED",
      `this database is a copy: it was migrated as the database with the oid ${databaseOid} of this server, and has ${server.databaseOid}. Nothing is captured or sent from it.`,
      { hint: hint("") },
    );
  }
  if (settings.environment !== environment) {
    throw new AncrageError(
      "ANCRAGE_DATABASE_COPIED",
      `this database belongs to the environment "${settings.environment}", and this process runs as "${environment}". Nothing is captured or sent from it.`,
      { hint: hint(`Start it with --environment ${settings.environment} if it is that one. `) },
    );
  }
}

/** @throws AncrageError `ANCRAGE_NOT_MIGRATED` */
export function refuseWalLevel({ walLevel }: Pick<ServerIdentity, "walLevel">): void {
  if (walLevel === "logical") return;
  throw new AncrageError("ANCRAGE_NOT_MIGRATED", `wal_level is "${walLevel}", expected "logical": changes cannot be read from the log.`, {
    hint: `Run "alter system set wal_level = 'logical'" as a superuser and restart PostgreSQL; managed servers have a switch of their own (docs/guides/databases.md).`,
  });
}

function notMigrated(what: string): AncrageError {
  return new AncrageError("ANCRAGE_NOT_MIGRATED", what, { hint: 'Run "ancrage migrate <folder>" as the owner of the tracked tables.' });
}
