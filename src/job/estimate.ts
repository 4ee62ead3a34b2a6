import { sqlStateOf } from "../errors.ts";

/** Counted no further: beyond it an estimate says as much, and counting takes longer than it is worth. */
const mostCounted = 100_000;

/**
 * How much a job has to do.
 *
 * @param count counts no further than it is told
 * @returns null where there is more than is worth counting: also where the statement runs out of time, since a job that insisted on its
 * number would never begin
 */
export async function estimate(count: (limit: number) => Promise<number>): Promise<number | null> {
  try {
    const found = await count(mostCounted + 1);
    return found > mostCounted ? null : found;
  } catch (error) {
    if (sqlStateOf(error) !== "57014") throw error;
    return null;
  }
}
