import { isEcho } from "../fan-out.ts";
import type { DeliveryState } from "../message.ts";
import { disorderMs } from "../message-id.ts";
import { readLastBatch, type BatchRow } from "../store/batches.ts";
import type { Queryable } from "../store/database.ts";
import type { JobRow } from "../store/jobs.ts";
import {
  countMeant,
  hasUnsettled,
  insertPendingDeliveries,
  readLeastId,
  readNewestCommitMs,
  scanMessages,
  type ReplayRange,
  type ReplayScan,
} from "../store/replay.ts";
import { readMessages, readMessageSizes } from "../store/resume.ts";
import { readSubscription, type SubscriptionRow } from "../store/subscriptions.ts";
import { takeWithin } from "../take-within.ts";
import { estimate } from "./estimate.ts";
import type { InputOf } from "./input.ts";
import { readFilter } from "./receivers.ts";
import { resend } from "./resend.ts";
import type { Page, Work, WorkDeps } from "./work.ts";

/** Where a page ends: the last message that was looked at. */
type Place = { readonly after: string } | null;

const scanCount = 2_000;
/** Bodies that are read and parsed at once, at most: hundreds of 1 MiB would hold the loop for longer than the lease, or end the process. */
const portionBytes = 4 * 1024 * 1024;
/** Bodies that a page reads, at most: a cancellation is heeded between pages. */
const pageBytes = 8 * portionBytes;

/** Recover and replay: messages of the journal for one subscription, under their ids, with their bytes. */
export function createReplay(deps: WorkDeps): Work {
  const { db, sourceId, passedLsn, wake } = deps;
  return {
    async begin(job) {
      const range = await readRange(db, job);
      return range === undefined ? 0 : await countUpTo(db, range);
    },

    async read(job, limit): Promise<Page> {
      const range = await readRange(db, job);
      // Nobody is there to get it.
      if (range === undefined) return nothing;
      const after = (job.place as Place)?.after ?? "";
      // Before the batch is read: what is in the journal by now is settled by it, or waited for.
      const toId = await readableTo(job, range);
      const last = await readLastBatch(db, sourceId);
      const end = toId === range.toId ? nothing : idle;
      // Nothing was ever journaled.
      if (last === undefined) return end;
      if (await isUnsettled(db, last, toId)) return idle;
      const scan = await scanMessages(db, { ...range, toId }, { after, limit: scanCount, settled: last.settled });
      if (scan.lastId === undefined) return end;
      return pageOf(job, range, await withoutUnwanted(deps, range, cut(scan, limit)), wake);
    },
  };

  /** Where a range ends for now: where no message can come in any more. */
  async function readableTo(job: JobRow, { toId }: ReplayRange): Promise<string> {
    // At the place itself something may have been written that nobody could see then.
    if (passedLsn() > job.lsn) return toId;
    const completeTo = await readLeastId(db, (await readNewestCommitMs(db)) - disorderMs);
    return completeTo < toId ? completeTo : toId;
  }
}

const nothing: Page = { place: null, isLast: true, count: 0, write: async () => ({ done: 0, failed: 0 }) };
const idle: Page = { ...nothing, isLast: false, isIdle: true };

function pageOf(job: JobRow, range: ReplayRange, { lastId, found }: ReplayScan, wake: WorkDeps["wake"]): Page {
  const to = { subscriptionId: range.subscriptionId, project: range.project, jobId: job.id };
  const missing = found.filter(({ isMissing }) => isMissing).map(({ messageId }) => messageId);
  const ended = found.filter(({ isMissing }) => !isMissing).map(({ messageId }) => messageId);
  return {
    place: { after: lastId ?? "" },
    isLast: false,
    count: found.length,
    async write(client) {
      const made = missing.length === 0 ? 0 : await insertPendingDeliveries(client, to, missing);
      const again = ended.length === 0 ? 0 : await resend(client, { ...to, states: range.states }, ended);
      return { done: made + again, failed: 0 };
    },
    after: () => wake(to.subscriptionId, job.id),
  };
}

