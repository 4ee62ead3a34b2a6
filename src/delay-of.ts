/** How long to wait before the next attempt, the first being number 0: the last delay stays. */
export const delayOf = (delaysMs: readonly number[], attempt: number): number => delaysMs[Math.min(attempt, delaysMs.length - 1)] ?? 0;

/** For what passes by itself while a batch waits. */
export const faultDelaysMs: readonly number[] = [50, 250, 1_000, 2_000];

/** For a database that capture reads and that does not answer. */
export const silenceDelaysMs: readonly number[] = [100, 250, 500, 1_000, 2_000, 5_000];

/** For a journal that takes nothing. */
export const journalDelaysMs: readonly number[] = [50, 100, 250, 500, 1_000, 2_000];
