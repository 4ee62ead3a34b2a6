import { fanOut } from "../fan-out.ts";
import type { Message } from "../message.ts";
import type { Queryable } from "../store/database.ts";
import { listSubscriptionsEver, type SubscriptionRow } from "../store/subscriptions.ts";
import { holdSubscription } from "../subscription/open.ts";
import type { Subscription } from "../subscription/registry.ts";

/**
 * The subscriptions that a message of the past goes to, by the rule of all messages: to each as it was when it was committed.
 *
 * From the rows and not from the registry: a process that does not lead has none, and one that does has forgotten what they were long ago.
 */
export async function readReceivers(db: Queryable, message: Message): Promise<readonly string[]> {
  const { project, event } = message;
  const rows = await listSubscriptionsEver(db, { project, event });
  // Nothing is sent from here, so that their secrets stay sealed.
  const subscriptions = rows.map((row) => holdSubscription(row)).filter((one) => hasEver(one, event));
  return fanOut(message, { of: () => subscriptions }).map(({ id }) => id);
}

/** As the registry answers: one that is disabled, and of whose past nothing is kept, has no event. */
const hasEver = ({ events, former = [] }: Subscription, event: string): boolean =>
  [{ events }, ...former].some((start) => start.events.includes(event));

/** What a subscription wants of payloads; undefined where it wants all. */
export function readFilter(row: SubscriptionRow): ((body: Buffer) => boolean) | undefined {
  const { filter } = holdSubscription(row);
  return filter === undefined ? undefined : (body) => filter(JSON.parse(body.toString("utf8")));
}
