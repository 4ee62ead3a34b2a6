import { mostDepth } from "./cause.ts";
import type { Message, MessageOrigin } from "./message.ts";
import type { Registry, Subscription } from "./subscription/registry.ts";

/**
 * To which subscriptions a message goes: those of its event and project that were committed before the change was.
 *
 * Starts are exact by the log: a change belongs to a subscription only if its commit comes after the subscription's own. What a
 * subscriber's own application did is not sent back to it, where the application said who it was.
 */
export function fanOut(message: Message, registry: Pick<Registry, "of">): readonly Subscription[] {
  const all = registry.of(message.project, message.event);
  // Most often all of them qualify, and no list is made.
  return all.every((subscription) => isDue(subscription, message)) ? all : all.filter((subscription) => isDue(subscription, message));
}

const isDue = (subscription: Subscription, { position, origin }: Message): boolean =>
  subscription.startLsn < position.commitLsn &&
  subscription.state !== "disabled" &&
  (origin === undefined || !isEcho(subscription, origin));

/** Whether it would come back to whom it came from, or around for ever. */
const isEcho = ({ id, ignoredActors }: Subscription, { actor, causedBy, depth }: MessageOrigin): boolean =>
  depth >= mostDepth || causedBy === id || (actor !== undefined && ignoredActors?.includes(actor) === true);
