import type pg from "pg";
import { beginBatch, commitBatch, type BatchRow } from "../store/batches.ts";
import {
  insertAttempts,
  insertDeliveries,
  insertMessages,
  insertRejections,
  updateDeliveries,
  type OutcomeAttempt,
  type WrittenAttempt,
} from "../store/journal-rows.ts";
import { isSmall, mostSmallRows, writeSmallBatch, type SmallBatch } from "../store/small-batch.ts";
import { placeFormerStart, placeSubscription } from "../store/subscription-starts.ts";
import { coalesceUpdates, type Chain } from "./coalesce.ts";
import { deliveryNameOf } from "../message.ts";
import { dayOfMessage, formatDay } from "../message-id.ts";
import type { Batch } from "./journal.ts";

/**
 * One batch, in one transaction. Throws what PostgreSQL answered; the session is then in a failed transaction.
 *
 * @param assertMayCommit called right before a commit is sent; throws where this process must not any more
 */
export async function writeBatch(client: pg.ClientBase, row: BatchRow, batch: Batch, assertMayCommit: () => void): Promise<void> {
  const waves = coalesceUpdates(batch.updates);
  const small = smallBatchOf(batch, waves);
  if (small !== undefined) {
    assertMayCommit();
    return writeSmallBatch(client, row, small);
  }
  await beginBatch(client, row);
  if (batch.messages.length > 0) await insertMessages(client, batch.messages);
  if (batch.rejections.length > 0) await insertRejections(client, batch.rejections);
  const attempts: WrittenAttempt[] = [];
  for (const chains of waves) {
    const isLateOf = await writeDeliveries(client, chains);
    for (const chain of chains) {
      const isLate = isLateOf(chain);
      for (const attempt of attemptsOf(chain)) if (isLate || !attempt.isOnlyIfLate) attempts.push({ ...attempt, isLate });
    }
  }
  if (attempts.length > 0) await insertAttempts(client, attempts);
  for (const start of batch.starts) {
    await placeSubscription(client, start);
    await placeFormerStart(client, start);
  }
  assertMayCommit();
  await commitBatch(client);
}

/** Most batches of a quiet system: some messages, and what came of some deliveries. */
function smallBatchOf({ messages, rejections, starts }: Batch, waves: readonly (readonly Chain[])[]): SmallBatch | undefined {
  // A second wave must find the rows of the first.
  if (rejections.length + starts.length > 0 || waves.length > 1) return undefined;
  const chains = waves[0] ?? [];
  if (messages.length + chains.length > mostSmallRows) return undefined;
  const small = {
    messages,
    deliveries: chains.filter(({ from }) => from === undefined).map(({ row }) => row),
    updates: chains.filter(({ from }) => from !== undefined),
    attempts: chains.flatMap(attemptsOf),
  };
  return isSmall(small) ? small : undefined;
}

/** @returns which of them came too late: something else had happened to the delivery */
async function writeDeliveries(client: pg.ClientBase, chains: readonly Chain[]): Promise<(chain: Chain) => boolean> {
  const first = chains.filter((chain) => chain.from === undefined);
  if (first.length > 0) {
    await insertDeliveries(
      client,
      first.map((chain) => chain.row),
    );
  }
  const later = chains.filter((chain) => chain.from !== undefined);
  const written = new Set<string>();
  for (const [day, ofDay] of Map.groupBy(later, ({ row }) => dayOfMessage(row.messageId))) {
    for (const id of await updateDeliveries(client, formatDay(day), ofDay)) written.add(id);
  }
  return ({ from, row }) => from !== undefined && !written.has(deliveryNameOf(row));
}

/** What the journal keeps of the attempts of one delivery. */
function attemptsOf({ from, updates }: Chain): readonly OutcomeAttempt[] {
  const isLater = from !== undefined;
  return updates.flatMap(({ attempt, row }): readonly OutcomeAttempt[] => {
    if (attempt !== undefined) return [{ ...attempt, isLater, isOnlyIfLate: false }];
    if (!isLater || row.state !== "delivered") return [];
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
        isLater,
        isOnlyIfLate: true,
      },
    ];
  });
}
