import { parseLsn } from "./lsn.ts";
import { computeResume, type Resume } from "./resume-position.ts";
import { readFlushLsn, type ServerIdentity, type SlotRow } from "./store/capture-state.ts";
import type { Queryable } from "./store/database.ts";
import { readGapEndingAt, readJournalEnd } from "./store/gaps.ts";
import type { SettingsRow } from "./store/settings.ts";

export interface ResumeQuestion {
  readonly sourceId: string;
  readonly slotName: string;
  /** Read before this is asked: it never stands behind a journal that is read later. */
  readonly slot: SlotRow | undefined;
  readonly server: Pick<ServerIdentity, "databaseName" | "timeline">;
  readonly settings: SettingsRow;
}

/** Where a start would go on from now, or why it could not. Changes nothing. */
export async function readResume(db: Queryable, { sourceId, slotName, slot, server, settings }: ResumeQuestion): Promise<Resume> {
  const journal = await readJournalEnd(db, sourceId);
  // After the journal: a process that is at work journals what was flushed meanwhile.
  const flushLsn = await readFlushLsn(db);
  const confirmed = slot?.confirmedLsn;
  const gap = typeof confirmed === "string" ? await readGapEndingAt(db, sourceId, parseLsn(confirmed)) : undefined;
  return computeResume({
    slotName,
    slot,
    database: server.databaseName,
    journal: journal && { endLsn: journal.lsn, at: journal.at },
    flushLsn,
    isAtEndOfGap: gap !== undefined,
    timeline: server.timeline,
    lastTimeline: settings.timeline ?? undefined,
  });
}
