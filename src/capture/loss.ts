import { AncrageError } from "../errors.ts";
import { formatLsn } from "../lsn.ts";
import type { Gap, GapReason } from "../store/gaps.ts";

/** A stretch of the log that cannot be read, as it is told. */
export interface Loss {
  readonly reason: GapReason;
  /** What happened, as a sentence. */
  readonly what: string;
  /** Everything up to here was journaled. */
  readonly fromLsn: bigint;
  readonly fromAt: Date | undefined;
  /** `migrate` has switched to the outbox, and what stood in the log before was to be read first. */
  readonly isLeft?: boolean;
}

/** What was lost, since when, and the two ways out of it: the same words at a start, while it runs, and in the status. */
export class LossError extends AncrageError {
  readonly loss: Loss;

  constructor(loss: Loss) {
    const { reason, what, fromLsn, fromAt, isLeft = false } = loss;
    const since = fromAt === undefined ? "" : ` (${fromAt.toISOString()})`;
    super(
      reason === "capture-altered" ? "ANCRAGE_CAPTURE_ALTERED" : "ANCRAGE_SLOT_LOST",
      `${what} Changes committed after ${formatLsn(fromLsn)}${since} are not captured and make no events; what was journaled before is delivered.`,
      {
        hint: `${isLeft && !isOfOutboxToo(reason) ? leaveLog : wayOut(reason)} Then restart, and make up for what was missed: "ancrage backfill EVENT --subscription ID --where SQL" for rows of that time. The gap stands in the status until "ancrage gaps resolve".`,
      },
    );
    this.loss = loss;
  }
}

/** To leave the log is no way out of these. */
const isOfOutboxToo = (reason: GapReason): boolean => reason === "log-went-back" || reason === "capture-altered";

const leaveLog =
  'Changes are written to the outbox since the switch, and nothing of them is lost. Run "ancrage migrate FOLDER", which notes the gap and leaves the log.';

function wayOut(reason: GapReason): string {
  const recreate = 'run "ancrage slot recreate FOLDER", which makes the slot anew and notes the gap.';
  switch (reason) {
    case "slot-invalidated":
      return `Raise max_slot_wal_keep_size (or idle_replication_slot_timeout), and ${recreate}`;
    case "slot-moved":
      return `Find what else reads this slot and stop it, and ${recreate}`;
    case "slot-foreign":
      return `Drop or rename what made it, and ${recreate}`;
    case "slot-dropped":
    case "slot-recreated":
      return `Find who dropped it (after a failover or a restore no slot is there, unless it is a failover slot), and ${recreate}`;
    case "log-went-back":
      return 'Check which server DATABASE_URL names. If it is the right one, run "ancrage adopt FOLDER", which begins a new line of positions.';
    case "capture-altered":
      return 'Run "ancrage migrate FOLDER", which sets it right. If the log is read and capture then stops again, run "ancrage slot recreate FOLDER": before PostgreSQL 18 a slot cannot be read across a time without its publication.';
    case "database-adopted":
      return 'Run "ancrage migrate FOLDER".';
    default:
      return reason satisfies never;
  }
}

/** A gap in a line, for the status, the command line and the log. */
export function describeGap(gap: Gap): string {
  const from = `${formatLsn(gap.fromLsn)} (${gap.fromAt.toISOString()})`;
  const to = gap.toLsn === undefined ? "now" : `${formatLsn(gap.toLsn)} (${gap.toAt?.toISOString() ?? "?"})`;
  return `changes between ${from} and ${to} were not seen: ${reasonWords[gap.reason]}.`;
}

const reasonWords: Readonly<Record<GapReason, string>> = {
  "slot-dropped": "the replication slot was gone",
  "slot-invalidated": "PostgreSQL had given the replication slot up",
  "slot-moved": "somebody else had moved the replication slot",
  "slot-foreign": "the replication slot was not ours",
  "slot-recreated": "the replication slot was made anew",
  "log-went-back": "the log of the server had gone back",
  "capture-altered": "what capture stands on (a publication, a replica identity, a trigger of the outbox) was changed under it",
  "database-adopted": "the database is a copy that was adopted",
};
