/** Time, injected so that tests own it. */
export interface Clock {
  /** Wall clock, ms since the Unix epoch: for what is stored or shown. */
  nowMs(): number;
  /** Never jumps: for time-outs, leases and intervals. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};
