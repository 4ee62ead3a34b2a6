import { computeHealth } from "./capture/health.ts";
import { LossError } from "./capture/loss.ts";
import { explainDenied } from "./capture/rights.ts";
import { captureNames, sourceIdOf } from "./capture/wal/slot.ts";
import type { Clock } from "./clock.ts";
import { sqlStateOf } from "./errors.ts";
import { formatLsn } from "./lsn.ts";
import { readResume } from "./read-resume.ts";
import { readLastBatch } from "./store/batches.ts";
import { readServerIdentity, readSlot } from "./store/capture-state.ts";
import { connectClient } from "./store/database.ts";
import { readSettings } from "./store/settings.ts";
import { readSlotFacts } from "./store/slot-facts.ts";

export interface SlotStatus {
  readonly slot: string;
  /** `resume`: a start goes on from it. `unused`: the outbox is read, and there is no slot. */
  readonly state: "resume" | "lost" | "not-made" | "unused";
  /** Why it is lost, or null. */
  readonly problem: string | null;
  readonly hint: string | null;
  readonly resumeLsn: string | null;
  readonly isActive: boolean;
  readonly walStatus: string;
  readonly lagBytes: number;
  readonly keptBytes: number;
  /** Null without `max_slot_wal_keep_size`. */
  readonly safeBytes: number | null;
}

export async function readSlotStatus(database: string, clock: Clock): Promise<SlotStatus> {
  const client = await connectClient({ connectionString: database, applicationName: "ancrage slot" });
  try {
    const server = await readServerIdentity(client);
    const { slot: slotName } = captureNames(server.databaseOid);
    const health = computeHealth([await readSlotFacts(client, slotName, clock.monotonicMs())]);
    const settings = await explainDenied(client, () => readSettings(client)).catch(notMigrated);
    const slot = await readSlot(client, slotName);
    const sourceId = sourceIdOf({ ...server, generation: settings?.generation ?? 0 });
    const isUnused = slot === undefined && settings?.capture === "outbox" && (await readLastBatch(client, sourceId))?.cursor !== undefined;
    const resume = isUnused ? undefined : settings && (await readResume(client, { sourceId, slotName, slot, server, settings }));
    const error = resume?.kind === "lost" ? new LossError({ ...resume, isLeft: settings?.capture === "outbox" }) : undefined;
    return {
      slot: slotName,
      state: isUnused ? "unused" : (resume?.kind ?? "not-made"),
      problem: error?.message ?? null,
      hint: error?.hint ?? (resume === undefined && !isUnused ? 'Run "ancrage migrate FOLDER".' : null),
      resumeLsn: resume?.kind === "resume" ? formatLsn(resume.endLsn) : null,
      isActive: health?.isActive ?? false,
      walStatus: health?.state ?? "missing",
      lagBytes: health?.lagBytes ?? 0,
      keptBytes: health?.keptBytes ?? 0,
      safeBytes: health?.safeBytes ?? null,
    };
  } finally {
    await client.end();
  }
}

/** There is no schema `ancrage` yet. */
function notMigrated(error: unknown): undefined {
  if (sqlStateOf(error) === "42P01" || sqlStateOf(error) === "3F000") return undefined;
  throw error;
}
