import type pg from "pg";
import { commitBatch, insertBatchSql, type BatchRow } from "../store/batches.ts";
import { attemptsCopy, deliveriesCopy, messagesCopy, rejectionsCopy } from "../store/journal-rows.ts";
import { outcomesSql, type LaterAttempt } from "../store/outcomes.ts";
import { RoundTrip } from "../store/round-trip.ts";
import { placeFormerStart, placeSubscription } from "../store/subscription-starts.ts";
import { coalesceUpdates, type Chain } from "./coalesce.ts";
import type { Batch } from "./journal.ts";

/** The rows of more than this may be long under way: whether this process may commit is looked at after them. */
const mostBytes = 1024 * 1024;

/**
 * One batch, in one transaction and, but for a large one, in one round trip. Throws what PostgreSQL answered; the session is then in a
 * failed transaction.
 *
 * @param assertMayCommit called right before a commit is sent; throws where this process must not any more
 */
export async function writeBatch(client: pg.ClientBase, row: BatchRow, batch: Batch, assertMayCommit: () => void): Promise<void> {
  const trip = new RoundTrip();
  trip.add("begin", "BEGIN");
  trip.add(insertBatchSql(row), "INSERT 0 1");
  trip.copy(messagesCopy(batch.messages));
  trip.copy(rejectionsCopy(batch.rejections));
  for (const chains of coalesceUpdates(batch.updates)) addDeliveries(trip, chains);
  if (batch.starts.length === 0 && trip.bytes <= mostBytes) {
    assertMayCommit();
    trip.add("commit", "COMMIT");
    return trip.run(client);
  }
  await trip.run(client);
  for (const start of batch.starts) {
    await placeSubscription(client, start);
    await placeFormerStart(client, start);
  }
  assertMayCommit();
  await commitBatch(client);
}

/** What came of deliveries of which no two are one. */
function addDeliveries(trip: RoundTrip, chains: readonly Chain[]): void {
  const first = chains.filter(({ from }) => from === undefined);
  trip.copy(deliveriesCopy(first.map(({ row }) => row)));
  trip.copy(attemptsCopy(first.flatMap(({ updates }) => updates.flatMap(({ attempt }) => attempt ?? []))));
  const later = chains.filter(({ from }) => from !== undefined);
  if (later.length === 0) return;
  const tried = later.flatMap(attemptsOf);
  const certain = tried.filter(({ isOnlyIfLate }) => !isOnlyIfLate).length;
  trip.add(outcomesSql(later, tried), { fewest: certain, most: tried.length });
}

/** What the journal keeps of the attempts of a delivery that has a row. */
function attemptsOf({ updates }: Chain): readonly LaterAttempt[] {
  return updates.flatMap(({ attempt, row }): readonly LaterAttempt[] => {
    if (attempt !== undefined) return [{ ...attempt, isOnlyIfLate: false }];
    if (row.state !== "delivered") return [];
    return [
      {
        messageId: row.messageId,
        subscriptionId: row.subscriptionId,
        round: row.round,
        number: row.attempts,
        atMs: row.updatedAtMs - (row.durationMs ?? 0),
        status: row.lastStatus,
        reason: "delivered",
        durationMs: row.durationMs ?? 0,
        response: undefined,
        isOnlyIfLate: true,
      },
    ];
  });
}
