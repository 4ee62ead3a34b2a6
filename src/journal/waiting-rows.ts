import type { Logger } from "../log.ts";
import { deliveryNameOf, type DeliveryUpdate } from "../message.ts";

export interface WaitingRowsOptions {
  /** Writes them durably, each unless it is there. Throws where they cannot be written this way. */
  readonly write: (updates: readonly DeliveryUpdate[]) => Promise<void>;
  readonly onWritten: (updates: readonly DeliveryUpdate[]) => void;
  /** They wait for the next batch, which halves what is refused and waits for what is not there: `claim` gives them out. */
  readonly onRefused: () => void;
  readonly log: Logger;
}

/** How long a row waits for others to go with. */
const lingerMs = 100;
/** Of one statement. */
const mostRows = 1_000;

/**
 * The rows of deliveries that nothing has come of yet: open for long, or out of memory. They go beside the batches, on a session of their
 * own, many at a time, since nobody waits for them: a start fans out again what has no row. Ten receivers that hang make ten such rows a
 * message, and a message must not wait for those [M: docs/decisions/0006].
 *
 * ```
 *   add ──► waiting ──► being written ──► there
 *             │  ▲            │
 *       claim │  └────────────┘ refused
 *             ▼
 *       with the next batch: what came of it must find its row
 * ```
 */
export class WaitingRows {
  readonly #options: WaitingRowsOptions;
  #waiting = new Map<string, DeliveryUpdate>();
  /** Filled and emptied by `#writeSome`. */
  #writing = new Map<string, DeliveryUpdate>();
  #isRefused = false;
  #isStopped = false;
  #timer: NodeJS.Timeout | undefined;
  /** Resolves when all that was asked to be written before is, or is refused. Never rejects. */
  #written: Promise<void> = Promise.resolve();

  constructor(options: WaitingRowsOptions) {
    this.#options = options;
  }

  /** The next batch must carry what waits. */
  get isRefused(): boolean {
    return this.#isRefused;
  }

  /** Takes a first row: one that is `isUntouched`. */
  add(update: DeliveryUpdate): void {
    if (this.#isStopped) return;
    this.#waiting.set(deliveryNameOf(update.row), update);
    if (this.#waiting.size === mostRows) this.#write();
    else this.#timer ??= setTimeout(() => this.#write(), lingerMs);
  }

  /** Resolves when all that was added so far has its row, or waits for the next batch. */
  async flushed(): Promise<void> {
    if (this.#waiting.size > 0) this.#write();
    await this.#written;
  }

  /** Rows that must go with a batch of these updates, and before them; those that are being written are waited for. */
  async claim(updates: readonly DeliveryUpdate[]): Promise<readonly DeliveryUpdate[]> {
    const later = updates.filter(({ from }) => from !== undefined);
    if (later.some((update) => this.#writing.has(deliveryNameOf(update.row)))) await this.#written;
    if (this.#isRefused) return this.#takeAll();
    if (this.#waiting.size === 0) return [];
    const claimed: DeliveryUpdate[] = [];
    for (const update of later) {
      const key = deliveryNameOf(update.row);
      const row = this.#waiting.get(key);
      if (row === undefined) continue;
      this.#waiting.delete(key);
      claimed.push(row);
    }
    return claimed;
  }

  /** Writes nothing more. @returns what has no row */
  async stop(): Promise<readonly DeliveryUpdate[]> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#written;
    return this.#takeAll();
  }

  #takeAll(): readonly DeliveryUpdate[] {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#isRefused = false;
    return all;
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#written = this.#written.then(async () => {
      for (let left = this.#waiting.size; left > 0 && !this.#isRefused && !this.#isStopped; left -= mostRows) await this.#writeSome();
    });
  }

  async #writeSome(): Promise<void> {
    for (const [key, update] of this.#waiting) {
      if (this.#writing.size === mostRows) break;
      this.#writing.set(key, update);
      this.#waiting.delete(key);
    }
    const updates = [...this.#writing.values()];
    try {
      await this.#options.write(updates);
      this.#writing = new Map();
      this.#options.onWritten(updates);
    } catch (error) {
      this.#waiting = new Map([...this.#writing, ...this.#waiting]);
      this.#writing = new Map();
      this.#isRefused = true;
      if (!this.#isStopped) this.#options.log.warn({ err: error }, "rows of waiting deliveries were refused; they go with the next batch");
      this.#options.onRefused();
    }
  }
}

/** Whether it says no more than that there is a delivery: as the fan-out made it. */
export const isUntouched = ({ row, from, attempt }: DeliveryUpdate): boolean =>
  from === undefined &&
  attempt === undefined &&
  row.state === "pending" &&
  row.attempts === 0 &&
  row.round === 1 &&
  row.nextAttemptAtMs === undefined &&
  row.jobId === undefined;
