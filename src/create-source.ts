import type pg from "pg";
import type { CheckedDatabase } from "./capture/check.ts";
import type { ChangeSource } from "./capture/change.ts";
import { OutboxSource } from "./capture/outbox/source.ts";
import { SwitchingSource } from "./capture/switching-source.ts";
import { WalSource } from "./capture/wal/source.ts";
import type { EngineOptions } from "./engine.ts";
import type { Journal } from "./journal/journal.ts";
import type { Logger } from "./log.ts";
import { dropPassedSlot } from "./store/capture-state.ts";
import { holdCapture } from "./store/capture-switch.ts";
import { connectClient, endClient, inPoolTransaction } from "./store/database.ts";
import { endSlotHolder } from "./store/leaders.ts";

/** Where this process reads changes from. */
export function createSource(journal: Journal, { sourceId, ...checked }: CheckedDatabase, engine: EngineOptions): ChangeSource {
  const { db, database, options, catalogue, types, clock, log, signal } = engine;
  const replicationUrl = options.replicationUrl ?? database;
  const { slot, publication, insertPublication } = checked.names;
  const common = {
    connectionString: database,
    sourceId,
    tables: catalogue.allTables,
    types,
    triggerKey: checked.settings.triggerKey,
    clock,
    log,
  };
  return new SwitchingSource({
    sourceId,
    wal: ({ isFromSwitch }) =>
      new WalSource({
        ...common,
        replicationUrl,
        slot,
        publications: [publication, insertPublication],
        endHolder: () => endHolder(replicationUrl, slot),
        assertWhole: () => journal.assertWhole(db),
        signal,
        isFromSwitch,
      }),
    outbox: () => new OutboxSource({ ...common, assertWhole: (client) => journal.assertWhole(client) }),
    first: checked.reads === "outbox" ? "outbox" : "wal",
    onLogLeft: (endLsn) => dropSlot(db, replicationUrl, { slot, endLsn, log }),
    log,
  });
}

/** A slot that nobody reads would keep the log for ever. One of that name may be made meanwhile, for the switch back. */
async function dropSlot(
  db: pg.Pool,
  replicationUrl: string,
  { slot, endLsn, log }: { readonly slot: string; readonly endLsn: bigint; readonly log: Logger },
): Promise<void> {
  try {
    const client = await connectClient({ connectionString: replicationUrl, applicationName: "ancrage slot" });
    try {
      const isDropped = await inPoolTransaction(
        db,
        async (held) => (await holdCapture(held)) === "outbox" && (await dropPassedSlot(client, slot, endLsn)),
      );
      if (isDropped) log.info({ slot }, "the replication slot was dropped: the outbox is read");
    } finally {
      await endClient(client);
    }
  } catch (error) {
    log.error({ err: error, slot }, "the replication slot could not be dropped, and keeps the log: drop it (pg_drop_replication_slot)");
  }
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
