import type pg from "pg";
import { AncrageError, sqlStateOf } from "../errors.ts";
import type { Catalogue, CatalogueEvent } from "../event/catalogue.ts";
import type { PayloadDeps } from "../payload/build.ts";
import { checkWhere, countRecords } from "../store/backfill.ts";
import { inPoolTransaction } from "../store/database.ts";
import { readDelivery, type DeliveryKey, type FoundDelivery } from "../store/deliveries.ts";
import { countExhausted, countUnfinished } from "../store/job-lane.ts";
import { endJob, insertJob, listJobs, readJob, type JobFilter, type JobRow } from "../store/jobs.ts";
import { readMessage } from "../store/messages.ts";
import { readRejection } from "../store/rejections.ts";
import { readSubscription, readSubscriptionOf, type SubscriptionRow } from "../store/subscriptions.ts";
import { describeUnknownEvent } from "../subscription/check-subscription.ts";
import { cancelJobDeliveries, countCanceled, readCancelRange } from "./cancel.ts";
import { estimate } from "./estimate.ts";
import type { JobInput } from "./input.ts";
import { mostUnfinished } from "./pace.ts";
import { countUpTo, readRange } from "./replay.ts";
import { resend } from "./resend.ts";
import { countRetried, retryRejection, type Retried } from "./retry.ts";

/** A job that is to be made. */
export interface JobRequest {
  /** Whose: undefined where it is of all projects. */
  readonly project: string | undefined;
  readonly subscriptionId: string | undefined;
  readonly input: JobInput;
}

/** A job with what has come of it so far. */
export interface JobStatus {
  readonly job: JobRow;
  /** Deliveries that it made and that are not over, counted up to 500. */
  readonly unfinished: number;
  /** Deliveries that it made and that no receiver took. */
  readonly exhausted: number;
}

/** What is done by hand. `project` undefined means any project; what is another's is undefined, as what is not there. */
export interface JobService {
  /** @throws AncrageError `ANCRAGE_JOB_REFUSED`, `ANCRAGE_TRIGGER_UNKNOWN_EVENT`, `ANCRAGE_VALUE_INVALID` where `where` is no condition */
  create(request: JobRequest): Promise<JobRow | undefined>;
  /** What it would do, counted: null where that is more than is worth counting. */
  count(request: JobRequest): Promise<{ readonly total: number | null } | undefined>;
  list(filter: JobFilter): Promise<readonly JobRow[]>;
  get(id: string, project: string | undefined): Promise<JobStatus | undefined>;
  /** Ends it, and what it made that is not over. @throws AncrageError `ANCRAGE_JOB_REFUSED` where it has ended */
  cancel(id: string, project: string | undefined): Promise<JobRow | undefined>;
  /** Another round of one delivery. @throws AncrageError `ANCRAGE_JOB_REFUSED` */
  resend(key: DeliveryKey, project: string | undefined): Promise<FoundDelivery | undefined>;
  /** Builds one rejection again. */
  retry(rejectionId: string, project: string | undefined): Promise<Retried | undefined>;
}

export interface JobServiceOptions {
  readonly db: pg.Pool;
  readonly catalogue: () => Catalogue;
  readonly payload: PayloadDeps;
  readonly sourceId: () => Promise<string>;
  /** The process that leads takes jobs on; where this is another one, that one finds it within a second. */
  readonly onChanged: () => void;
  readonly wake: (subscriptionId: string) => void;
  readonly unpark: (name: string) => void;
}

export function createJobService(options: JobServiceOptions): JobService {
  const { db, onChanged, wake } = options;
  return {
    async create(request) {
      if (!(await check(request, options))) return undefined;
      const { subscriptionId, input } = request;
      const project = await projectOf(request, db);
      const job = await insertJob(db, { project, kind: input.kind, subscriptionId, input });
      onChanged();
      return job;
    },

    async count(request) {
      if (!(await check(request, options))) return undefined;
      return { total: await countOf(request, options) };
    },

    list: (filter) => listJobs(db, filter),

    async get(id, project) {
      const job = await readJob(db, id, project);
      if (job === undefined) return undefined;
      if (job.subscriptionId === null) return { job, unfinished: 0, exhausted: 0 };
      const { pending, retrying } = await countUnfinished(db, { subscriptionId: job.subscriptionId, jobId: id }, mostUnfinished);
      return { job, unfinished: pending + retrying, exhausted: await countExhausted(db, id) };
    },

    async cancel(id, project) {
      const job = await readJob(db, id, project);
      if (job === undefined) return undefined;
      const canceled = await endJob(db, id, { state: "canceled", error: null });
      if (canceled === undefined) throw refused(`the job ${id} has ended: it is ${job.state}.`);
      // Whoever leads drops what it holds in memory, and hears of it now where it is this process.
      onChanged();
      const { subscriptionId } = job;
      if (subscriptionId !== null) await cancelJobDeliveries(db, { subscriptionId, jobId: id }, AbortSignal.timeout(cancelMs));
      return canceled;
    },

    async resend(key, project) {
      const delivery = await readDelivery(db, key, project);
      if (delivery === undefined) return undefined;
      const subscription = await readSubscription(db, key.subscriptionId);
      if (subscription === undefined || subscription.state === "deleted") {
        throw refused(`the subscription ${key.subscriptionId} was deleted: nothing is sent to it.`);
      }
      refuseDisabled(subscription);
      if (delivery.state === "pending" || delivery.state === "retrying") throw refused(wordsOfOpen(delivery));
      if ((await readMessage(db, key.messageId, undefined)) === undefined) {
        throw refused(
          `the body of ${key.messageId} is no longer kept.`,
          "retention.messagesDays says for how long bodies are; a backfill builds a message anew.",
        );
      }
      const states = ["delivered", "exhausted", "canceled"] as const;
      const count = await inPoolTransaction(db, (client) => resend(client, { ...key, jobId: undefined, states }, [key.messageId]));
      if (count === 0) throw refused(`the delivery was begun again by somebody else just now.`);
      wake(key.subscriptionId);
      return await readDelivery(db, key, project);
    },

    async retry(rejectionId, project) {
      const rejection = await readRejection(db, rejectionId, project);
      if (rejection === undefined) return undefined;
      const sourceId = await options.sourceId();
      return await retryRejection({ ...options, catalogue: options.catalogue(), sourceId }, rejection);
    },
  };
}

