/** When to try again. Pure. */
export interface RetryPolicy {
  /** Seconds before each attempt, the first included; its length is the number of attempts. */
  readonly scheduleS: readonly number[];
  /** How far a delay may be off, as a part of it: what failed together must not return together. */
  readonly jitter: number;
}

/**
 * @param attempts how many were made in this round
 * @param random 0 to 1
 * @returns milliseconds to wait, or `undefined` when none is left
 */
export function computeRetryDelayMs(policy: RetryPolicy, attempts: number, random: number): number | undefined {
  const delayS = policy.scheduleS[attempts];
  if (delayS === undefined) return undefined;
  return Math.round(delayS * 1000 * (1 + policy.jitter * (2 * random - 1)));
}
