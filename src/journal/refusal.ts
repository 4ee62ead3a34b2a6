import { AncrageError, constraintOf, isRefusedData, sqlStateOf } from "../errors.ts";
import type { Message, Rejection } from "../message.ts";
import { rejectionIdOf } from "../message-id.ts";

/**
 * Why the journal refused a batch, by SQLSTATE and never by words.
 *
 * - `superseded`: another process has appended this batch number; we are not the leader any more.
 * - `data`: one of the rows cannot be stored (classes 22, 23): halving finds it.
 * - `unable`: the database cannot now (connection, resources, locks, shutdown, read-only), or something stands in the way that is
 *   not a row's fault (a missing table, a missing partition, a trigger that raises): waited out, and shown.
 */
export type Refusal = "superseded" | "data" | "unable";

export function classifyRefusal(error: unknown): Refusal {
  const state = sqlStateOf(error);
  if (state === undefined) return "unable";
  if (state === "23505" && constraintOf(error) === "batches_pkey") return "superseded";
  return isRefusedData(error) ? "data" : "unable";
}

/** A batch that was refused for its data. The journal halves it until the row stands alone. */
export class BatchRefused extends Error {
  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.name = "BatchRefused";
  }
}

/** A message that PostgreSQL cannot store, as the rejection that stands in its place. */
export function rejectionOf(message: Message, error: unknown): Rejection {
  return {
    id: rejectionIdOf(message.id),
    project: message.project,
    event: message.event,
    key: message.key,
    position: message.position,
    committedAtUs: message.committedAtUs,
    reason: "journal-refused",
    error: error instanceof Error ? error.message : String(error),
    occurrence: Buffer.from(JSON.stringify({ kind: "message", key: message.key, body: message.body.toString("base64") })),
  };
}

/** What a process throws that does not lead any more. */
export function superseded(): AncrageError {
  return new AncrageError("ANCRAGE_SUPERSEDED", "another process appends to the journal now; this one has stopped capturing and sending.", {
    hint: "Nothing is lost: the other one goes on from the last batch. Started anew, this process is its standby.",
  });
}

/**
 * What a process throws whose database was put back, or failed over to a replica without its last commits: what it knows of positions is of
 * another history, and it would skip what is written in this one.
 */
export function journalWentBack(lastNumber: bigint, committed: bigint): AncrageError {
  return new AncrageError(
    "ANCRAGE_JOURNAL_WENT_BACK",
    `the journal ends at batch ${lastNumber}, and this process has committed batch ${committed}: the database was put back to an earlier state, or failed over to a replica without its last commits. This process has stopped capturing and sending.`,
    {
      hint: "Start it anew: it goes on from where this database stands. What was sent of what the database has lost cannot be taken back.",
    },
  );
}

/** Numbers of transactions, and places of the log, are used again on another timeline: what was read of the former one says nothing there. */
export function timelineChanged(now: number, before: number): AncrageError {
  return new AncrageError(
    "ANCRAGE_JOURNAL_WENT_BACK",
    `the server is on timeline ${now}, and was on ${before} when this process took the lead: a replica was promoted, or a backup restored. This process has stopped capturing and sending.`,
    { hint: "Start it anew: it goes on from where the journal of this database stands, and misses nothing of what is there." },
  );
}

/** No waiting mends it: this process must end. */
export const isOver = (error: unknown): boolean =>
  error instanceof AncrageError && (error.code === "ANCRAGE_SUPERSEDED" || error.code === "ANCRAGE_JOURNAL_WENT_BACK");

/** @param refusing since when and why the journal took no batch; undefined where it took them */
export function stoppedWhileRefusing(refusing: { readonly since: Date; readonly because: string } | undefined): AncrageError {
  const because = refusing === undefined ? "." : ` since ${refusing.since.toISOString()}: ${refusing.because}`;
  return new AncrageError("ANCRAGE_JOURNAL_REFUSED", `stopped while a batch waited for the journal, which takes none${because}`, {
    hint: "Nothing is lost: what was not journaled is read again, and outcomes that were not are repeated.",
  });
}
