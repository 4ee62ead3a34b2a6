import { comparePositions, type Position } from "../capture/change.ts";
import type { Batch } from "./journal.ts";

/**
 * Two batches that, committed one after the other, are the given one: how the journal looks for the row that PostgreSQL refuses.
 *
 * Outcomes go first, on their own. Cuts are between changes: two messages of one change share their position, and a start after a
 * crash skips by position.
 *
 * @param from where the journal stands: what the first of the two may say while it holds no change
 * @returns undefined where one change, or one outcome, stands alone
 */
export function splitBatch(batch: Batch, from: Pick<Batch, "journaled" | "endLsn" | "cursor">): readonly [Batch, Batch] | undefined {
  const { messages, rejections, updates, starts } = batch;
  const { journaled, endLsn, cursor } = from;
  if (updates.length > 0 && messages.length + rejections.length + starts.length > 0) {
    return [
      { messages: [], rejections: [], updates, starts: [], journaled, endLsn, cursor },
      { ...batch, updates: [] },
    ];
  }
  if (updates.length > 1) {
    const middle = updates.length >> 1;
    return [
      { ...batch, updates: updates.slice(0, middle), journaled, endLsn, cursor },
      { ...batch, updates: updates.slice(middle) },
    ];
  }
  const positions = distinctPositions(batch);
  const cut = positions[(positions.length >> 1) - 1];
  if (cut === undefined) return undefined;
  const isLeft = ({ position }: { readonly position: Position }): boolean => comparePositions(position, cut) <= 0;
  return [
    // A subscription's start says that the log was passed to where it stands: it goes with the last of it.
    {
      messages: messages.filter(isLeft),
      rejections: rejections.filter(isLeft),
      updates: [],
      starts: [],
      journaled: cut,
      endLsn,
      // It serves each position of what was taken at once.
      cursor: batch.cursor,
    },
    { ...batch, messages: messages.filter((one) => !isLeft(one)), rejections: rejections.filter((one) => !isLeft(one)) },
  ];
}

function distinctPositions({ messages, rejections }: Batch): readonly Position[] {
  const all = [...messages, ...rejections].map(({ position }) => position).toSorted(comparePositions);
  return all.filter((position, index) => {
    const before = all[index - 1];
    return before === undefined || comparePositions(before, position) !== 0;
  });
}
