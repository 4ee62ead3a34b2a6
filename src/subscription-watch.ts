import type pg from "pg";
import type { Clock } from "./clock.ts";
import { leaseWaitMs, nextQuiet, type Quiet } from "./journal/lease-time.ts";
import type { Logger } from "./log.ts";
import { pause, repeat } from "./pause.ts";
import { readLastLeader } from "./store/leaders.ts";
import { acknowledgeRevision, drawRevision, readChangedSince, readLastRevision, type SubscriptionChange } from "./store/revisions.ts";

export interface SubscriptionWatchOptions {
  readonly db: pg.Pool;
  readonly source: string;
  readonly epoch: bigint;
  /** The last revision that was given out before the live subscriptions were read. */
  readonly from: bigint;
  /** Heeds a change, unless it was heeded before: nothing more is begun as it was before, once this resolves. */
  readonly onChanged: (change: SubscriptionChange) => Promise<void>;
  readonly log: Logger;
}

const pollMs = 1_000;
/** Revisions are committed in another order than they are given out: so many that lie before the last look are looked at again. */
const overlap = 1_000n;
const acknowledgePollMs = 50;
const acknowledgeMs = 5_000;

/**
 * In the process that leads: heeds what other processes changed of subscriptions within about a second, however far behind capture is,
 * and also once it has ended. (What a subscription matches is exact by the log all the same: see `fanOut`.)
 *
 * What is acknowledged is the last revision that was given out *before* a look began. So whoever has committed a change, draws a
 * revision, and sees that one acknowledged knows of a look that began after its commit. Where no revision was given out since the last
 * look, nobody waits for another one.
 */
export class SubscriptionWatch {
  readonly #options: SubscriptionWatchOptions;
  readonly #stopping = new AbortController();
  #acknowledged: bigint | undefined;
  #watching: Promise<void> | undefined;

  constructor(options: SubscriptionWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#watching = repeat(() => this.look(), {
      everyMs: pollMs,
      signal: this.#stopping.signal,
      onFault: (error) => this.#options.log.warn({ err: error }, "could not read which subscriptions were changed"),
    });
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#watching;
  }

  /** Heeds what was changed by now. */
  async look(): Promise<void> {
    const { db, source, epoch, from, onChanged } = this.#options;
    const revision = await readLastRevision(db);
    if (revision === this.#acknowledged) return;
    for (const change of await readChangedSince(db, (this.#acknowledged ?? from) - overlap)) await onChanged(change);
    await acknowledgeRevision(db, { source, epoch, revision });
    this.#acknowledged = revision;
  }
}

/**
 * Waits until whoever leads heeds what is committed by now, at most 5 s. Where nobody leads nobody sends; nor does one whose lease nobody
 * has held for its whole length.
 *
 * @returns whether nothing more is begun as it was before
 */
export async function changesAcknowledged(
  db: pg.Pool,
  { leaseMs, clock, stopping }: { readonly leaseMs: number; readonly clock: Clock; readonly stopping: AbortSignal },
): Promise<boolean> {
  const untilMs = clock.monotonicMs() + acknowledgeMs;
  const revision = await drawRevision(db);
  for (let quiet: Quiet | undefined; ;) {
    const seen = await readLastLeader(db);
    if (seen === undefined || seen.isGivenBack || seen.acknowledgedRevision >= revision) return true;
    const nowMs = clock.monotonicMs();
    quiet = nextQuiet(quiet, seen, nowMs);
    if (quiet !== undefined && leaseWaitMs(quiet, seen, nowMs, leaseMs) === 0) return true;
    if (nowMs >= untilMs || stopping.aborted) return false;
    await pause(acknowledgePollMs, stopping);
  }
}
