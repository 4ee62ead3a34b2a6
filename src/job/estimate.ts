/** Counted no further: beyond it an estimate says as much, and counting takes longer than it is worth. */
const mostCounted = 100_000;

/**
 * How much a job has to do.
 *
 * @param count counts no further than it is told
 * @returns null where there is more than is worth counting
 */
export async function estimate(count: (limit: number) => Promise<number>): Promise<number | null> {
  const found = await count(mostCounted + 1);
  return found > mostCounted ? null : found;
}
