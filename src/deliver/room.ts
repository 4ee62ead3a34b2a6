/** `waitForRoom` looks again after so long, and waits at most so long. */
const sliceMs = 5;
const mostMs = 1_000;
/** Below this the event loop has time to spare: it is the receivers that are slow, and waiting for them helps nobody. */
const busyUtilization = 0.8;

/**
 * Lets a busy process send before it captures more. [M: reading on fills the lanes, and a delivery that overflows costs a row, a
 * read and an update instead of one row; a COPY of 10,000 rows then went out at a fifth of the speed.]
 *
 * It waits only while this process itself is what is slow, at most a second for each batch. In such a process a lane of a slow
 * receiver may be the crowded one; that one is then behind before long, and is not waited for.
 */
export async function waitForRoom(isCrowded: () => boolean): Promise<void> {
  for (let waitedMs = 0; waitedMs < mostMs && isCrowded(); waitedMs += sliceMs) {
    const before = performance.eventLoopUtilization();
    await new Promise((resolve) => setTimeout(resolve, sliceMs));
    if (performance.eventLoopUtilization(before).utilization < busyUtilization) return;
  }
}
