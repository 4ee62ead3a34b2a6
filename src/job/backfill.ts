import { startOfLog } from "../capture/change.ts";
import { AncrageError } from "../errors.ts";
import type { CatalogueEvent } from "../event/catalogue.ts";
import { askWhere } from "../match.ts";
import type { Message, Rejection } from "../message.ts";
import { computeMessageId, formatDay, rejectionIdOf } from "../message-id.ts";
import { buildApart } from "../payload/build-apart.ts";
import { buildPayloads, type Payload, type PayloadDeps, type PayloadInput } from "../payload/build.ts";
import { BatchFault } from "../payload/fault.ts";
import { describeThrown } from "../payload/describe.ts";
import { readRecords as readRecordsByKey } from "../payload/load.ts";
import { ensurePartitions } from "../store/batches.ts";
import { deleteRecords, insertRecords, readKeys, readRecords } from "../store/backfill.ts";
import type { JobRow } from "../store/jobs.ts";
import { messagesCopy, rejectionsCopy } from "../store/journal-rows.ts";
import { copyAlone } from "../store/round-trip.ts";
import { insertPendingDeliveries } from "../store/replay.ts";
import { readSubscription, type SubscriptionRow } from "../store/subscriptions.ts";
import type { TableInfo } from "../store/tables.ts";
import { askProject, formatBackfilled, inputOf } from "./backfilled.ts";
import type { InputOf } from "./input.ts";
import { readFilter } from "./receivers.ts";
import type { Page, Work, WorkDeps } from "./work.ts";

/** The number of the last record that was built. */
type Place = { readonly after: number } | null;

/**
 * Messages from rows that were there before, for one subscription.
 *
 * What is sent is the record as it is when its turn comes; *which* records is settled by one snapshot at the start. That one is over
 * within seconds: a snapshot that were held until the last page would keep vacuum from the application's tables for hours.
 */
export function createBackfill(deps: WorkDeps): Work {
  const { db, reads, wake, stopping } = deps;
  return {
    async begin(job) {
      const { table } = eventOf(deps, job);
      // What a process before this one had found is found anew: it may have ended in the middle.
      await deleteRecords(db, job.id);
      let count = 0;
      await readKeys(reads, {
        table,
        where: (job.input as InputOf<"backfill">).where,
        async onKeys(keys) {
          await insertRecords(db, job.id, count + 1, keys);
          count += keys.length;
        },
        stopping,
      });
      return count;
    },

    async read(job, limit): Promise<Page> {
      const { event, table } = eventOf(deps, job);
      const after = (job.place as Place)?.after ?? 0;
      const records = await readRecords(db, job.id, { after, limit });
      const subscription = await readSubscription(db, job.subscriptionId ?? "");
      const place = { after: records.at(-1)?.number ?? after };
      if (subscription === undefined || records.length === 0) {
        return { place, isLast: true, count: 0, write: async () => ({ done: 0, failed: 0 }) };
      }
      const { messages, rejections, unplaced, foreign } = await build(deps, { job, event, table, subscription, records });
      const [only] = messages;
      return {
        place,
        isLast: false,
        count: messages.length,
        async write(client) {
          await ensurePartitions(client, dayOf(job));
          await copyAlone(client, messagesCopy(messages));
          await copyAlone(client, rejectionsCopy(rejections));
          const to = { subscriptionId: subscription.id, project: subscription.project, jobId: job.id };
          if (messages.length > 0) {
            await insertPendingDeliveries(
              client,
              to,
              messages.map(({ id }) => id),
            );
          }
          // How many of other projects there are is not this one's to see.
          return { done: records.length - foreign, failed: rejections.length + unplaced };
        },
        after: () => {
          if (messages.length > 0) wake(subscription.id, job.id);
        },
        ...(only === undefined
          ? {}
          : {
              async refused(client, error) {
                const why = { reason: "journal-refused", error: error instanceof Error ? error.message : String(error) };
                await copyAlone(client, rejectionsCopy([rejectionOf(job, only, why)]));
                return { done: 1, failed: 1 };
              },
            }),
      };
    },

    end: async (job) => await deleteRecords(db, job.id),
  };
}

function eventOf({ catalogue }: WorkDeps, job: JobRow): { readonly event: CatalogueEvent; readonly table: TableInfo } {
  const { event: name } = job.input as InputOf<"backfill">;
  const event = catalogue.events.get(name);
  if (event?.table !== undefined) return { event, table: event.table };
  throw new AncrageError(
    "ANCRAGE_JOB_REFUSED",
    event === undefined ? `no file defines the event "${name}" any more.` : `the event "${name}" has no table any more.`,
  );
}

