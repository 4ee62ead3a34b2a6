import type { Clock } from "../clock.ts";

interface Entry {
  readonly atMs: number;
  readonly work: () => void;
}

/** One timer for all that is due later: a binary heap of what comes next, and a timeout for its first. */
export class DueTimer {
  readonly #clock: Clock;
  /** A binary heap by `atMs`. */
  readonly #heap: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** When `#timer` goes off. */
  #setForMs = Number.POSITIVE_INFINITY;
  #isStopped = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `work` once the monotonic clock has come to `atMs`. */
  at(atMs: number, work: () => void): void {
    // What is answered while it stops: a timer would keep the process alive, for nothing.
    if (this.#isStopped) return;
    this.#push({ atMs, work });
    this.#set();
  }

  /** Does what has come due. The timer calls it; so does a test, whose clock is its own. */
  run(): void {
    const nowMs = this.#clock.monotonicMs();
    for (let first = this.#heap[0]; first !== undefined && first.atMs <= nowMs && !this.#isStopped; first = this.#heap[0]) {
      this.#pop();
      first.work();
    }
    this.#set();
  }

  /** Idempotent. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    this.#heap.length = 0;
  }

  #set(): void {
    const [first] = this.#heap;
    if (first === undefined || this.#isStopped || first.atMs >= this.#setForMs) return;
    clearTimeout(this.#timer);
    this.#setForMs = first.atMs;
    this.#timer = setTimeout(
      () => {
        this.#setForMs = Number.POSITIVE_INFINITY;
        this.run();
      },
      // Rounded up: a timeout that goes off a fraction early would find nothing due.
      Math.max(1, Math.ceil(first.atMs - this.#clock.monotonicMs())),
    );
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = heap[above];
      if (parent === undefined || parent.atMs <= entry.atMs) break;
      heap[at] = parent;
      at = above;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const first = heap[left];
      if (first === undefined) break;
      const second = heap[left + 1];
      const isRight = second !== undefined && second.atMs < first.atMs;
      const least = isRight ? second : first;
      if (least.atMs >= last.atMs) break;
      heap[at] = least;
      at = isRight ? left + 1 : left;
    }
    heap[at] = last;
  }
}
