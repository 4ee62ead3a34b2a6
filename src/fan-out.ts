import { mostDepth } from "./cause.ts";
import type { Message, MessageOrigin } from "./message.ts";
import type { Filter } from "./subscription/filter.ts";
import type { Registry, Subscription } from "./subscription/registry.ts";

/**
 * To which subscriptions a message goes: those of its project that had its event, and wanted its payload, when it was committed.
 *
 * Starts are exact by the log, and so is every change of what a subscription matches: what was committed before a change belongs to it
 * as it was then, however late the message is fanned out (again). Its state is not asked: what was committed before a subscription was
 * paused or disabled waits for it. What a subscriber's own application did is not sent back to it, where the application said who it
 * was.
 */
export function fanOut(message: Message, registry: Pick<Registry, "of">): readonly Subscription[] {
  const all = registry.of(message.project, message.event);
  const { origin } = message;
  const payload = lazily(() => JSON.parse(message.body.toString("utf8")) as unknown);
  const isDue = (subscription: Subscription): boolean =>
    matches(subscription, message, payload) && (origin === undefined || !isEcho(subscription, origin));
  const firstOut = all.findIndex((subscription) => !isDue(subscription));
  // Most often all of them qualify, and no list is made.
  return firstOut === -1 ? all : [...all.slice(0, firstOut), ...all.slice(firstOut + 1).filter(isDue)];
}

function matches(subscription: Subscription, message: Message, payload: () => unknown): boolean {
  const start = startAt(subscription, message.position.commitLsn);
  if (start === undefined) return false;
  // The registry answers with those that have the event in one of their starts; where there is one, it is that one.
  if (subscription.former !== undefined && !start.events.includes(message.event)) return false;
  return start.filter === undefined || start.filter(payload());
}

interface Start {
  readonly events: readonly string[];
  readonly filter?: Filter | undefined;
  readonly startLsn: bigint;
}

/** What a subscription matched at a place of the log; undefined before it was there. */
function startAt(subscription: Subscription, commitLsn: bigint): Start | undefined {
  if (hasBegun(subscription, commitLsn)) return subscription;
  return subscription.former?.find((start) => hasBegun(start, commitLsn));
}

/** A start counts from after its own transaction on; an end, which has no events, from that transaction on. */
function hasBegun({ startLsn, events }: Start, commitLsn: bigint): boolean {
  return startLsn < commitLsn || (startLsn === commitLsn && events.length === 0);
}

/** Whether it would come back to whom it came from, or around for ever. */
export const isEcho = (
  { id, ignoredActors }: Pick<Subscription, "id" | "ignoredActors">,
  { actor, causedBy, depth }: MessageOrigin,
): boolean => depth >= mostDepth || causedBy === id || (actor !== undefined && ignoredActors?.includes(actor) === true);

/** A payload is parsed once a message, and only where a filter asks for it. */
function lazily<Value>(make: () => Value): () => Value {
  let made: { readonly value: Value } | undefined;
  return () => (made ??= { value: make() }).value;
}