interface Building {
  readonly job: JobRow;
  readonly event: CatalogueEvent;
  readonly table: TableInfo;
  readonly subscription: SubscriptionRow;
  readonly records: readonly { readonly number: number; readonly key: string }[];
}

/**
 * The messages of a page, and what could not become one. Records that are gone, or not meant, are neither; `unplaced` are those of which
 * it cannot be told whose they are, `foreign` those of other projects.
 */
async function build(deps: WorkDeps, { job, event, table, subscription, records }: Building) {
  const keys = records.map(({ key }) => key);
  const found = await readRecordsByKey(deps.payload.readers, table, keys);
  const isWanted = readFilter(subscription);
  const messages: Message[] = [];
  const rejections: Rejection[] = [];
  const inputs: (PayloadInput & { readonly number: number })[] = [];
  let unplaced = 0;
  let foreign = 0;
  for (const { number, key } of records) {
    const record = found.get(key);
    if (record === undefined) continue;
    const identity = identityOf(job, event, key, number, subscription.project);
    if (record instanceof Error) {
      rejections.push(rejectionOf(job, identity, { reason: "record-missing", error: record.message }));
      continue;
    }
    // The project first: what another project's record makes the code throw is not this one's to see.
    const project = askProject(event, record, deps.catalogue);
    if (project instanceof Error) {
      // Not a rejection: that would show a record to this project, which is perhaps not its own.
      deps.log.warn({ err: project, job: job.id, event: event.name, key }, "a backfill passes a record over: its project cannot be told");
      unplaced++;
      continue;
    }
    if (project !== subscription.project) {
      foreign++;
      continue;
    }
    try {
      if (askWhere(event, record)) inputs.push({ ...inputOf(event, key, record), number });
    } catch (error) {
      rejections.push(rejectionOf(job, identity, { reason: "where-threw", error: describeThrown(error, event.file) }));
    }
  }
  // A parked event is built all the same: whoever backfills it wants to see whether it works.
  const payloads = await buildInTime(inputs, { ...deps.payload, catalogue: deps.catalogue });
  for (const [index, { key, number }] of inputs.entries()) {
    const identity = identityOf(job, event, key, number, subscription.project);
    const payload = payloads[index];
    if (payload?.kind === "built") {
      const body = Buffer.from(payload.json, "utf8");
      if (isWanted === undefined || isWanted(body)) messages.push({ ...identity, body, envelopes: {} });
    } else if (payload?.kind === "rejected") rejections.push(rejectionOf(job, identity, payload));
  }
  return { messages, rejections, unplaced, foreign };
}

/** Nobody else waits for a job: what runs out of time is told apart at once. */
async function buildInTime(inputs: readonly PayloadInput[], deps: PayloadDeps): Promise<readonly Payload[]> {
  try {
    return await buildPayloads(inputs, deps);
  } catch (error) {
    if (!(error instanceof BatchFault) || !error.isOfStatement) throw error;
    return await buildApart(inputs, deps);
  }
}

type Identity = Omit<Message, "body" | "envelopes">;

/**
 * The same for a job and a key, whichever process makes it.
 *
 * Its time is the job's. Its position is before all of the log: what is there already was there before whatever happens now, and a
 * start after a crash, which fans out again what is not settled, never comes to it.
 */
function identityOf(job: JobRow, event: CatalogueEvent, key: string, number: number, project: string): Identity {
  const committedAtUs = BigInt(job.createdAt.getTime()) * 1000n;
  const position = { ...startOfLog, changeLsn: job.lsn, ordinal: number };
  const transaction = { xid: 0, commitLsn: job.lsn, committedAtUs };
  const id = computeMessageId({ sourceId: job.id, transaction, position, event: event.name, key });
  return { id, project, event: event.name, key, position, committedAtUs };
}

function rejectionOf(
  job: JobRow,
  { id, project, event, key, position, committedAtUs }: Identity,
  why: { readonly reason: string; readonly error: string },
): Rejection {
  const occurrence = formatBackfilled({ event, key, jobId: job.id, subscriptionId: job.subscriptionId ?? "" });
  return { id: rejectionIdOf(id), project, event, key, position, committedAtUs, reason: why.reason, error: why.error, occurrence };
}

const dayOf = (job: JobRow): string => formatDay(Math.floor(job.createdAt.getTime() / 86_400_000));
