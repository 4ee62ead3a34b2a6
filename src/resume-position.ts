import type { Loss } from "./capture/loss.ts";
import { formatLsn, parseLsn } from "./lsn.ts";
import type { SlotRow } from "./store/capture-state.ts";

export interface ResumeInput {
  readonly slotName: string;
  /** Undefined where it is gone. */
  readonly slot: SlotRow | undefined;
  readonly database: string;
  /** Where the last batch ended; undefined where nothing was ever journaled. */
  readonly journal: { readonly endLsn: bigint; readonly at: Date | undefined } | undefined;
  /** Up to where the server's log is on disk. */
  readonly flushLsn: bigint;
  /** Whether a gap was noted that ends exactly where the slot stands. */
  readonly isAtEndOfGap: boolean;
  readonly timeline: number;
  /** That of the last start; undefined before the first. */
  readonly lastTimeline: number | undefined;
}

export type Resume =
  | {
      readonly kind: "resume";
      /** Where the log is asked from. */
      readonly endLsn: bigint;
      /** Whether changes before it were not seen, which somebody has taken knowingly. */
      readonly isAfterGap: boolean;
    }
  | ({ readonly kind: "lost" } & Loss);

/**
 * Where to read from after a start. Nothing is confirmed that is not journaled, so a slot stands at the journal's end or before it:
 * positions that say otherwise mean that changes were not seen, and are never gone on from in silence.
 *
 * A gap counts only where the slot still stands at its very end: beyond it somebody else has moved the slot since.
 */
export function computeResume(input: ResumeInput): Resume {
  const { slot, slotName, journal, isAtEndOfGap, flushLsn } = input;
  const name = `replication slot "${slotName}"`;
  const lost = (reason: Loss["reason"], what: string): Resume => ({
    kind: "lost",
    reason,
    what: what + timelineWords(input),
    fromLsn: journal?.endLsn ?? (typeof slot?.confirmedLsn === "string" ? parseLsn(slot.confirmedLsn) : 0n),
    fromAt: journal?.at,
  });

  if (slot === undefined) return lost("slot-dropped", `${name} is gone.`);
  if (slot.plugin !== "pgoutput" || slot.database !== input.database) {
    return lost("slot-foreign", `${name} is not ours: it is of the plugin "${slot.plugin}" and the database "${slot.database}".`);
  }
  if (slot.confirmedLsn === null || slot.restartLsn === null || slot.walStatus === "lost" || slot.invalidationReason !== null) {
    return lost(
      "slot-invalidated",
      `${name} was invalidated (${slot.invalidationReason ?? "wal_removed"}): PostgreSQL keeps its log no more.`,
    );
  }
  const confirmedLsn = parseLsn(slot.confirmedLsn);
  if (journal === undefined) return { kind: "resume", endLsn: confirmedLsn, isAfterGap: false };
  if (confirmedLsn > journal.endLsn) {
    if (isAtEndOfGap) return { kind: "resume", endLsn: confirmedLsn, isAfterGap: true };
    return lost(
      "slot-moved",
      `${name} was moved to ${formatLsn(confirmedLsn)} by somebody else; the journal ends at ${formatLsn(journal.endLsn)}.`,
    );
  }
  const wentBack = describeWentBack(journal.endLsn, flushLsn);
  if (wentBack !== undefined) return lost("log-went-back", wentBack);
  return { kind: "resume", endLsn: journal.endLsn, isAfterGap: false };
}

/** @returns undefined where the server's log has all that the journal has read of it */
export const describeWentBack = (journalEndLsn: bigint, flushLsn: bigint): string | undefined =>
  journalEndLsn <= flushLsn
    ? undefined
    : `the journal ends at ${formatLsn(journalEndLsn)}, but the server's log only at ${formatLsn(flushLsn)}: the database went back in time (a restored backup?).`;

function timelineWords({ timeline, lastTimeline }: ResumeInput): string {
  if (lastTimeline === undefined || timeline === lastTimeline) return "";
  return ` The server is on timeline ${timeline}, and was on ${lastTimeline} at the last start: a replica was promoted, or a backup restored.`;
}
