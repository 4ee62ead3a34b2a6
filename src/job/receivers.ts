import { fanOut } from "../fan-out.ts";
import type { Message } from "../message.ts";
import type { Queryable } from "../store/database.ts";
import { listSubscriptions, type SubscriptionRow } from "../store/subscriptions.ts";
import { holdSubscription } from "../subscription/open.ts";

const mostReceivers = 100_000;

/**
 * The subscriptions that a message of the past goes to, by the rule of all messages: those that were there before it was committed.
 *
 * From the rows and not from the registry: a process that does not lead has none.
 */
export async function readReceivers(db: Queryable, message: Message): Promise<readonly string[]> {
  const rows = await listSubscriptions(db, { project: message.project, event: message.event, limit: mostReceivers });
  // Nothing is sent from here, so that their secrets stay sealed.
  const subscriptions = rows.map((row) => holdSubscription(row));
  return fanOut(message, { of: () => subscriptions }).map(({ id }) => id);
}

/** What a subscription wants of payloads; undefined where it wants all. */
export function readFilter(row: SubscriptionRow): ((body: Buffer) => boolean) | undefined {
  const { filter } = holdSubscription(row);
  return filter === undefined ? undefined : (body) => filter(JSON.parse(body.toString("utf8")));
}
