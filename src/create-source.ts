import type { CheckedDatabase } from "./capture/check.ts";
import type { ChangeSource } from "./capture/change.ts";
import { WalSource } from "./capture/wal/source.ts";
import type { EngineOptions } from "./engine.ts";
import { connectClient, endClient } from "./store/database.ts";
import { endSlotHolder } from "./store/leaders.ts";

/** Where this process reads changes from. */
export function createSource(sourceId: string, checked: CheckedDatabase, engine: EngineOptions): ChangeSource {
  const { database, options, catalogue, types, clock, log, signal } = engine;
  const replicationUrl = options.replicationUrl ?? database;
  return new WalSource({
    connectionString: database,
    replicationUrl,
    slot: checked.names.slot,
    publications: [checked.names.publication, checked.names.insertPublication],
    sourceId,
    tables: catalogue.allTables,
    types,
    triggerKey: checked.settings.triggerKey,
    endHolder: () => endHolder(replicationUrl, checked.names.slot),
    clock,
    log,
    signal,
  });
}

/** Whoever leads is the only one who reads the slot. The role that reads it may end a session of its own, where another one may not. */
async function endHolder(replicationUrl: string, slot: string): Promise<void> {
  const client = await connectClient({ connectionString: replicationUrl, applicationName: "ancrage slot" });
  try {
    await endSlotHolder(client, slot);
  } finally {
    await endClient(client);
  }
}
