import type { Position } from "../capture/change.ts";
import type { BatchInFlight } from "../message.ts";

/** The second of the two marks: up to where every delivery of every message is a row. */
export interface Settled {
  readonly position: Position;
  /** Where a start begins to read messages that it must fan out again. */
  readonly unsettledFrom: string | undefined;
}

/**
 * @param inFlight the journaled batches in their order; those that are done at the head are removed
 * @param last the position that was journaled last
 * @param next the position and the least message id of the batch that is being written: it has not been fanned out yet
 */
export function computeSettled(
  inFlight: BatchInFlight[],
  last: Position,
  next: { readonly position: Position; readonly leastId: string | undefined },
): Settled {
  while (inFlight[0]?.open === 0) inFlight.shift();
  let least = next.leastId;
  for (const batch of inFlight) if (batch.open > 0 && (least === undefined || batch.leastId < least)) least = batch.leastId;
  const head = inFlight[0];
  if (head !== undefined) return { position: head.before, unsettledFrom: least };
  return { position: next.leastId === undefined ? next.position : last, unsettledFrom: least };
}
