import { fanOut } from "../fan-out.ts";
import type { BatchInFlight, Message } from "../message.ts";
import type { BatchRow } from "../store/batches.ts";
import type { UnsettledMessage, UnsettledPage } from "../store/resume.ts";
import type { Registry, Subscription } from "../subscription/registry.ts";

const pageSize = 1_000;
/** Handed over at a time: the lease must be renewed between. */
const mostDeliveries = 10_000;

/**
 * The messages between the two marks, fanned out again from the journal: an earlier process had journaled them, and was in the
 * middle of sending them, or had not begun. What has a row already is left out.
 *
 * @param deliver called for each delivery that is owed
 * @returns the batch that waits for the rows of all of them
 */
export async function fanOutUnsettled(options: {
  readonly readPage: (page: UnsettledPage) => Promise<readonly UnsettledMessage[]>;
  readonly last: BatchRow;
  readonly registry: Pick<Registry, "of">;
  readonly deliver: (message: Message, subscription: Subscription, batch: BatchInFlight) => void;
}): Promise<BatchInFlight | undefined> {
  const { readPage, last, registry, deliver } = options;
  const fromId = last.unsettledFrom;
  if (fromId === undefined) return undefined;
  const batch: BatchInFlight = { before: last.settled, leastId: fromId, open: 0 };
  let handed = 0;
  for (let after = ""; ;) {
    const page = await readPage({ fromId, after, settled: last.settled, limit: pageSize });
    for (const { message, delivered } of page) {
      const owed = fanOut(message, registry).filter((subscription) => !delivered.has(subscription.id));
      batch.open += owed.length;
      for (const subscription of owed) deliver(message, subscription, batch);
      handed += owed.length;
      if (handed < mostDeliveries) continue;
      handed = 0;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    const end = page.at(-1);
    if (end === undefined || page.length < pageSize) return batch;
    after = end.message.id;
  }
}
