import pg from "pg";
import { refuseCopy, refuseServer, refuseWalLevel } from "./capture/check.ts";
import { explainDenied } from "./capture/rights.ts";
import { captureNames, sourceIdOf } from "./capture/wal/slot.ts";
import { AncrageError } from "./errors.ts";
import { migrate, runAsReplication } from "./migrate.ts";
import type { CheckedOptions } from "./options.ts";
import { readResume } from "./read-resume.ts";
import { readServerIdentity, readSlot, type ServerIdentity } from "./store/capture-state.ts";
import { connectClient, inTransaction } from "./store/database.ts";
import { endGap, openGap, readJournalEnd } from "./store/gaps.ts";
import { adoptDatabase, readSettings, type SettingsRow } from "./store/settings.ts";
import { cancelUnfinishedDeliveries, pauseSubscriptions, restartSubscriptions } from "./store/adopted.ts";

export interface Adopted {
  /** Why it was taken for a copy; undefined: it is its own already, and nothing was done. */
  readonly found: string | undefined;
  readonly pausedSubscriptions: number;
  readonly canceledDeliveries: number;
  readonly ran: readonly string[];
}

/**
 * Makes a copy a database of its own, that captures and sends from now on. A copy holds the subscriptions of the first one, and what that
 * was about to send: unless told to keep them, they are paused and canceled, so that no customer hears from two.
 *
 * @throws AncrageError `ANCRAGE_NOT_MIGRATED` where there is nothing to adopt, `ANCRAGE_SLOT_BUSY`, `ANCRAGE_NOT_PERMITTED`
 */
export async function adopt(
  options: CheckedOptions & { readonly database: string },
  how: { readonly keepsSending: boolean; readonly onStep: (step: string) => void },
): Promise<Adopted> {
  const client = await connectClient({ connectionString: options.database, applicationName: "ancrage adopt" });
  try {
    const server = await readServerIdentity(client);
    refuseServer(server);
    refuseWalLevel(server);
    const settings = await explainDenied(client, () => readSettings(client)).catch(() => undefined);
    if (settings === undefined) {
      throw new AncrageError("ANCRAGE_NOT_MIGRATED", 'there is no schema "ancrage" in this database, and so nothing to adopt.', {
        hint: 'Run "ancrage migrate FOLDER".',
      });
    }
    const found = await foundCopy(client, settings, server, options.environment);
    if (found === undefined) return { found, pausedSubscriptions: 0, canceledDeliveries: 0, ran: [] };
    await dropSlot(client, server, options.replicationUrl);
    const { pausedSubscriptions, canceledDeliveries } = await takeOver(client, {
      settings,
      server,
      environment: options.environment,
      ...how,
    });
    const { ran } = await migrate(options, { onStep: how.onStep });
    return { found, pausedSubscriptions, canceledDeliveries, ran };
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
  const resume = await readResume(client, { sourceId, slotName, slot: await readSlot(client, slotName), server, settings });
  return resume.kind === "lost" && resume.reason === "log-went-back" ? resume.what : undefined;
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
): Promise<{ readonly pausedSubscriptions: number; readonly canceledDeliveries: number }> {
  const { settings, server, environment, keepsSending } = as;
  const before = sourceIdOf({ ...settings, databaseOid: settings.databaseOid ?? server.databaseOid });
  return inTransaction(client, async () => {
    await adoptDatabase(client, { ...server, environment });
    const last = await readJournalEnd(client, before);
    if (last !== undefined) {
      await openGap(client, before, { fromLsn: last.lsn, reason: "database-adopted" });
      await endGap(client, before, last.lsn);
    }
    await restartSubscriptions(client);
    if (keepsSending) return { pausedSubscriptions: 0, canceledDeliveries: 0 };
    return { pausedSubscriptions: await pauseSubscriptions(client), canceledDeliveries: await cancelUnfinishedDeliveries(client) };
  });
}
