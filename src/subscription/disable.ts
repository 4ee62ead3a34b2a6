import type pg from "pg";
import { emitOperational, type OperationalData } from "../event/operational.ts";
import { setSubscriptionSecrets, setSubscriptionState, type SubscriptionRow } from "../store/subscriptions.ts";
import { changeSubscription, startAnew } from "./write.ts";

/**
 * Why the engine disabled a subscription.
 *
 * - `gone`: its receiver answered 410.
 * - `asked`: it answered with `webhook-delivery: disable`.
 * - `failing`: it took nothing for five days.
 * - `expired`: its `expiresAt` has passed.
 */
export type DisableReason = OperationalData<"subscription.disabled">["reason"];

/**
 * Disables a subscription, and tells so: both or neither. What is committed from then on is not its own; what waits goes on waiting.
 * Nothing is done where it is disabled, or deleted, already.
 *
 * @param revision which the engine decided on: what somebody has changed since is theirs, and stays
 * @returns the row as it is now; undefined where there is none
 */
export async function disableSubscription(
  db: pg.Pool,
  { id, reason, revision, at }: { readonly id: string; readonly reason: DisableReason; readonly revision: bigint; readonly at: Date },
): Promise<SubscriptionRow | undefined> {
  return await changeSubscription(db, { id, project: undefined }, async (found, client) => {
    if (found.revision !== revision || found.state === "disabled" || found.state === "deleted") return undefined;
    await startAnew(client, id);
    const { project, url, events } = found;
    const disabled = await setSubscriptionState(client, { id, state: "disabled", reason, startsAnew: true });
    await emitOperational(client, "subscription.disabled", id, {
      project,
      subscriptionId: id,
      url,
      events: [...events],
      reason,
      at: at.toISOString(),
    });
    return disabled;
  });
}

/** Takes out secrets whose time is over, so that they sign no more. */
export async function dropExpiredSecrets(db: pg.Pool, id: string, now: Date): Promise<SubscriptionRow | undefined> {
  return await changeSubscription(db, { id, project: undefined }, (found, client) => {
    const secrets = found.secrets.filter(({ expiresAt }) => expiresAt === null || new Date(expiresAt) > now);
    if (found.state === "deleted" || secrets.length === found.secrets.length) return undefined;
    return setSubscriptionSecrets(client, id, secrets);
  });
}
