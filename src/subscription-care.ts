import type pg from "pg";
import type { Clock } from "./clock.ts";
import { delayOf, faultDelaysMs } from "./delay-of.ts";
import { emitOperational } from "./event/operational.ts";
import type { Logger } from "./log.ts";
import { pause } from "./pause.ts";
import { parkedAfterRejections } from "./payload/reject.ts";
import { dropIdempotencyKeys } from "./store/idempotency-keys.ts";
import { readExpiredSubscriptions, readProjectsOfEvent, type SubscriptionRow } from "./store/subscriptions.ts";
import { disableSubscription, dropExpiredSecrets, type DisableReason } from "./subscription/disable.ts";
import type { LiveSubscriptions } from "./subscription/live.ts";
import { writeSubscription } from "./subscription/write.ts";

export interface SubscriptionCareOptions {
  readonly db: pg.Pool;
  readonly subscriptions: Pick<LiveSubscriptions, "endedSecrets">;
  /** Takes what was changed, as a change by the API. */
  readonly onChanged: (row: SubscriptionRow) => void;
  readonly clock: Pick<Clock, "nowMs">;
  readonly log: Logger;
  /** @default 5000 */
  readonly sweepMs?: number | undefined;
}

const defaultSweepMs = 5_000;

/**
 * In the process that leads: what is done to subscriptions without anybody asking. It disables those whose receiver is gone, asked for it
 * or failed for days, and those whose time is over; takes out secrets that have ended; and tells of all that, and of parked events.
 */
export class SubscriptionCare {
  readonly #options: SubscriptionCareOptions;
  readonly #stopping = new AbortController();
  /** What is under way, for `stop`. */
  readonly #work = new Set<Promise<void>>();

  constructor(options: SubscriptionCareOptions) {
    this.#options = options;
  }

  start(): void {
    this.#run(this.#sweepAll());
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#work);
  }

  /**
   * Disables it, as it was at `revision`: what somebody has changed since is theirs, and stays. Tried again until the database takes it.
   */
  disable(id: string, { reason, revision }: { readonly reason: DisableReason; readonly revision: bigint }): void {
    this.#run(this.#patiently(() => this.#disable(id, reason, revision), "could not disable a subscription"));
  }

  /** Tells each project that has subscribed to it that an event, or a file of handlers, is not run any more. */
  tellParked(parked: { readonly event: string | undefined; readonly file: string }): void {
    this.#run(this.#patiently(() => this.#tellParked(parked), "could not tell that an event is parked"));
  }

  async #disable(id: string, reason: DisableReason, revision: bigint): Promise<void> {
    const { db, clock, log, onChanged } = this.#options;
    const row = await disableSubscription(db, { id, reason, revision, at: new Date(clock.nowMs()) });
    if (row === undefined) return;
    onChanged(row);
    if (row.stateReason === reason)
      log.warn({ subscription: id, project: row.project, reason }, `a subscription is disabled: ${words[reason]}`);
  }

  async #tellParked({ event = null, file }: { readonly event?: string | null | undefined; readonly file: string }): Promise<void> {
    const { db, clock } = this.#options;
    const at = new Date(clock.nowMs()).toISOString();
    await writeSubscription(db, async (client) => {
      for (const project of await readProjectsOfEvent(client, "event.parked")) {
        await emitOperational(client, "event.parked", event ?? file, { project, event, file, rejections: parkedAfterRejections, at });
      }
    });
  }

  async #sweepAll(): Promise<void> {
    while (!this.#isStopping) {
      await pause(this.#options.sweepMs ?? defaultSweepMs, this.#stopping.signal);
      if (this.#isStopping) return;
      try {
        await this.#sweep();
      } catch (error) {
        this.#options.log.warn({ err: error }, "could not look for subscriptions whose time is over");
      }
    }
  }

  async #sweep(): Promise<void> {
    const { db, clock, subscriptions, onChanged } = this.#options;
    const now = new Date(clock.nowMs());
    for (const { id, revision } of await readExpiredSubscriptions(db, now)) await this.#disable(id, "expired", revision);
    for (const id of subscriptions.endedSecrets(now.getTime())) {
      const row = await dropExpiredSecrets(db, id, now);
      if (row !== undefined) onChanged(row);
    }
    await dropIdempotencyKeys(db);
  }

  async #patiently(work: () => Promise<void>, words: string): Promise<void> {
    for (let attempt = 0; !this.#isStopping; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (this.#isStopping) return;
        this.#options.log.warn({ err: error }, `${words}; trying again`);
        await pause(delayOf(faultDelaysMs, attempt), this.#stopping.signal);
      }
    }
  }

  #run(work: Promise<void>): void {
    const running = work.finally(() => this.#work.delete(running));
    this.#work.add(running);
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }
}

const words: Readonly<Record<DisableReason, string>> = {
  gone: "its receiver answered 410",
  asked: "its receiver asked for it",
  failing: "its receiver took nothing for days",
  expired: "its time is over",
};
