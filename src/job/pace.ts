/** A job's deliveries that are not over, at most: live traffic to the same receiver waits behind no more than these. */
export const mostUnfinished = 500;

/** How fast a job may make deliveries. A bucket of tokens where it has a rate; the bound on what is unfinished in any case. */
export interface Pace {
  readonly ratePerS: number | undefined;
  /** What may be made at once, as of `atMs`. A fraction of one is kept: slow rates would else never come to one. */
  readonly tokens: number;
  readonly atMs: number;
}

/** @param ratePerS deliveries a second; undefined: as fast as the receiver takes them */
export function createPace(ratePerS: number | undefined, nowMs: number): Pace {
  return { ratePerS, tokens: 1, atMs: nowMs };
}

/**
 * How many deliveries may be made now, and the pace once they are.
 *
 * A second's worth of tokens is the most that is saved up, beside the one that was not whole yet: a job that waited for its receiver does
 * not make up for it in a burst.
 */
export function takePace(
  pace: Pace,
  { nowMs, unfinished }: { readonly nowMs: number; readonly unfinished: number },
): { readonly count: number; readonly pace: Pace } {
  const room = Math.max(0, mostUnfinished - unfinished);
  const { ratePerS } = pace;
  // Half of it at least, or one page would be made for every few answers.
  if (ratePerS === undefined) return { count: room * 2 >= mostUnfinished ? room : 0, pace };
  const tokens = Math.min(ratePerS + 1, pace.tokens + ((nowMs - pace.atMs) / 1_000) * ratePerS);
  const count = Math.min(room, Math.floor(tokens));
  return { count, pace: { ratePerS, tokens: tokens - count, atMs: nowMs } };
}

/** Gives back what a page did not use. */
export const giveBack = (pace: Pace, count: number): Pace => ({ ...pace, tokens: pace.tokens + count });