/** As much of a scan as may be made now. */
function cut({ lastId, found }: ReplayScan, limit: number): ReplayScan {
  if (found.length <= limit) return { lastId, found };
  const taken = found.slice(0, limit);
  return { lastId: taken.at(-1)?.messageId, found: taken };
}

/**
 * Without messages that it never had because it does not want them, or made them happen itself. Where a filter is to be asked of many
 * bytes, the page ends at what was read of them.
 */
async function withoutUnwanted(
  { db, stopping }: Pick<WorkDeps, "db" | "stopping">,
  { subscription, isWanted }: WantedRange,
  { lastId, found }: ReplayScan,
): Promise<ReplayScan> {
  const due = found.filter(({ isMissing, origin }) => !isMissing || origin === undefined || !isEcho(subscription, origin));
  const missing = due.filter(({ isMissing }) => isMissing).map(({ messageId }) => messageId);
  if (isWanted === undefined || missing.length === 0) return { lastId, found: due };
  const sizes = await readMessageSizes(db, missing);
  const asked = takeWithin(sizes, pageBytes);
  const unwanted = new Set<string>();
  for (let left = asked; left.length > 0;) {
    stopping.throwIfAborted();
    const portion = takeWithin(left, portionBytes).map(({ messageId }) => messageId);
    for (const { id, body } of await readMessages(db, portion)) if (!isWanted(body)) unwanted.add(id);
    left = left.slice(portion.length);
  }
  const wanted = due.filter(({ messageId }) => !unwanted.has(messageId));
  const endId = asked.length === sizes.length ? undefined : asked.at(-1)?.messageId;
  if (endId === undefined) return { lastId, found: wanted };
  return { lastId: endId, found: wanted.filter(({ messageId }) => messageId <= endId) };
}

interface WantedRange extends ReplayRange {
  readonly subscription: SubscriptionRow;
  /** By its filter; undefined: all. */
  readonly isWanted: ((body: Buffer) => boolean) | undefined;
}

/** Undefined where there is no such subscription. */
export async function readRange(
  db: Queryable,
  job: Pick<JobRow, "input" | "subscriptionId" | "createdAt">,
): Promise<WantedRange | undefined> {
  const input = job.input as InputOf<"recover" | "replay">;
  const subscription = await readSubscription(db, job.subscriptionId ?? "");
  if (subscription === undefined) return undefined;
  const { project, id: subscriptionId, events } = subscription;
  const isWanted = readFilter(subscription);
  const untilMs = job.createdAt.getTime();
  if (input.kind === "replay") {
    return {
      subscriptionId,
      project,
      subscription,
      isWanted,
      events: input.events,
      fromId: await readLeastId(db, Date.parse(input.from)),
      toId: await readLeastId(db, Math.min(Date.parse(input.to), untilMs)),
      withMissing: true,
      states: input.again ? ended : [],
    };
  }
  // What was committed before it was made never was its own.
  const fromMs = Math.max(Date.parse(input.since), subscription.createdAt.getTime());
  return {
    subscriptionId,
    project,
    subscription,
    isWanted,
    events,
    fromId: await readLeastId(db, fromMs),
    toId: await readLeastId(db, untilMs),
    withMissing: true,
    states: ["exhausted"],
  };
}

/** Null where there are more than are worth counting. */
export async function countUpTo(db: Queryable, range: ReplayRange): Promise<number | null> {
  return await estimate((limit) => countMeant(db, range, limit));
}

/** Whether deliveries of messages before an id may still be in memory, without a row. They have one within about a second. */
export async function isUnsettled(db: Queryable, { settled, unsettledFrom }: BatchRow, toId: string): Promise<boolean> {
  return unsettledFrom !== undefined && (await hasUnsettled(db, { fromId: unsettledFrom, toId, settled }));
}

const ended: readonly DeliveryState[] = ["delivered", "exhausted", "canceled"];
