import type pg from "pg";
import type { DeliveryUpdate } from "../message.ts";
import { beginBatch, commitBatch, type BatchRow } from "../store/batches.ts";
import {
  insertAttempts,
  insertDeliveries,
  insertMessages,
  insertRejections,
  updateDeliveries,
  type WrittenAttempt,
} from "../store/journal-rows.ts";
import { isSmall, writeSmallBatch, type SmallBatch } from "../store/small-batch.ts";
import { placeFormerStart, placeSubscription } from "../store/subscription-starts.ts";
import { coalesceUpdates, type Chain } from "./coalesce.ts";
import { dayOfMessage, formatDay } from "../message-id.ts";
import type { Batch } from "./journal.ts";

/**
 * One batch, in one transaction. Throws what PostgreSQL answered; the session is then in a failed transaction.
 *
 * @param assertMayCommit called right before a commit is sent; throws where this process must not any more
 */
export async function writeBatch(client: pg.ClientBase, row: BatchRow, batch: Batch, assertMayCommit: () => void): Promise<void> {
  const small = smallBatchOf(batch);
  if (small !== undefined) {
    assertMayCommit();
    return writeSmallBatch(client, row, small);
  }
  await beginBatch(client, row);
  if (batch.messages.length > 0) await insertMessages(client, batch.messages);
  if (batch.rejections.length > 0) await insertRejections(client, batch.rejections);
  const attempts: WrittenAttempt[] = [];
  for (const chains of coalesceUpdates(batch.updates)) {
    const isLate = await writeDeliveries(client, chains);
    for (const chain of chains) for (const update of chain.updates) attempts.push(...attemptsOf(update, isLate(chain)));
  }
  if (attempts.length > 0) await insertAttempts(client, attempts);
  for (const start of batch.starts) {
    await placeSubscription(client, start);
    await placeFormerStart(client, start);
  }
  assertMayCommit();
  await commitBatch(client);
}

/** Most batches of a quiet system: messages, and deliveries that succeeded at once. */
function smallBatchOf({ messages, rejections, updates, starts }: Batch): SmallBatch | undefined {
  if (rejections.length + starts.length > 0) return undefined;
  if (updates.some(({ from, attempt }) => from !== undefined || attempt !== undefined)) return undefined;
  const small = { messages, deliveries: updates.map(({ row }) => row) };
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
  return ({ from, row }) => from !== undefined && !written.has(`${row.messageId} ${row.subscriptionId}`);
}

/** Failed attempts; and late ones of either kind, which the delivery's own row says nothing of. */
function attemptsOf({ attempt, row }: DeliveryUpdate, isLate: boolean): readonly WrittenAttempt[] {
  if (attempt !== undefined) return [{ ...attempt, isLate }];
  if (!isLate || row.state !== "delivered") return [];
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
      isLate,
    },
  ];
}
