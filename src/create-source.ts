import type { CheckedDatabase } from "./capture/check.ts";
import type { ChangeSource } from "./capture/change.ts";
import { WalSource } from "./capture/wal/source.ts";
import type { EngineOptions } from "./engine.ts";

/** Where this process reads changes from. */
export function createSource(sourceId: string, checked: CheckedDatabase, engine: EngineOptions): ChangeSource {
  const { database, options, catalogue, types, clock, log, signal } = engine;
  return new WalSource({
    connectionString: database,
    replicationUrl: options.replicationUrl ?? database,
    slot: checked.names.slot,
    publications: [checked.names.publication, checked.names.insertPublication],
    sourceId,
    tables: catalogue.allTables,
    types,
    triggerKey: checked.settings.triggerKey,
    clock,
    log,
    signal,
  });
}
