import type pg from "pg";
import type { DeliveryState } from "../message.ts";
import { attemptsCopy } from "../store/journal-rows.ts";
import { copyAlone } from "../store/round-trip.ts";
import { beginRound, lockEndedDeliveries, type EndedDelivery } from "../store/replay.ts";

/**
 * Begins another round of deliveries that are over, and in one of these states.
 *
 * A success by schedule has no row among the attempts: the delivery's own tells of it. That is about to tell of another round, so the
 * success gets its row now.
 *
 * @returns how many were begun
 */
export async function resend(
  client: pg.ClientBase,
  of: { readonly subscriptionId: string; readonly jobId: string | undefined; readonly states: readonly DeliveryState[] },
  messageIds: readonly string[],
): Promise<number> {
  const ended = await lockEndedDeliveries(client, of, messageIds);
  const delivered = ended.filter(({ state }) => state === "delivered");
  await copyAlone(client, attemptsCopy(delivered.map((delivery) => successOf(of.subscriptionId, delivery))));
  if (ended.length === 0) return 0;
  return await beginRound(
    client,
    of,
    ended.map(({ messageId }) => messageId),
  );
}

function successOf(subscriptionId: string, { messageId, round, attempts, updatedAt, durationMs, lastStatus }: EndedDelivery) {
  return {
    messageId,
    subscriptionId,
    round,
    number: attempts,
    atMs: updatedAt.getTime() - (durationMs ?? 0),
    status: lastStatus ?? undefined,
    reason: "delivered",
    durationMs: durationMs ?? 0,
    response: undefined,
  };
}
