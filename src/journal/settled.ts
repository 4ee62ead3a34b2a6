import type { Position } from "../capture/change.ts";
import type { BatchInFlight } from "../message.ts";

/** The second of the two marks: up to where every delivery of every message is a row. */
export interface Settled {
  readonly position: Position;
  /** Where a start begins to read messages that it must fan out again. */
  readonly unsettledFrom: string | undefined;
}

/**
 * @param inFlight the journaled batches in their order; those with nothing open count as if they were not there
 * @param last the position that was journaled last
 * @param next the position and the least message id of the batch that is being written: it has not been fanned out yet
 */
export function computeSettled(
  inFlight: readonly BatchInFlight[],
  last: Position,
  next: { readonly position: Position; readonly leastId: string | undefined },
): Settled {
  let least = next.leastId;
  let head: BatchInFlight | undefined;
  for (const batch of inFlight) {
    if (batch.open === 0) continue;
    head ??= batch;
    // Commit times go backwards, and ids with them: the head's is not always the least.
    if (least === undefined || batch.leastId < least) least = batch.leastId;
  }
  if (head !== undefined) return { position: head.before, unsettledFrom: least };
  return { position: next.leastId === undefined ? next.position : last, unsettledFrom: least };
}
