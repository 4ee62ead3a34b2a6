import type pg from "pg";
import type { Logger } from "./log.ts";
import { pause } from "./pause.ts";
import { acknowledgeRevision, drawRevision, readAcknowledgedRevision, readDeletedSince, readLastRevision } from "./store/revisions.ts";

export interface DeletionWatchOptions {
  readonly db: pg.Pool;
  readonly source: string;
  readonly epoch: bigint;
  /** The last revision that was given out before the live subscriptions were read. */
  readonly from: bigint;
  /** Nothing more is begun to a subscription once this returns. */
  readonly onDeleted: (subscription: { readonly id: string; readonly revision: bigint }) => void;
  readonly log: Logger;
}

const pollMs = 1_000;
/** Revisions are committed in another order than they are given out: so many that lie before the last look are looked at again. */
const overlap = 1_000n;
const acknowledgePollMs = 50;
const acknowledgeMs = 5_000;

/**
 * In the process that leads: heeds deletions by other processes within about a second, however far behind capture is, and also once it
 * has ended. (Only deletions: where a subscription begins is for the log to say.)
 *
 * What is acknowledged is the last revision that was given out *before* a look began. So whoever has committed a deletion, draws a
 * revision, and sees that one acknowledged knows of a look that began after its commit.
 */
export class DeletionWatch {
  readonly #options: DeletionWatchOptions;
  readonly #stopping = new AbortController();
  #acknowledged: bigint | undefined;
  #watching: Promise<void> | undefined;

  constructor(options: DeletionWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#watching = this.#watch();
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#watching;
  }

  async #watch(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#look();
      } catch (error) {
        if (!this.#stopping.signal.aborted) this.#options.log.warn({ err: error }, "could not read which subscriptions were deleted");
      }
      await pause(pollMs, this.#stopping.signal);
    }
  }

  async #look(): Promise<void> {
    const { db, source, epoch, from, onDeleted } = this.#options;
    const revision = await readLastRevision(db);
    for (const deleted of await readDeletedSince(db, (this.#acknowledged ?? from) - overlap)) onDeleted(deleted);
    if (revision === this.#acknowledged) return;
    await acknowledgeRevision(db, { source, epoch, revision });
    this.#acknowledged = revision;
  }
}

/** Waits until whoever leads heeds what is committed by now, at most 5 s. Where nobody leads nobody sends. */
export async function deletionsAcknowledged(db: pg.Pool, stopping: AbortSignal): Promise<void> {
  const revision = await drawRevision(db);
  for (let waitedMs = 0; waitedMs < acknowledgeMs && !stopping.aborted; waitedMs += acknowledgePollMs) {
    const acknowledged = await readAcknowledgedRevision(db);
    if (acknowledged === undefined || acknowledged >= revision) return;
    await pause(acknowledgePollMs, stopping);
  }
}
