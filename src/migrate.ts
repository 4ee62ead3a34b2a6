import type pg from "pg";
import { readCapturePlan, refuseCopy, refuseServer, refuseWalLevel } from "./capture/check.ts";
import { describeGap } from "./capture/loss.ts";
import { explainDenied } from "./capture/rights.ts";
import { certifyFooting, changedFooting, readFooting } from "./capture/footing.ts";
import { captureNames, sourceIdOf } from "./capture/wal/slot.ts";
import { buildCatalogue, type Catalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { planGrants } from "./grants.ts";
import { migrateOutbox, prepareLog, switchToLog, switchToOutbox } from "./migrate-outbox.ts";
import { readOptions, requireOptions, type AncrageOptions, type CheckedOptions } from "./options.ts";
import { parseLsn } from "./lsn.ts";
import { inQuietMoment } from "./quiet-moment.ts";
import { refuseElsewhere } from "./replication-place.ts";
import { readServerIdentity, readSlot, type ServerIdentity } from "./store/capture-state.ts";
import { readLastBatch } from "./store/batches.ts";
import { writeSwitchMark } from "./store/capture-switch.ts";
import { connectClient, endWithClient } from "./store/database.ts";
import { endGap, openGap, readJournalEnd, type Gap } from "./store/gaps.ts";
import { lockMigrations, migrateSchema } from "./store/migrate.ts";
import { readSettings, writeDatabaseOid, writeEnvironment } from "./store/settings.ts";
import { markUnplacedSubscriptions } from "./store/subscription-starts.ts";
import { readTables } from "./store/tables.ts";

export interface Migrated {
  /** What was done, in order: names of migrations, then the SQL that capture lacked. */
  readonly ran: readonly string[];
}

export interface MigrateHow {
  /** Called with each step when it is done. */
  readonly onStep?: ((step: string) => void) | undefined;
  /** A role that is to run `start`: it gets what that takes, on tables that are made later too. */
  readonly grantTo?: string | undefined;
}

/**
 * Does all the DDL, as the owner of the tracked tables: the schema `ancrage`, replica identities, publications, and last the slot.
 * Where nothing is to do it does nothing.
 *
 * @example
 * await migrate({ database: process.env.DATABASE_URL, events: "./hooks" });
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` before anything is changed; `ANCRAGE_NOT_MIGRATED` where the server itself lacks
 * something; `ANCRAGE_NOT_PERMITTED` with the SQL where the role does; `ANCRAGE_DATABASE_COPIED`
 */
export async function migrate(given: AncrageOptions, how: MigrateHow = {}): Promise<Migrated> {
  const options = readOptions(given);
  const { database } = requireOptions(options, "database");
  const client = await connectClient({ connectionString: database, applicationName: "ancrage migrate" });
  try {
    await endWithClient(client);
    const found = await discover(options.events ?? ".");
    const catalogue = buildCatalogue({ ...found, tables: await readTables(client), config: options });
    const ran: string[] = [];
    const note = (step: string): void => {
      ran.push(step);
      how.onStep?.(step);
    };
    const server = await readServerIdentity(client);
    refuseServer(server);
    if (options.capture === "wal") refuseWalLevel(server);
    // To the end of the session: of two that looked at once, both would make what capture lacks.
    await lockMigrations(client);
    const migrations = await explainDenied(client, () => migrateSchema(client), "create schema ancrage");
    // Only where the schema was made just now: a copy that is migrated under another name must be told from its first one.
    if (migrations.includes("journal")) await writeEnvironment(client, options.environment);
    for (const name of migrations) note(name);
    const settings = await readSettings(client);
    if (settings !== undefined) refuseCopy(settings, server, settings.environment);
    const migration = { client, catalogue, server, generation: settings?.generation ?? 0, options, note, later: how.onStep };
    await explainDenied(client, () => migrateEither(migration, settings?.capture ?? "wal"));
    await writeDatabaseOid(client, server.databaseOid);
    for (const statement of how.grantTo === undefined ? [] : planGrants(how.grantTo, catalogue)) {
      await explainDenied(client, () => client.query(statement), statement);
      note(statement);
    }
    // Each time: a migration that ended between the slot and this would leave them without a place for ever.
    await markUnplacedSubscriptions(client);
    return { ran };
  } finally {
    await client.end();
  }
}

interface CaptureMigration {
  readonly client: pg.Client;
  readonly catalogue: Catalogue;
  readonly server: ServerIdentity;
  readonly generation: number;
  readonly options: Pick<CheckedOptions, "replicationUrl" | "failover" | "capture">;
  readonly note: (step: string) => void;
  readonly later: ((step: string) => void) | undefined;
}

/** @param now where changes are written so far */
async function migrateEither(migration: CaptureMigration, now: "wal" | "outbox"): Promise<void> {
  const { client, options, note } = migration;
  const run = async (leftOver: string | undefined): Promise<void> => {
    if (leftOver === undefined) return;
    await runAsReplication(client, leftOver, options.replicationUrl);
    note(leftOver);
  };
  if (options.capture === "outbox") return run(await (now === "outbox" ? migrateOutbox(migration) : switchToOutbox(migration)));
  if (now === "wal") return migrateCapture(migration, true);
  await run(await prepareLog(migration));
  // What the new slot has not seen is in the outbox.
  await migrateCapture(migration, false);
  await switchToLog(migration);
}

async function migrateCapture(
  { client, catalogue, server, generation, options, note, later }: CaptureMigration,
  isGapNoted: boolean,
): Promise<void> {
  const names = captureNames(server.databaseOid);
  // What somebody else changed since is for the next start to find: only what we change ourselves is certified, and what a new slot
  // begins with.
  const question = { reads: "log", catalogue, names } as const;
  const certified = (await readSettings(client))?.footings.log;
  const isSound = changedFooting(certified ?? {}, await readFooting(client, question)).length === 0;
  const plan = await readCapturePlan(client, catalogue, names, options.failover);
  const isRead = ((await readSlot(client, names.slot))?.activePid ?? null) !== null;
  if (isRead && plan.some(({ isNeeded, makesSlot }) => isNeeded && !makesSlot)) {
    later?.("a process reads the log with the definitions that it began with: restart it. What is new here makes events from then on");
  }
  for (const { sql, takesOut, makesSlot } of plan) {
    // A process that runs the definitions of before may still read it, and would take its leaving for an alteration.
    if (takesOut === true && isRead) {
      later?.(`left for a time when no process reads the log: ${sql}`);
      continue;
    }
    await (makesSlot
      ? runAsReplication(client, sql, options.replicationUrl)
      : explainDenied(client, () => inQuietMoment(client, () => client.query(sql)), sql));
    note(sql);
    if (isSound || makesSlot) await certifyFooting(client, question);
    if (!makesSlot || !isGapNoted) continue;
    const gap = await noteNewSlot(client, sourceIdOf({ ...server, generation }), names.slot);
    if (gap !== undefined) note(`GAP: ${describeGap(gap)}`);
  }
}

/**
 * A slot takes the replication privilege, which the owner of the tables may not have.
 *
 * @throws AncrageError `ANCRAGE_OPTION_INVALID` where the two are not in one database
 */
export async function runAsReplication(owner: pg.Client, statement: string, replicationUrl: string | undefined): Promise<void> {
  if (replicationUrl === undefined) {
    await explainDenied(owner, () => owner.query(statement), statement);
    return;
  }
  const replication = await connectClient({ connectionString: replicationUrl, applicationName: "ancrage migrate" });
  try {
    await endWithClient(replication);
    await refuseElsewhere(owner, replication);
    await explainDenied(replication, () => replication.query(statement), statement);
  } finally {
    await replication.end();
  }
}

/**
 * A new slot under a journal that has begun: what lies between the two was not seen. Said here, and by the status until it is dealt with.
 *
 * @returns undefined where nothing was ever journaled
 */
export async function noteNewSlot(client: pg.Client, sourceId: string, slotName: string): Promise<Gap | undefined> {
  const last = await readJournalEnd(client, sourceId);
  const slot = await readSlot(client, slotName);
  if (last === undefined || typeof slot?.confirmedLsn !== "string") return undefined;
  // After a switch to the log that begins with the mark of it: one that stood there was not read, and is lost with the slot of before.
  const isMarkAwaited = (await readSettings(client))?.capture === "wal" && (await readLastBatch(client, sourceId))?.cursor !== undefined;
  if (isMarkAwaited) await explainDenied(client, () => writeSwitchMark(client, "wal"));
  await openGap(client, sourceId, { fromLsn: last.lsn, reason: "slot-recreated" });
  return endGap(client, sourceId, parseLsn(slot.confirmedLsn));
}
