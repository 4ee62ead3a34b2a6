/** Of an odd number of values the middle one, else the mean of the two in the middle. */
export function computeMedian(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/**
 * The nearest rank: a value that was measured, never one between two.
 *
 * @param part 0 to 1
 */
export function computePercentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? Number.NaN;
}

/** How far the rounds lie apart, as a part of their median: a figure that differs by less than this says nothing. */
export function computeSpread(values: readonly number[]): number {
  return (Math.max(...values) - Math.min(...values)) / computeMedian(values);
}