/** The leader ends the rest. */
const cancelMs = 5_000;

/** @returns false where its subscription is not there, or another project's */
async function check({ project, subscriptionId, input }: JobRequest, { db, catalogue }: JobServiceOptions): Promise<boolean> {
  // Before its subscription is asked: whoever misspelt it is to be told so, and not that nobody has subscribed to it.
  const { table } = input.kind === "backfill" ? eventOf(input.event, catalogue()) : {};
  if (subscriptionId !== undefined) {
    const subscription = await readSubscriptionOf(db, subscriptionId, project);
    if (subscription === undefined || subscription.state === "deleted") return false;
    if (input.kind !== "cancel") refuseDisabled(subscription);
    if (input.kind === "replay") for (const event of input.events) refuseForeign(event, subscription);
    if (input.kind === "backfill") refuseForeign(input.event, subscription);
  }
  if (input.kind !== "backfill") return true;
  if (table === undefined) {
    throw refused(`the event "${input.event}" has no table: there are no rows that it could be made from.`, "Trigger it instead.");
  }
  if (table.keyColumns.length === 0) throw refused(`the table ${table.name} has no primary key: its rows cannot be told apart.`);
  if (input.where === undefined) return true;
  try {
    await checkWhere(db, table, input.where);
    return true;
  } catch (error) {
    if (!/^(42|22|0A)/.test(sqlStateOf(error) ?? "")) throw error;
    throw new AncrageError("ANCRAGE_VALUE_INVALID", `where is no condition of ${table.name}: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}

async function countOf({ project, subscriptionId, input }: JobRequest, { db, catalogue }: JobServiceOptions): Promise<number | null> {
  const job = { input, subscriptionId: subscriptionId ?? null, project: project ?? null, createdAt: new Date() };
  switch (input.kind) {
    case "recover":
    case "replay": {
      const range = await readRange(db, job);
      return range === undefined ? 0 : await countUpTo(db, range);
    }
    case "cancel":
      return await countCanceled(db, await readCancelRange(db, job));
    case "retry":
      return await countRetried(db, job);
    case "backfill": {
      const { table } = eventOf(input.event, catalogue());
      if (table === undefined) return 0;
      return await estimate((limit) => countRecords(db, table, input.where, limit));
    }
    default:
      return input satisfies never;
  }
}

/** That of its subscription, so that a token of that project sees it. */
async function projectOf({ project, subscriptionId }: JobRequest, db: pg.Pool): Promise<string | undefined> {
  return subscriptionId === undefined ? project : (await readSubscription(db, subscriptionId))?.project;
}

function eventOf(name: string, catalogue: Catalogue): CatalogueEvent {
  const event = catalogue.events.get(name);
  if (event !== undefined) return event;
  const detail = describeUnknownEvent(name, catalogue.events.keys());
  throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", detail.endsWith("?") ? detail : `${detail}.`);
}

function refuseDisabled({ id, state, stateReason }: SubscriptionRow): void {
  if (state !== "disabled") return;
  const why = stateReason === null ? "" : ` (${stateReason})`;
  throw refused(`the subscription ${id} is disabled${why}: nothing is sent to it.`, "Enable it first.");
}

function refuseForeign(event: string, { id, events }: SubscriptionRow): void {
  if (events.includes(event)) return;
  throw refused(`the subscription ${id} is not to ${event}: it has ${events.join(", ")}.`);
}

function wordsOfOpen({ state, nextAttemptAt, attempts }: FoundDelivery): string {
  if (state === "pending") return "the delivery is pending: it is sent by itself.";
  const next = nextAttemptAt === null ? "now" : `at ${nextAttemptAt.toISOString()}`;
  return `the delivery is retrying: ${attempts} attempts have failed, the next is ${next}.`;
}

function refused(message: string, hint?: string): AncrageError {
  return new AncrageError("ANCRAGE_JOB_REFUSED", message, hint === undefined ? {} : { hint });
}
