/** Counts what is done under a name, in this process alone. */
export interface RateLimit {
  /** In how many ms one more may be done; 0: now. */
  waitMs(name: string): number;
  /** One was done. */
  note(name: string): void;
}

export interface RateLimitOptions {
  /** At most so many in any stretch of `perMs`. */
  readonly most: number;
  readonly perMs: number;
  /** Monotonic. */
  readonly nowMs?: () => number;
}

/** Names above which those that nothing was done under lately are forgotten. */
const mostNames = 1_000;

export function createRateLimit({ most, perMs, nowMs = () => performance.now() }: RateLimitOptions): RateLimit {
  /** When, oldest first; what is older than `perMs` counts for nothing. */
  const done = new Map<string, readonly number[]>();
  const lately = (name: string): readonly number[] => (done.get(name) ?? []).filter((at) => nowMs() - at < perMs);
  return {
    waitMs(name) {
      const [oldest, ...others] = lately(name);
      return oldest === undefined || others.length + 1 < most ? 0 : oldest + perMs - nowMs();
    },
    note(name) {
      done.set(name, [...lately(name), nowMs()]);
      if (done.size <= mostNames) return;
      for (const one of done.keys()) if (lately(one).length === 0) done.delete(one);
    },
  };
}
