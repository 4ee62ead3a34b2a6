/**
 * What a look at a list brought: at so many of its rows at most, however few of them are meant. A filter that hardly anything meets would
 * else have one statement read the whole range.
 */
export interface Looked<Row, Place> {
  /** Those that are meant, in the order of the list. */
  readonly rows: readonly Row[];
  /** The last place that was looked at; undefined where there was none. */
  readonly to: Place | undefined;
  /** The list has nothing after it. */
  readonly isEnd: boolean;
}

/** How far a statement may look, beside how many rows it may return. */
export interface LookBounds {
  readonly limit: number;
  readonly most: number;
}

/** What such a statement says of each row that it returns: those that are meant, and the last one that it looked at. */
export interface LookedRow {
  readonly is_meant: boolean;
  /** Of all rows that were looked at. */
  readonly looked: number;
}

export function lookedOf<Stored extends LookedRow, Row, Place>(
  stored: readonly Stored[],
  { most }: LookBounds,
  read: { readonly row: (stored: Stored) => Row; readonly place: (stored: Stored) => Place },
): Looked<Row, Place> {
  const last = stored.at(-1);
  return {
    rows: stored.filter(({ is_meant }) => is_meant).map(read.row),
    to: last === undefined ? undefined : read.place(last),
    isEnd: (last?.looked ?? 0) < most,
  };
}
