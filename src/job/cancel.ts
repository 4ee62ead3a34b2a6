import type pg from "pg";
import { pause } from "../pause.ts";
import { readLastBatch } from "../store/batches.ts";
import { inPoolTransaction, type Queryable } from "../store/database.ts";
import type { DeliveryKey } from "../store/deliveries.ts";
import {
  cancelLocked,
  countUnfinished,
  countUnfinishedIn,
  lockLane,
  lockUnfinished,
  scanUnfinished,
  type CancelRange,
  type UnfinishedPlace,
} from "../store/job-lane.ts";
import type { JobRow } from "../store/jobs.ts";
import { readLeastId } from "../store/replay.ts";
import { estimate } from "./estimate.ts";
import type { InputOf } from "./input.ts";
import { isUnsettled } from "./replay.ts";
import type { Page, Work, WorkDeps } from "./work.ts";

const pageCount = 1_000;
const firstPlace: UnfinishedPlace = { subscriptionId: "", jobId: "", place: "" };

/** Where a page ended, and what the pass has found by then. */
interface Place {
  readonly after: UnfinishedPlace;
  readonly found: number;
  /** All that is meant was in the journal, with its rows, when the pass began: what it does not find is not there. */
  readonly isWhole: boolean;
}

/**
 * Ends deliveries that are not over, in the order of their lanes.
 *
 * Those that the journal has in its hands are passed over, and what was committed before may not have come to it yet: so it looks again
 * until a pass that began with all of it finds none.
 */
export function createCancel({ db, sourceId, passedLsn, onCanceled }: WorkDeps): Work {
  const isWholeNow = async (job: JobRow, range: CancelRange): Promise<boolean> => {
    // At the place itself something may have been written that nobody could see then.
    if (passedLsn() <= job.lsn) return false;
    const last = await readLastBatch(db, sourceId);
    return last === undefined || !(await isUnsettled(db, last, range.toId));
  };

  return {
    begin: async (job) => await countCanceled(db, await readCancelRange(db, job)),

    async read(job): Promise<Page> {
      const range = await readCancelRange(db, job);
      const { after, found, isWhole } = (job.place as Place | null) ?? {
        after: firstPlace,
        found: 0,
        isWhole: await isWholeNow(job, range),
      };
      const page = await scanUnfinished(db, range, { after, limit: pageCount });
      const canceled: DeliveryKey[] = [];
      const isEnd = page.last === undefined;
      const place: Place | null = isEnd ? null : { after: page.last, found: found + page.found.length, isWhole };
      return {
        place,
        isLast: isEnd && found === 0 && isWhole,
        // Nothing is there yet that it could end.
        isIdle: isEnd && found === 0 && !isWhole,
        count: page.found.length,
        async write(client) {
          for (const [subscriptionId, keys] of Map.groupBy(page.found, (key) => key.subscriptionId)) {
            const locked = await lockUnfinished(
              client,
              subscriptionId,
              keys.map(({ messageId }) => messageId),
            );
            if (locked.length > 0) await cancelLocked(client, subscriptionId, locked);
            canceled.push(...locked.map((messageId) => ({ messageId, subscriptionId })));
          }
          return { done: canceled.length, failed: 0 };
        },
        after: () => onCanceled(canceled),
      };
    },
  };
}

export async function readCancelRange(
  db: Queryable,
  job: Pick<JobRow, "input" | "subscriptionId" | "project" | "createdAt">,
): Promise<CancelRange> {
  const { event, from, to } = job.input as InputOf<"cancel">;
  return {
    project: job.project ?? undefined,
    subscriptionId: job.subscriptionId ?? undefined,
    event,
    fromId: await readLeastId(db, Date.parse(from)),
    toId: await readLeastId(db, Math.min(Date.parse(to), job.createdAt.getTime())),
  };
}

/** Null where there are more than are worth counting. */
export async function countCanceled(db: Queryable, range: CancelRange): Promise<number | null> {
  return await estimate((limit) => countUnfinishedIn(db, range, limit));
}

/** Ends what a job has made and is not over, once its row says that it was canceled: until then it may make more. */
export async function cancelJobDeliveries(
  pool: pg.Pool,
  lane: { readonly subscriptionId: string; readonly jobId: string },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const count = await inPoolTransaction(pool, async (client) => {
      const ids = await lockLane(client, lane, pageCount);
      if (ids.length > 0) await cancelLocked(client, lane.subscriptionId, ids);
      return ids.length;
    });
    if (count > 0) continue;
    const { pending, retrying } = await countUnfinished(pool, lane, 1);
    if (pending + retrying === 0) return;
    // The journal has them in its hands.
    await pause(heldMs, signal);
  }
}

const heldMs = 20;
