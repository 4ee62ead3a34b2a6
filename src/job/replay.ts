import type { DeliveryState } from "../message.ts";
import { readLastBatch, type BatchRow } from "../store/batches.ts";
import type { Queryable } from "../store/database.ts";
import type { JobRow } from "../store/jobs.ts";
import {
  countMeant,
  hasUnsettled,
  insertPendingDeliveries,
  readLeastId,
  scanMessages,
  type ReplayRange,
  type ReplayScan,
} from "../store/replay.ts";
import { readMessages } from "../store/resume.ts";
import { readSubscription } from "../store/subscriptions.ts";
import { estimate } from "./estimate.ts";
import type { InputOf } from "./input.ts";
import { readFilter } from "./receivers.ts";
import { resend } from "./resend.ts";
import type { Page, Work, WorkDeps } from "./work.ts";

/** Where a page ends: the last message that was looked at. */
type Place = { readonly after: string } | null;

const scanCount = 2_000;

/** Recover and replay: messages of the journal for one subscription, under their ids, with their bytes. */
export function createReplay(deps: WorkDeps): Work {
  const { db, sourceId, wake } = deps;
  return {
    async begin(job) {
      const range = await readRange(db, job);
      return range === undefined ? 0 : await countUpTo(db, range);
    },

    async read(job, limit): Promise<Page> {
      const range = await readRange(db, job);
      const last = await readLastBatch(db, sourceId);
      // Nothing was ever journaled, or nobody is there to get it.
      if (range === undefined || last === undefined) return nothing;
      const after = (job.place as Place)?.after ?? "";
      if (await isUnsettled(db, last, range.toId)) return { ...nothing, isLast: false, isIdle: true };
      const scan = await scanMessages(db, range, { after, limit: scanCount, settled: last.settled });
      return pageOf(job, range, await withoutUnwanted(db, range, cut(scan, limit)), wake);
    },
  };
}

const nothing: Page = { place: null, isLast: true, count: 0, write: async () => ({ done: 0, failed: 0 }) };

function pageOf(job: JobRow, range: ReplayRange, { lastId, found }: ReplayScan, wake: WorkDeps["wake"]): Page {
  const to = { subscriptionId: range.subscriptionId, project: range.project, jobId: job.id };
  const missing = found.filter(({ isMissing }) => isMissing).map(({ messageId }) => messageId);
  const ended = found.filter(({ isMissing }) => !isMissing).map(({ messageId }) => messageId);
  return {
    place: { after: lastId ?? "" },
    isLast: lastId === undefined,
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

/** Messages that it never had because it does not want them. */
async function withoutUnwanted(db: Queryable, { isWanted }: WantedRange, scan: ReplayScan): Promise<ReplayScan> {
  const missing = scan.found.filter(({ isMissing }) => isMissing).map(({ messageId }) => messageId);
  if (isWanted === undefined || missing.length === 0) return scan;
  const unwanted = new Set((await readMessages(db, missing)).filter(({ body }) => !isWanted(body)).map(({ id }) => id));
  return { ...scan, found: scan.found.filter(({ messageId }) => !unwanted.has(messageId)) };
}

interface WantedRange extends ReplayRange {
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
