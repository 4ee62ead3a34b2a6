import type { Message } from "./message.ts";
import type { Registry, Subscription } from "./subscription/registry.ts";

/**
 * To which subscriptions a message goes: those of its event and project that were committed before the change was.
 *
 * Starts are exact by the log: a change belongs to a subscription only if its commit comes after the subscription's own.
 */
export function fanOut(message: Message, registry: Pick<Registry, "of">): readonly Subscription[] {
  const all = registry.of(message.project, message.event);
  const { commitLsn } = message.position;
  // Most often all of them qualify, and no list is made.
  return all.every((subscription) => isDue(subscription, commitLsn)) ? all : all.filter((subscription) => isDue(subscription, commitLsn));
}

const isDue = (subscription: Subscription, commitLsn: bigint): boolean =>
  subscription.startLsn < commitLsn && subscription.state !== "disabled";
