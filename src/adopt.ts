import pg from "pg";
import { refuseCopy, refuseServer, refuseWalLevel } from "./capture/check.ts";
import { explainDenied } from "./capture/rights.ts";
import { captureNames, sourceIdOf } from "./capture/wal/slot.ts";
import { AncrageError } from "./errors.ts";
import { buildCatalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { migrate, runAsReplication } from "./migrate.ts";
import type { CheckedOptions } from "./options.ts";
import { fanOutUnsettled } from "./journal/restart.ts";
import { readResume } from "./read-resume.ts";
import { describeWentBack } from "./resume-position.ts";
import { readFlushLsn, readServerIdentity, readSlot, type ServerIdentity } from "./store/capture-state.ts";
import { emptyOutbox } from "./store/capture-switch.ts";
import { connectClient, endWithClient, inTransaction } from "./store/database.ts";
import { endGap, openGap, readJournalEnd } from "./store/gaps.ts";
import { insertPendingDeliveries } from "./store/replay.ts";
import { readUnsettled } from "./store/resume.ts";
import { adoptDatabase, readSettings, type SettingsRow } from "./store/settings.ts";
import { readLiveSubscriptions } from "./store/subscriptions.ts";
import { holdSubscription } from "./subscription/open.ts";
import { createRegistry, type Subscription } from "./subscription/registry.ts";
import { cancelUnfinishedDeliveries, cancelUnfinishedJobs, endLeads, pauseSubscriptions, restartSubscriptions } from "./store/adopted.ts";
import { readLastBatch } from "./store/batches.ts";
import { leaseLock, readLeader, tryLock } from "./store/leaders.ts";
import { readTables } from "./store/tables.ts";

export interface Adopted {
  /** Why it was taken for a copy; undefined: it is its own already, and nothing was done. */
  readonly found: string | undefined;
  readonly pausedSubscriptions: number;
  readonly canceledDeliveries: number;
  readonly canceledJobs: number;
  /** Deliveries that were kept in the memory of the first process, and are rows now; 0 unless sending goes on. */
  readonly keptDeliveries: number;
  readonly ran: readonly string[];
}

/**
 * Makes a copy a database of its own, that captures and sends from now on. A copy holds the subscriptions of the first one, and what that
 * was about to send: unless told to keep them, they are paused and canceled, its jobs too, so that no customer hears from two.
 *
 * @throws AncrageError `ANCRAGE_NOT_MIGRATED` where there is nothing to adopt, `ANCRAGE_DEFINITION_INVALID` before anything is changed, `ANCRAGE_SLOT_BUSY`, `ANCRAGE_NOT_PERMITTED`
 */
export async function adopt(
  options: CheckedOptions & { readonly database: string },
  how: { readonly keepsSending: boolean; readonly onStep: (step: string) => void },
): Promise<Adopted> {
  const client = await connectClient({ connectionString: options.database, applicationName: "ancrage adopt" });
  try {
    await endWithClient(client);
    const server = await readServerIdentity(client);
    refuseServer(server);
    const settings = await explainDenied(client, () => readSettings(client)).catch(() => undefined);
    if (settings === undefined) {
      throw new AncrageError("ANCRAGE_NOT_MIGRATED", 'there is no schema "ancrage" in this database, and so nothing to adopt.', {
        hint: 'Run "ancrage migrate FOLDER".',
      });
    }
    if (settings.capture === "wal") refuseWalLevel(server);
    const found = await foundCopy(client, settings, server, options.environment);
    if (found === undefined) return { found, ...nothingDone, ran: [] };
    // Before anything is changed: migrate, which ends all this, would find the same.
    buildCatalogue({ ...(await discover(options.events ?? ".")), tables: await readTables(client), config: options });
    await refuseLed(client, sourceIdOf({ ...server, generation: settings.generation }));
    await dropSlot(client, server, options.replicationUrl);
    const done = await takeOver(client, {
      settings,
      server,
      environment: options.environment,
      ...how,
    });
    const { ran } = await migrate(options, { onStep: how.onStep });
    return { found, ...done, ran };
  } finally {
    await client.end();
  }
}

/** In words, what says that this is a copy; a journal that is ahead of the log says so too. */
async function foundCopy(
  client: pg.Client,
  settings: SettingsRow,
  server: ServerIdentity,
  environment: string,
): Promise<string | undefined> {
  try {
    refuseCopy(settings, server, environment);
  } catch (error) {
    if (!(error instanceof AncrageError)) throw error;
    return error.message;
  }
  const { slot: slotName } = captureNames(server.databaseOid);
  const sourceId = sourceIdOf({ ...server, generation: settings.generation });
  if (settings.capture === "outbox") {
    const last = await readLastBatch(client, sourceId);
    return last && describeWentBack(last.endLsn, await readFlushLsn(client));
  }
  const resume = await readResume(client, { sourceId, slotName, slot: await readSlot(client, slotName), server, settings });
  return resume.kind === "lost" && resume.reason === "log-went-back" ? resume.what : undefined;
}

/**
 * A process that leads would go on with what is emptied under it, and with an outbox no slot tells of it. Whoever would like to lead
 * waits until this session ends.
 */
async function refuseLed(client: pg.Client, source: string): Promise<void> {
  if (await tryLock(client, leaseLock(source))) return;
  const { process } = await readLeader(client, source);
  throw new AncrageError("ANCRAGE_SLOT_BUSY", `the process ${process} leads on this database.`, {
    hint: "Stop every process of Ancrage that runs on it. Nothing was changed.",
  });
}

/** That of a snapshot stands in the first one's history. */
async function dropSlot(client: pg.Client, server: ServerIdentity, replicationUrl: string | undefined): Promise<void> {
  const { slot: name } = captureNames(server.databaseOid);
  const slot = await readSlot(client, name);
  if (slot === undefined) return;
  if (slot.activePid !== null) {
    throw new AncrageError("ANCRAGE_SLOT_BUSY", `the session with pid ${slot.activePid} reads the replication slot "${name}".`, {
      hint: "Stop every process of Ancrage that runs on this database.",
    });
  }
  await runAsReplication(client, `select pg_drop_replication_slot(${pg.escapeLiteral(name)})`, replicationUrl);
}

async function takeOver(
  client: pg.Client,
  as: { readonly settings: SettingsRow; readonly server: ServerIdentity; readonly environment: string; readonly keepsSending: boolean },
): Promise<typeof nothingDone> {
  const { settings, server, environment, keepsSending } = as;
  const before = sourceIdOf({ ...settings, databaseOid: settings.databaseOid ?? server.databaseOid });
  return inTransaction(client, async () => {
    await adoptDatabase(client, { ...server, environment });
    await endLeads(client);
    const last = await readJournalEnd(client, before);
    if (last !== undefined) {
      await openGap(client, before, { fromLsn: last.lsn, reason: "database-adopted" });
      await endGap(client, before, last.lsn);
    }
    // By the places that they had in the log of the first one, as its messages have theirs: they lose them next.
    const keptDeliveries = keepsSending ? await keepUnsettled(client, before) : 0;
    await restartSubscriptions(client);
    // What is unread in it is the first database's, as its log is; and its numbers of transactions may be another server's.
    await emptyOutbox(client);
    if (keepsSending) return { ...nothingDone, keptDeliveries };
    return {
      pausedSubscriptions: await pauseSubscriptions(client),
      canceledDeliveries: await cancelUnfinishedDeliveries(client),
      canceledJobs: await cancelUnfinishedJobs(client),
      keptDeliveries: 0,
    };
  });
}

const nothingDone = { pausedSubscriptions: 0, canceledDeliveries: 0, canceledJobs: 0, keptDeliveries: 0 };

/**
 * What a process that was ended in the middle had journaled and not settled: a start on the first database would fan it out again, and
 * one on this has another source.
 */
async function keepUnsettled(client: pg.Client, source: string): Promise<number> {
  const last = await readLastBatch(client, source);
  if (last === undefined) return 0;
  const registry = createRegistry();
  // Nothing is sent here: secrets stay sealed.
  for (const row of await readLiveSubscriptions(client)) registry.put(holdSubscription(row));
  const owed: { readonly messageId: string; readonly subscription: Subscription }[] = [];
  await fanOutUnsettled({
    readPage: (page) => readUnsettled(client, page),
    last,
    registry,
    deliver: ({ id }, subscription) => owed.push({ messageId: id, subscription }),
  });
  let kept = 0;
  for (const [{ id, project }, deliveries] of Map.groupBy(owed, ({ subscription }) => subscription)) {
    const to = { subscriptionId: id, project, jobId: undefined };
    kept += await insertPendingDeliveries(
      client,
      to,
      deliveries.map(({ messageId }) => messageId),
    );
  }
  return kept;
}
