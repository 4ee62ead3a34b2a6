/** `Room` looks again after so long, and waits at most so long. */
const sliceMs = 5;
const mostMs = 1_000;
/** Below this the event loop has time to spare: it is the receivers that are slow, and waiting for them helps nobody. */
const busyUtilization = 0.8;

/**
 * Lets a busy process send before it captures more. [M: reading on fills the lanes, and a delivery that overflows costs a row, a
 * read and an update instead of one row; a COPY of 10,000 rows then went out at a fifth of the speed.]
 *
 * It waits only while this process itself is what is slow, at most a second for each batch. In such a process a lane of a slow
 * receiver may be the crowded one; that one is then behind before long, and is not waited for. A process that has time to spare waits
 * not at all: what it would wait for is a receiver that hangs, and each message would wait for that.
 */
export class Room {
  readonly #utilization: () => number;

  /** @param utilization the share of the time that the event loop was busy since it was last asked */
  constructor(utilization: () => number = measureUtilization()) {
    this.#utilization = utilization;
  }

  async wait(isCrowded: () => boolean): Promise<void> {
    for (let waitedMs = 0; waitedMs < mostMs && isCrowded() && this.#utilization() >= busyUtilization; waitedMs += sliceMs) {
      await new Promise((resolve) => setTimeout(resolve, sliceMs));
    }
  }
}

function measureUtilization(): () => number {
  let before = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    return utilization;
  };
}
