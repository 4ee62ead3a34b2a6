import type { SubscriptionMark } from "./capture/change.ts";
import { delayOf, faultDelaysMs } from "./delay-of.ts";
import type { SubscriptionStart } from "./journal/journal.ts";
import type { Logger } from "./log.ts";
import { pause } from "./pause.ts";
import { isPassingFault } from "./payload/fault.ts";
import type { Registry } from "./subscription/registry.ts";

export interface PlacingDeps {
  readonly registry: Registry;
  /** Takes a subscription into the registry as it is now; false where it was deleted. */
  readonly refreshSubscription: (id: string) => Promise<boolean>;
  readonly log: Logger;
  readonly stopping: AbortSignal;
}

/**
 * Subscriptions that the log has come to: from here on they are fanned out to.
 *
 * @returns where each begins, for the journal; undefined where it was to stop before they could be read
 */
export async function placeSubscriptions(
  marks: readonly SubscriptionMark[],
  { registry, refreshSubscription, log, stopping }: PlacingDeps,
): Promise<readonly SubscriptionStart[] | undefined> {
  // Kept over a fault: what has its place in memory is not placed again.
  const starts: SubscriptionStart[] = [];
  for (let attempt = 0; ; attempt++) {
    try {
      for (const { subscriptionId, revision, transaction } of marks) {
        if (!(await refreshSubscription(subscriptionId))) continue;
        const lsn = transaction.commitLsn;
        if (registry.place(subscriptionId, revision, lsn)) starts.push({ id: subscriptionId, revision, lsn });
      }
      return starts;
    } catch (error) {
      if (!isPassingFault(error)) throw error;
      if (stopping.aborted) return undefined;
      log.warn({ err: error }, "a subscription could not be read; trying again");
      await pause(delayOf(faultDelaysMs, attempt), stopping);
    }
  }
}
