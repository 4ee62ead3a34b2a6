import { AncrageError } from "./errors.ts";
import { formatLsn } from "./lsn.ts";

export interface ResumeInput {
  readonly slot: string;
  /** Where the last batch ended; undefined where nothing was ever journaled. */
  readonly journalEndLsn: bigint | undefined;
  /** Up to where the slot has let the log go. */
  readonly confirmedLsn: bigint;
  /** Up to where the server's log is on disk. */
  readonly flushLsn: bigint;
  /** The end of the gap that `migrate` noted after the journal's end; undefined where it noted none. */
  readonly gapEndLsn: bigint | undefined;
}

export interface ResumePosition {
  /** Where the log is asked from. */
  readonly endLsn: bigint;
  /** Whether changes before it were not seen, which somebody has taken knowingly. */
  readonly isAfterGap: boolean;
}

/**
 * Where to read from after a start. Nothing is confirmed that is not journaled, so a slot stands at the journal's end or before it:
 * positions that say otherwise mean that changes were not seen, and are never gone on from in silence.
 *
 * A gap counts only where the slot still stands at its very end: beyond it somebody else has moved the slot since.
 *
 * @throws AncrageError `ANCRAGE_SLOT_LOST`
 */
export function computeResumePosition({ slot, journalEndLsn, confirmedLsn, flushLsn, gapEndLsn }: ResumeInput): ResumePosition {
  if (journalEndLsn === undefined) return { endLsn: confirmedLsn, isAfterGap: false };
  if (confirmedLsn > journalEndLsn) {
    if (confirmedLsn === gapEndLsn) return { endLsn: confirmedLsn, isAfterGap: true };
    throw new AncrageError(
      "ANCRAGE_SLOT_LOST",
      `replication slot "${slot}" was moved to ${formatLsn(confirmedLsn)} by somebody else; the journal ends at ${formatLsn(journalEndLsn)}. Changes between the two were not seen.`,
      {
        hint: `Find what else reads this slot. To go on without those changes: drop it (select pg_drop_replication_slot('${slot}')) and run "ancrage migrate", which notes the gap.`,
      },
    );
  }
  if (journalEndLsn > flushLsn) {
    throw new AncrageError(
      "ANCRAGE_SLOT_LOST",
      `the journal ends at ${formatLsn(journalEndLsn)}, but the server's log only at ${formatLsn(flushLsn)}: the database went back in time (a restored backup?).`,
      { hint: "Changes may have been lost or will repeat. Check which server DATABASE_URL names." },
    );
  }
  return { endLsn: journalEndLsn, isAfterGap: false };
}
