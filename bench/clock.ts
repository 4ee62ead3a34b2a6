/**
 * One clock for all processes of the bench: milliseconds since the Unix epoch, with microseconds.
 *
 * Each process adds its monotonic clock to the wall clock at its own start. On one machine the sums of two processes differ only by
 * what the wall clock was corrected between the two starts, which are a second apart; `Date.now()` has no microseconds.
 */
export const nowMs = (): number => performance.timeOrigin + performance.now();
