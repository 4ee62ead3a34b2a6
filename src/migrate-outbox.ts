import pg from "pg";
import { readOutboxPlan } from "./capture/check.ts";
import { planOutboxRemoval } from "./capture/outbox/install.ts";
import { certifyFooting, changedFooting, readFooting, type FootingQuestion } from "./capture/footing.ts";
import { describeGap, type Loss } from "./capture/loss.ts";
import { captureNames, sourceIdOf } from "./capture/wal/slot.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import { parseLsn } from "./lsn.ts";
import { inQuietMoment } from "./quiet-moment.ts";
import { readResume } from "./read-resume.ts";
import { readLastBatch, type BatchRow } from "./store/batches.ts";
import { readServerIdentity, readSlot, type ServerIdentity, type SlotRow } from "./store/capture-state.ts";
import { emptyOutbox, isOutboxEmpty, lockForSwitch, writeCapture, writeSwitchMark } from "./store/capture-switch.ts";
import { endGap, openGap, readEndlessGap, readGapFrom } from "./store/gaps.ts";
import { inTransaction } from "./store/database.ts";
import { readOutboxFunctions, readOutboxTriggers } from "./store/outbox-triggers.ts";
import { readSettings } from "./store/settings.ts";
import { quoteTable } from "./store/tables.ts";

export interface OutboxMigration {
  readonly client: pg.Client;
  readonly catalogue: Catalogue;
  readonly server: ServerIdentity;
  readonly generation: number;
  readonly note: (step: string) => void;
}

/**
 * Makes the triggers that are missing.
 *
 * @returns what drops the slot, where the log was not read to the switch and cannot be any more
 */
export async function migrateOutbox(migration: OutboxMigration): Promise<string | undefined> {
  await addTriggers(migration);
  const lost = await readLostLog(migration);
  return lost === undefined ? undefined : await inTransaction(migration.client, () => leaveLog(migration, lost));
}

async function addTriggers(migration: OutboxMigration): Promise<void> {
  const { client, catalogue, note } = migration;
  const plan = await readOutboxPlan(client, catalogue);
  if (plan.length === 0) return;
  await inQuietMoment(client, async () => {
    const before = (await readSettings(client))?.footings.outbox ?? {};
    // What somebody else changed since is for the next start to find: only what we change ourselves is certified, and together with it,
    // so that a process that runs does not take it for an alteration.
    const isSound = changedFooting(before, await readFooting(client, questionOf(migration))).length === 0;
    for (const { sql } of plan) await client.query(sql);
    if (isSound) await certifyFooting(client, questionOf(migration));
  });
  for (const { sql } of plan) note(sql);
}

/**
 * From the log to the outbox, in one transaction that holds all tracked tables: what was committed before it is in the log alone, what
 * is committed after it in the outbox too, and its mark in the log tells the two apart. A log that cannot be read any more is left with a
 * gap that ends here.
 *
 * @returns what drops its slot then
 */
export async function switchToOutbox(migration: OutboxMigration): Promise<string | undefined> {
  const { client, catalogue, server, note } = migration;
  const last = await readJournal(migration);
  if (last?.cursor !== undefined) throw isPending("wal");
  const hasLog = (await readSlot(client, captureNames(server.databaseOid).slot)) !== undefined;
  const lost = await readLostLog(migration);
  const plan = await readOutboxPlan(client, catalogue);
  const drop = await inQuietMoment(client, async () => {
    await lockForSwitch(
      client,
      [...catalogue.tables.values()].map(({ table }) => quoteTable(table)),
    );
    for (const { sql } of plan) await client.query(sql);
    await emptyOutbox(client);
    if (hasLog && lost === undefined) await writeSwitchMark(client, "outbox");
    await writeCapture(client, "outbox");
    await certifyFooting(client, questionOf(migration));
    return lost === undefined ? undefined : await leaveLog(migration, lost);
  });
  for (const { sql } of plan) note(sql);
  note('changes are written to the outbox from here on: start with capture: "outbox"');
  return drop;
}

interface LostLog extends Pick<Loss, "reason" | "fromLsn" | "fromAt"> {
  readonly slotName: string;
  /** Undefined where it is gone. */
  readonly slot: SlotRow | undefined;
}

