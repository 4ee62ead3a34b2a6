import type { CheckedDatabase } from "./capture/check.ts";
import { describeGap, LossError, type Loss } from "./capture/loss.ts";
import { changedFooting, readFooting, type Reads } from "./capture/footing.ts";
import type { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import type { Logger } from "./log.ts";
import { parseLsn } from "./lsn.ts";
import { readResume } from "./read-resume.ts";
import { describeWentBack } from "./resume-position.ts";
import type { BatchRow } from "./store/batches.ts";
import { readServerIdentity, readSlot } from "./store/capture-state.ts";
import type { Queryable } from "./store/database.ts";
import { endGap, openGap, readEndlessGap, readGapFrom, readJournalEnd } from "./store/gaps.ts";
import { readSettings, replaceFooting, writeTimeline } from "./store/settings.ts";

export interface BegunCapture {
  /** Where the log is read from. */
  readonly endLsn: bigint;
  /** Why nothing can be captured; the gap is noted then. */
  readonly failure: AncrageError | undefined;
}

/** A check of the footing that was right is at most so old when a process ends, with room for a slow one. */
const uncheckedS = 60;

/**
 * Decides where capture goes on, and notes what was lost: what has no gap in the journal was seen.
 *
 * Asked when the lead is taken, and not before: while this process waited, the one before it went on.
 */
export async function beginCapture(db: Queryable, checked: CheckedDatabase, catalogue: Catalogue, log: Logger): Promise<BegunCapture> {
  const resume = await readResume(db, { ...checked, slotName: checked.names.slot });
  if (resume.kind === "lost") return await isLost(db, checked, resume);
  return await goOn(db, { checked, catalogue, log, reads: "log", resume });
}

/** The outbox has no place of its own to be lost: only a database that went back in time has one that the journal knows better. */
export async function beginOutbox(
  db: Queryable,
  { checked, catalogue, log, last }: BeginOptions & { readonly last: BatchRow | undefined },
): Promise<BegunCapture> {
  const flushLsn = parseLsn(checked.server.flushLsn);
  const resume = { endLsn: last?.endLsn ?? flushLsn, isAfterGap: false };
  const what = describeWentBack(resume.endLsn, flushLsn);
  if (what !== undefined) {
    const journal = await readJournalEnd(db, checked.sourceId);
    return await isLost(db, checked, { reason: "log-went-back", what, fromLsn: resume.endLsn, fromAt: journal?.at });
  }
  // What was switched to the log has no triggers any more, and is read to its end.
  if (checked.reads === "outbox-until-switch") return { endLsn: resume.endLsn, failure: undefined };
  if (last !== undefined && last.cursor === undefined) await noteUnreadLog(db, { checked, catalogue, log, last });
  return await goOn(db, { checked, catalogue, log, reads: "outbox", resume });
}

interface BeginOptions {
  readonly checked: CheckedDatabase;
  readonly catalogue: Catalogue;
  readonly log: Logger;
}

/** Somebody has dropped the slot after a switch to the outbox, and before what stood in the log was read. */
async function noteUnreadLog(db: Queryable, { checked, log, last }: BeginOptions & { readonly last: BatchRow }): Promise<void> {
  const journal = await readJournalEnd(db, checked.sourceId);
  // Where the log was lost before the switch, migrate has noted it.
  const isNoted = (await readGapFrom(db, checked.sourceId, last.endLsn)) !== undefined;
  if (!isNoted) await openGap(db, checked.sourceId, { fromLsn: last.endLsn, fromAt: journal?.at, reason: "slot-dropped" });
  const ended = await endGap(db, checked.sourceId, parseLsn(checked.server.flushLsn));
  if (ended !== undefined) log.warn({ gap: ended.id }, `the log was left before it was read to its end: ${describeGap(ended)}`);
}

async function isLost(db: Queryable, { sourceId, settings }: CheckedDatabase, loss: Loss): Promise<BegunCapture> {
  await openGap(db, sourceId, loss);
  return {
    endLsn: loss.fromLsn,
    failure: new LossError({ ...loss, isLeft: settings.capture === "outbox" }),
  };
}

async function goOn(
  db: Queryable,
  {
    checked,
    catalogue,
    log,
    reads,
    resume,
  }: BeginOptions & { readonly reads: Reads; readonly resume: { readonly endLsn: bigint; readonly isAfterGap: boolean } },
): Promise<BegunCapture> {
  const { sourceId, server, settings, names } = checked;
  const before = await readEndlessGap(db, sourceId);
  if (before !== undefined && checked.lacks.length > 0) {
    const what = `capture stopped since it lacked what it stands on, and it still lacks:\n${checked.lacks.map(({ sql }) => `  ${sql};`).join("\n")}\n`;
    return {
      endLsn: resume.endLsn,
      failure: new LossError({ reason: before.reason, what, fromLsn: before.fromLsn, fromAt: before.fromAt }),
    };
  }
  const footing = await readFooting(db, { reads, catalogue, names });
  const certified = settings.footings[reads];
  const changed = changedFooting(certified ?? {}, footing);
  if (changed.length > 0) {
    log.error({ changed }, "what capture stands on was taken away and put back since the last run: changes in between may be missing");
    const last = await readJournalEnd(db, sourceId, uncheckedS);
    await openGap(db, sourceId, { fromLsn: last?.lsn ?? resume.endLsn, fromAt: last?.at, reason: "capture-altered" });
  }
  // What was altered counts from where the log ends now; a slot that stands where it should has lost nothing after all.
  const isAltered = changed.length > 0 || before?.reason === "capture-altered";
  const ended = await endGap(db, sourceId, isAltered ? parseLsn(server.flushLsn) : resume.endLsn);
  if (ended !== undefined) log.warn({ gap: ended.id }, `a gap has ended: ${describeGap(ended)}`);
  if (resume.isAfterGap) log.warn("capture goes on after a gap; the status shows it until it is resolved");
  if (settings.timeline !== null && settings.timeline !== server.timeline) {
    log.warn({ before: settings.timeline, now: server.timeline }, "another timeline: a replica was promoted, or a backup restored");
  }
  // A migration that ran meanwhile has written down what it made, and knows better: that would count as altered the next time.
  await replaceFooting(db, reads, { before: certified, now: footing });
  await writeTimeline(db, server.timeline);
  return { endLsn: resume.endLsn, failure: undefined };
}

/**
 * Capture was lost while it ran: notes the gap, and says it in the same words as a start.
 *
 * @param error what ended it
 */
export async function loseCapture(db: Queryable, checked: CheckedDatabase, error: AncrageError): Promise<AncrageError> {
  const loss = error instanceof LossError ? error.loss : await lossOf(db, checked, error);
  await openGap(db, checked.sourceId, loss);
  // It may have been switched while it ran.
  return new LossError({ ...loss, isLeft: (await readSettings(db))?.capture === "outbox" });
}

async function lossOf(db: Queryable, checked: CheckedDatabase, error: AncrageError): Promise<Loss> {
  const slotName = checked.names.slot;
  // Both as they are now: the log of the start ended before most of what is in the journal.
  const [server, slot] = [await readServerIdentity(db), await readSlot(db, slotName)];
  const resume = await readResume(db, { ...checked, slotName, server, slot });
  if (resume.kind === "lost") return resume;
  const journal = await readJournalEnd(db, checked.sourceId);
  // It looks as it should, and cannot be read all the same: the source's own words.
  const reason = error.code === "ANCRAGE_CAPTURE_ALTERED" ? "capture-altered" : "slot-dropped";
  return { reason, what: error.message, fromLsn: journal?.lsn ?? resume.endLsn, fromAt: journal?.at };
}
