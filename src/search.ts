import type { LookBounds, Looked } from "./store/looked.ts";

export interface Search<Row, Place> {
  /** The place that the page before ended with. */
  readonly after: Place | undefined;
  readonly limit: number;
  /** Looks at the list behind a place. */
  readonly look: (bounds: LookBounds & { readonly after: Place | undefined }) => Promise<Looked<Row, Place>>;
  readonly placeOf: (row: Row) => Place;
  /** For how long it looks on while it has found too few. @default 250 */
  readonly budgetMs?: number;
  /** A monotonic clock. */
  readonly nowMs?: () => number;
}

export interface FoundPage<Row, Place> {
  readonly rows: readonly Row[];
  /** Where to go on; undefined at the end. A page may have fewer rows than its limit, or none, and the list go on all the same. */
  readonly next: Place | undefined;
  /** How far it was looked, also at the end; undefined where nothing was there. */
  readonly to: Place | undefined;
}

/** An answer in a moment is worth more than a full page: whoever asks sees that it goes on, and a session of five is free again. */
const defaultBudgetMs = 250;
/** The first look is small, as most lists are full of what is meant; each one after it four times as large. */
const firstLook = 1_000;
const largestLook = 16_000;

/** A page of a list that may hold little of what is meant: looks on until the page is full, the list has ended, or the time is over. */
export async function search<Row, Place>(asked: Search<Row, Place>): Promise<FoundPage<Row, Place>> {
  const { limit, look, placeOf, budgetMs = defaultBudgetMs, nowMs = () => performance.now() } = asked;
  const endMs = nowMs() + budgetMs;
  const found: Row[] = [];
  let to = asked.after;
  for (let most = firstLook; ; most = Math.min(largestLook, most * 4)) {
    // One more than is shown: it says that the list goes on.
    const looked = await look({ after: to, limit: limit + 1 - found.length, most });
    found.push(...looked.rows);
    const last = found[limit - 1];
    if (found.length > limit && last !== undefined) return { rows: found.slice(0, limit), next: placeOf(last), to: placeOf(last) };
    to = looked.to ?? to;
    if (looked.isEnd) return { rows: found, next: undefined, to };
    if (nowMs() >= endMs) return { rows: found, next: to, to };
  }
}
