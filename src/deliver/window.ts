/**
 * How many requests of one lane may be in flight. Pure.
 *
 * It doubles per window's worth of successes (one more for each success), and is halved by a failure: a receiver shows by itself
 * how much it takes.
 */
export const firstWindow = 4;
export const largestWindow = 64;

export function nextWindow(window: number, isSuccess: boolean): number {
  return isSuccess ? Math.min(largestWindow, window + 1) : Math.max(1, Math.floor(window / 2));
}