/** What of the log was not read, and cannot be any more; undefined where it can, or was read to its end, or never was begun. */
async function readLostLog(migration: OutboxMigration): Promise<LostLog | undefined> {
  const { client, server, generation } = migration;
  const sourceId = sourceIdOf({ ...server, generation });
  const { slot: slotName } = captureNames(server.databaseOid);
  const [slot, last, settings] = [await readSlot(client, slotName), await readJournal(migration), await readSettings(client)];
  if (last?.cursor !== undefined || settings === undefined || (slot === undefined && last === undefined)) return undefined;
  // A slot may look well, and not be readable across what was altered.
  const gap = await readEndlessGap(client, sourceId);
  if (gap !== undefined) return { ...gap, slotName, slot };
  // Somebody reads it, and journals while we look: what was asked of the server before says nothing of that.
  if (slot !== undefined && slot.activePid !== null) return undefined;
  const resume = await readResume(client, { sourceId, slotName, slot, server, settings });
  return resume.kind === "lost" ? { ...resume, slotName, slot } : undefined;
}

/** A second time it changes nothing: the gap is there. */
async function leaveLog(migration: OutboxMigration, { slotName, slot, ...lost }: LostLog): Promise<string | undefined> {
  const { client, server, generation, note } = migration;
  if (slot !== undefined && slot.activePid !== null) {
    throw new AncrageError("ANCRAGE_SLOT_BUSY", `the session with pid ${slot.activePid} reads the replication slot "${slotName}".`, {
      hint: "What was not read of the log is lost, and its slot is to be dropped: stop that session first. Nothing was changed.",
    });
  }
  const sourceId = sourceIdOf({ ...server, generation });
  if ((await readGapFrom(client, sourceId, lost.fromLsn)) === undefined) await openGap(client, sourceId, lost);
  const gap = await endGap(client, sourceId, parseLsn((await readServerIdentity(client)).flushLsn));
  if (gap !== undefined) note(`GAP: ${describeGap(gap)}`);
  return slot && `select pg_drop_replication_slot(${pg.escapeLiteral(slotName)})`;
}

/**
 * Back to the log, whose publications and slot are there already. The mark is the last row of the outbox; the same in the log says
 * where that begins.
 */
export async function switchToLog(migration: OutboxMigration): Promise<void> {
  const { client, server, note } = migration;
  const { slot } = captureNames(server.databaseOid);
  const state = { functions: await readOutboxFunctions(client), triggers: await readOutboxTriggers(client) };
  const removal = planOutboxRemoval(state);
  await inQuietMoment(client, async () => {
    await lockForSwitch(client, [...new Set(state.triggers.map(quoteTable))]);
    if ((await readJournal(migration))?.cursor === undefined && !(await isOutboxEmpty(client))) throw isPending("outbox");
    if ((await readSlot(client, slot)) === undefined) throw slotTaken(slot);
    await writeSwitchMark(client, "wal");
    for (const sql of removal) await client.query(sql);
    await writeCapture(client, "wal");
    await writeSwitchMark(client, "wal");
  });
  for (const sql of removal) note(sql);
  note('changes are read from the log from here on: start with capture: "wal"');
}

/**
 * @returns the slot of before, which must go: its log has marks of earlier times
 * @throws AncrageError where the log was not read to its end after the last switch, so that another would leave changes behind
 */
export async function prepareLog(migration: OutboxMigration): Promise<string | undefined> {
  const { slot } = captureNames(migration.server.databaseOid);
  const hasSlot = (await readSlot(migration.client, slot)) !== undefined;
  const last = await readJournal(migration);
  if (last?.cursor === undefined && (last !== undefined || hasSlot)) throw isPending("outbox");
  return hasSlot ? `select pg_drop_replication_slot(${pg.escapeLiteral(slot)})` : undefined;
}

const questionOf = ({ catalogue, server }: OutboxMigration): FootingQuestion => ({
  reads: "outbox",
  catalogue,
  names: captureNames(server.databaseOid),
});

async function readJournal({ client, server, generation }: OutboxMigration): Promise<BatchRow | undefined> {
  return await readLastBatch(client, sourceIdOf({ ...server, generation }));
}

function isPending(capture: "wal" | "outbox"): AncrageError {
  return new AncrageError(
    "ANCRAGE_NOT_MIGRATED",
    "the last change of capture is not through: not all that was written before it was read.",
    {
      hint: `Let Ancrage run with capture: "${capture}" until "ancrage status" shows it caught up, then migrate again.`,
    },
  );
}

function slotTaken(slot: string): AncrageError {
  return new AncrageError(
    "ANCRAGE_COMMAND_FAILED",
    `the replication slot "${slot}" that was made a moment ago is gone: a process that reads the outbox began meanwhile, and took it for the one of before.`,
    { hint: "Run it again. Nothing was switched." },
  );
}
