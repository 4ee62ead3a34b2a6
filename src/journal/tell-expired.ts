import type pg from "pg";
import type { Clock } from "../clock.ts";
import { emitOperational, isOperationalEvent } from "../event/operational.ts";
import { readProjectsOfEvent } from "../store/subscriptions.ts";
import type { Expired } from "./retention.ts";

/** Tells a project that has subscribed to it of deliveries that ended as expired. */
export async function tellExpired(
  client: pg.ClientBase,
  { subscriptionId, deliveries }: Pick<Expired, "subscriptionId" | "deliveries">,
  clock: Pick<Clock, "nowMs">,
): Promise<void> {
  // Of what Ancrage itself has to tell nothing is told: it would go round for ever.
  const told = deliveries.filter(({ event }) => event === null || !isOperationalEvent(event));
  const ids = told.map(({ messageId }) => messageId).toSorted();
  const [fromMessageId, project] = [ids[0], told[0]?.project];
  const toMessageId = ids.at(-1);
  if (fromMessageId === undefined || toMessageId === undefined || project === undefined) return;
  if (!(await readProjectsOfEvent(client, "delivery.expired")).includes(project)) return;
  const at = new Date(clock.nowMs()).toISOString();
  await emitOperational(client, "delivery.expired", subscriptionId, {
    project,
    subscriptionId,
    deliveries: told.length,
    fromMessageId,
    toMessageId,
    at,
  });
}
