import { parseLsn } from "./lsn.ts";
import { computeResume, type Resume } from "./resume-position.ts";
import type { ServerIdentity, SlotRow } from "./store/capture-state.ts";
import type { Queryable } from "./store/database.ts";
import { readGapEndingAt, readJournalEnd } from "./store/gaps.ts";
import type { SettingsRow } from "./store/settings.ts";

export interface ResumeQuestion {
  readonly sourceId: string;
  readonly slotName: string;
  readonly slot: SlotRow | undefined;
  readonly server: ServerIdentity;
  readonly settings: SettingsRow;
}

/** Where a start would go on from now, or why it could not. Changes nothing. */
export async function readResume(db: Queryable, { sourceId, slotName, slot, server, settings }: ResumeQuestion): Promise<Resume> {
  const journal = await readJournalEnd(db, sourceId);
  const confirmed = slot?.confirmedLsn;
  const gap = typeof confirmed === "string" ? await readGapEndingAt(db, sourceId, parseLsn(confirmed)) : undefined;
  return computeResume({
    slotName,
    slot,
    database: server.databaseName,
    journal: journal && { endLsn: journal.lsn, at: journal.at },
    flushLsn: parseLsn(server.flushLsn),
    isAtEndOfGap: gap !== undefined,
    timeline: server.timeline,
    lastTimeline: settings.timeline ?? undefined,
  });
}
