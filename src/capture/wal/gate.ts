import { delayOf, silenceDelaysMs } from "../../delay-of.ts";
import type { TransactionQueue } from "./queue.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";

export interface GateOptions {
  readonly queue: TransactionQueue;
  readonly snapshots: Pick<SnapshotReader, "read">;
  /** The database does not answer. */
  readonly onSilence: () => void;
  /** It is time to look again. */
  readonly onTime: () => void;
}

/** How soon a transaction that is committed but not yet visible is looked at again. */
const visibilityDelaysMs = [1, 1, 2, 5, 10, 25, 50];

/**
 * Lets out of the queue what others can see. PostgreSQL streams a commit before that: a look-up of a row of the same transaction would
 * miss it.
 */
export class Gate {
  readonly #options: GateOptions;
  /** Runs while the first transaction was not visible: nothing is work until then, and outcomes are journaled meanwhile. */
  #timer: NodeJS.Timeout | undefined;
  #attempts = 0;
  #isStopped = false;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** It was looked at a moment ago. */
  get isShut(): boolean {
    return this.#timer !== undefined;
  }

  /** One snapshot for all that stands in the queue. */
  async look(): Promise<void> {
    const { queue, snapshots, onSilence } = this.#options;
    const snapshot = await snapshots.read();
    if (snapshot !== undefined) queue.show(snapshot);
    else onSilence();
    if (queue.isVisible) this.#attempts = 0;
    else this.#shut(delayOf(snapshot === undefined ? silenceDelaysMs : visibilityDelaysMs, this.#attempts++));
  }

  /** Idempotent. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #shut(delayMs: number): void {
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#options.onTime();
    }, delayMs).unref();
  }
}
