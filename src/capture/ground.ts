import type { Catalogue } from "../event/catalogue.ts";
import type { Footing } from "../store/capture-state.ts";
import type { Queryable } from "../store/database.ts";
import { readOutboxFunctions, readOutboxTriggers } from "../store/outbox-triggers.ts";
import { readSettings, writeFooting } from "../store/settings.ts";
import { triggerFooting, withLogFooting, withTriggerFooting } from "./outbox/footing.ts";
import { readFooting } from "./wal/footing.ts";
import type { CaptureNames } from "./wal/slot.ts";

/** Where changes come from. */
export type Reads = "log" | "outbox";

export interface GroundQuestion {
  readonly reads: Reads;
  readonly catalogue: Catalogue;
  readonly names: CaptureNames;
}

/** What capture stands on as it is now: publications for the log, triggers for the outbox. */
export async function readGround(db: Queryable, { reads, catalogue, names }: GroundQuestion): Promise<Footing> {
  if (reads === "log") return readFooting(db, catalogue, names);
  return triggerFooting(catalogue, { functions: await readOutboxFunctions(db), triggers: await readOutboxTriggers(db) });
}

/**
 * Writes down as right what there is, or what was looked at. That of the other place stays, for a switch back.
 *
 * @param seen default: what there is now
 */
export async function certifyGround(db: Queryable, question: GroundQuestion, seen?: Footing): Promise<void> {
  const now = seen ?? (await readGround(db, question));
  const before = (await readSettings(db))?.footing ?? null;
  await writeFooting(db, question.reads === "log" ? withLogFooting(before, now) : withTriggerFooting(before, now));
}
