import type { Catalogue } from "../event/catalogue.ts";
import type { Footing } from "../store/capture-state.ts";
import type { Queryable } from "../store/database.ts";
import { readOutboxFunctions, readOutboxTriggers } from "../store/outbox-triggers.ts";
import { writeFooting } from "../store/settings.ts";
import { triggerFooting } from "./outbox/footing.ts";
import { readLogFooting } from "./wal/footing.ts";
import type { CaptureNames } from "./wal/slot.ts";

/** Where changes come from. */
export type Reads = "log" | "outbox";

export interface FootingQuestion {
  readonly reads: Reads;
  readonly catalogue: Catalogue;
  readonly names: CaptureNames;
}

/** What capture stands on as it is now: publications for the log, triggers for the outbox. */
export async function readFooting(db: Queryable, { reads, catalogue, names }: FootingQuestion): Promise<Footing> {
  if (reads === "log") return readLogFooting(db, catalogue, names);
  return triggerFooting(catalogue, { functions: await readOutboxFunctions(db), triggers: await readOutboxTriggers(db) });
}

/** Writes down what there is now as right. That of the other place stays, for a switch back. */
export async function certifyFooting(db: Queryable, question: FootingQuestion): Promise<void> {
  await writeFooting(db, question.reads, await readFooting(db, question));
}

/**
 * Whether something was taken from under capture and put back since: PostgreSQL 18 then goes on without the changes of that time, and
 * says nothing. A table that moves from one publication to the other stands in both for a moment, and so was always in one.
 *
 * @returns what was; what is not tracked any more, or was not before, is not among it
 */
export function changedFooting(before: Footing, now: Footing): readonly string[] {
  return Object.entries(before)
    .filter(([name, versions]) => {
      const present = now[name];
      return present !== undefined && versions.length > 0 && !versions.some((version) => present.includes(version));
    })
    .map(([name]) => name);
}
