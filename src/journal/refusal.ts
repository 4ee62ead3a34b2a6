import { sqlStateOf } from "../errors.ts";

/**
 * Why the journal refused a batch, by SQLSTATE and never by words.
 *
 * - `superseded`: another process has appended this batch number; we are not the leader any more.
 * - `data`: one of the rows cannot be stored (classes 22, 23): halving finds it.
 * - `unable`: the database cannot now (connection, resources, locks, shutdown, read-only), or something stands in the way that is
 *   not a row's fault (a missing table, a trigger that raises): waited out, and shown.
 */
export type Refusal = "superseded" | "data" | "unable";

export function classifyRefusal(error: unknown): Refusal {
  const state = sqlStateOf(error);
  if (state === undefined) return "unable";
  const constraint = constraintOf(error);
  if (state === "23505" && constraint === "batches_pkey") return "superseded";
  // No constraint was checked: there is no partition for the row, and the next attempt makes it.
  if (state === "23514" && constraint === undefined) return "unable";
  return state.startsWith("22") || state.startsWith("23") ? "data" : "unable";
}

function constraintOf(error: unknown): string | undefined {
  return typeof error === "object" && error !== null && "constraint" in error && typeof error.constraint === "string"
    ? error.constraint
    : undefined;
}

/** A batch that was refused for its data. The journal halves it until the row stands alone. */
export class BatchRefused extends Error {
  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.name = "BatchRefused";
  }
}
