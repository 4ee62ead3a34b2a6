import { AncrageError, isMissingPartition, isRefusedData } from "../errors.ts";
import { delayOf, faultDelaysMs } from "../delay-of.ts";
import type { Clock } from "../clock.ts";
import { BatchFault, isPassingFault } from "../payload/fault.ts";
import { pause } from "../pause.ts";
import { inPoolTransaction } from "../store/database.ts";
import { deleteLeftRecords } from "../store/backfill.ts";
import { countUnfinished, readLeftLanes } from "../store/job-lane.ts";
import { advanceJob, beginJob, endJob, lockJob, readJob, readOpenJobs, type JobRow } from "../store/jobs.ts";
import { readSubscription } from "../store/subscriptions.ts";
import { createBackfill } from "./backfill.ts";
import { cancelJobDeliveries, createCancel } from "./cancel.ts";
import type { JobInput } from "./input.ts";
import { createPace, giveBack, mostUnfinished, takePace, type Pace } from "./pace.ts";
import { createReplay } from "./replay.ts";
import { createRetry } from "./retry.ts";
import type { Page, Work, WorkDeps } from "./work.ts";

export interface JobRunnerOptions extends Omit<WorkDeps, "stopping"> {
  readonly clock: Clock;
  /** A job was canceled or has failed: nothing of its lane is sent any more. */
  readonly dropLane: (jobId: string) => void;
}

const pollMs = 1_000;
/** A lane that has room is filled within this. */
const roomMs = 100;
/** Where a receiver has taken nothing for ten seconds. A cancellation by another process is heeded within this. */
const mostRoomMs = 1_000;
/** A day is dropped within seconds. */
const againMs = 1_000;
const mostAtOnce = 4;
/** With those that wait for something else: each asks once a second whether it has come. */
const mostRunning = 64;
/** Of a job that makes no deliveries. */
const plainPageCount = 500;

/**
 * Takes on jobs while its process leads: those of one subscription one after another, a few at once.
 *
 * A page is one transaction with the job's own row, and only while the row says that it goes on from there: what a process that was
 * superseded, or did not hear of a cancellation, would still make is rolled back.
 */
export class JobRunner {
  readonly #options: JobRunnerOptions;
  readonly #stopping = new AbortController();
  /** By what must not run twice at once: the subscription that is sent to, or the job. */
  readonly #running = new Map<string, Promise<void>>();
  /** Those of them that wait for something else: capture that stands still, a receiver that takes nothing. They take nobody's turn. */
  readonly #idle = new Set<string>();
  #loop: Promise<void> | undefined;
  /** Whoever pauses. Each leaves when its time is over. */
  readonly #pausing = new Set<() => void>();

  constructor(options: JobRunnerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#loop = this.#run();
  }

  /** A job was made, or canceled: no poll is waited for. */
  wake(): void {
    for (const end of this.#pausing) end();
  }

  /** Idempotent, and safe before `start`. What is under way is gone on with after the next start. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.wake();
    await this.#loop;
    await Promise.all(this.#running.values());
  }

  async #run(): Promise<void> {
    // Not waited for: a receiver that has much of what is left would keep all other jobs waiting.
    const left = this.#clearLeft();
    while (!this.#isStopping) {
      try {
        this.#take(await readOpenJobs(this.#options.db));
      } catch (error) {
        if (!this.#isStopping) this.#options.log.warn({ err: error }, "could not read which jobs wait");
      }
      await this.#pause(pollMs);
    }
    await left;
  }

  /** Of jobs that have ended, when the process that was about to clear up after them ended itself. */
  async #clearLeft(): Promise<void> {
    const { db, log } = this.#options;
    try {
      await this.#patiently(() => deleteLeftRecords(db));
      for (const lane of await readLeftLanes(db)) {
        await this.#patiently(() => cancelJobDeliveries(db, lane, this.#stopping.signal));
        this.#options.dropLane(lane.jobId);
        log.info({ job: lane.jobId }, "what a job left unfinished was canceled");
      }
    } catch (error) {
      if (!this.#isStopping) log.warn({ err: error }, "could not clear up what jobs have left; the next start tries again");
    }
  }

  #take(jobs: readonly JobRow[]): void {
    for (const job of jobs) {
      const place = placeOf(job);
      if (this.#running.size - this.#idle.size >= mostAtOnce || this.#running.has(place)) continue;
      if (isShaped(job) && this.#running.size >= mostRunning) continue;
      const ended = this.#runJob(job).finally(() => {
        this.#running.delete(place);
        this.#idle.delete(place);
        this.wake();
      });
      this.#running.set(place, ended);
    }
  }

  async #runJob(job: JobRow): Promise<void> {
    const { log } = this.#options;
    const work = this.#workOf(job);
    try {
      const isDone = await this.#pages(job, work);
      if (isDone === "stopped") return;
      if (isDone === "done") await this.#end(job, work, { state: "done", error: null });
      else await this.#dropped(job, work);
    } catch (error) {
      if (this.#isStopping) return;
      log.error({ err: error, job: job.id, kind: job.kind }, "a job has failed");
      await this.#fail(job, work, error);
    }
  }

  async #fail(job: JobRow, work: Work, error: unknown): Promise<void> {
    const words = error instanceof AncrageError || !(error instanceof Error) ? String(error) : error.message;
    try {
      await this.#end(job, work, { state: "failed", error: words.replaceAll("\0", "\uFFFD") });
    } catch (second) {
      // The next poll finds it as it was, and it fails again.
      this.#options.log.warn({ err: second, job: job.id }, "could not write down that a job has failed");
    }
  }

  async #end(job: JobRow, work: Work, end: { readonly state: "done" | "failed"; readonly error: string | null }): Promise<void> {
    const isEnded = (await this.#patiently(() => endJob(this.#options.db, job.id, end))) !== undefined;
    // It was canceled in this moment; or it has ended, and only the answer was lost.
    if (!isEnded && (await this.#isCanceled(job))) return await this.#dropped(job, work);
    // Half of what was asked for is not what was asked for: as with a canceled one, whoever wants the rest makes another job.
    if (end.state === "failed") await this.#clear(job, work);
    else await this.#patiently(async () => work.end?.(job));
    this.#options.log.info({ job: job.id, kind: job.kind, state: end.state }, "a job has ended");
  }

  /** It was canceled meanwhile, or another process has gone on with it. */
  async #dropped(job: JobRow, work: Work): Promise<void> {
    if (!(await this.#isCanceled(job))) return;
    await this.#clear(job, work);
    this.#options.log.info({ job: job.id, kind: job.kind }, "a job was canceled");
  }

  async #clear(job: JobRow, work: Work): Promise<void> {
    try {
      await this.#cancelLane(job);
    } finally {
      await this.#patiently(async () => work.end?.(job));
    }
  }

  async #isCanceled(job: JobRow): Promise<boolean> {
    const row = await this.#patiently(() => readJob(this.#options.db, job.id, undefined));
    return row?.state === "canceled";
  }

  /** Ends what a job has made and is not over, in memory and in the journal. */
  async #cancelLane(job: JobRow): Promise<void> {
    const { db, dropLane } = this.#options;
    if (job.subscriptionId === null || !isShaped(job)) return;
    dropLane(job.id);
    const lane = { subscriptionId: job.subscriptionId, jobId: job.id };
    await this.#patiently(() => cancelJobDeliveries(db, lane, this.#stopping.signal));
    // What was read from the journal before its rows were canceled, and came to memory since.
    dropLane(job.id);
  }

  /** All pages of a job, and then what it has made, until nothing of it is pending. */
  async #pages(job: JobRow, work: Work): Promise<"done" | "dropped" | "stopped"> {
    const { db, clock } = this.#options;
    if (job.pages === 0) {
      // Asked before each try: what cannot begin can be canceled all the same.
      const begun = await this.#patiently(async () => ((await this.#isGone(job)) ? undefined : { total: await work.begin(job) }));
      if (begun === undefined || !(await this.#patiently(() => beginJob(db, job, begun.total)))) return "dropped";
    }
    let current = job;
    let pace = createPace((job.input as { readonly ratePerSecond?: number }).ratePerSecond, clock.monotonicMs());
    let most = mostUnfinished;
    let idleFromMs: number | undefined;
    while (!this.#isStopping) {
      const room = isShaped(job) ? await this.#room(current, pace) : { count: plainPageCount, pace };
      if (room === undefined) return this.#isStopping ? "stopped" : "dropped";
      pace = room.pace;
      const asked = Math.min(room.count, most);
      const page = await this.#patiently(() => work.read(current, asked), isMissingPartition);
      if (page.isIdle === true) {
        pace = giveBack(pace, room.count);
        if (await this.#isGone(current)) return "dropped";
        await this.#waitIdle(job, (idleFromMs ??= clock.monotonicMs()));
        continue;
      }
      idleFromMs = undefined;
      this.#idle.delete(placeOf(job));
      const written = await this.#write(current, page, asked);
      if (written === "dropped") return "dropped";
      if (written === "smaller" || written === "again") {
        pace = giveBack(pace, room.count);
        if (written === "smaller") most = 1;
        else await this.#pause(againMs);
        continue;
      }
      if (most < mostUnfinished) most *= 2;
      pace = giveBack(pace, room.count - page.count);
      current = written;
      page.after?.();
      if (page.isLast) return await this.#drain(current);
    }
    return "stopped";
  }

  /**
   * @returns the job after it; `smaller` where PostgreSQL cannot store something in it, and pages of one are to find out what; `again`
   * where the day that it is for has no partition: what it was made of may go with that day, so that it is read anew
   */
  async #write(job: JobRow, page: Page, asked: number): Promise<JobRow | "dropped" | "smaller" | "again"> {
    const { db, log } = this.#options;
    const write = (what: Page["write"]): Promise<JobRow | "dropped"> =>
      inPoolTransaction(db, async (client) => {
        // Before it makes anything: whoever cancels waits for this transaction, and then finds all that it made.
        if (!(await lockJob(client, job))) return "dropped";
        const { done, failed } = await what(client);
        return await advanceJob(client, job.id, { place: page.place, done, failed });
      });
    const { refused } = page;
    try {
      return await this.#patiently(() => write((client) => page.write(client)));
    } catch (error) {
      if (isMissingPartition(error)) {
        log.warn({ err: error, job: job.id }, "a job waits: the day that it writes to has no partition");
        return "again";
      }
      if (refused === undefined || !isRefusedData(error)) throw error;
      if (asked > 1) return "smaller";
      return await this.#patiently(() => write((client) => refused(client, error)));
    }
  }

  /** Waits until the job may make something. @returns undefined where it was canceled, or this process ends */
  async #room(job: JobRow, pace: Pace): Promise<{ readonly count: number; readonly pace: Pace } | undefined> {
    const { db, clock } = this.#options;
    const fromMs = clock.monotonicMs();
    for (let current = pace; !this.#isStopping;) {
      if (await this.#isGone(job)) return undefined;
      const { pending, retrying } = await this.#patiently(() => countUnfinished(db, laneOf(job), mostUnfinished + 1));
      const taken = takePace(current, { nowMs: clock.monotonicMs(), unfinished: pending + retrying });
      if (taken.count > 0) return taken;
      current = taken.pace;
      await this.#waitIdle(job, fromMs);
    }
    return undefined;
  }

  /** Retries go on by their schedule, in days; a job that waited for them would keep the next ones of its subscription waiting. */
  async #drain(job: JobRow): Promise<"done" | "dropped" | "stopped"> {
    const fromMs = this.#options.clock.monotonicMs();
    while (!this.#isStopping) {
      if (await this.#isGone(job)) return "dropped";
      if (!isShaped(job)) return "done";
      const { pending } = await this.#patiently(() => countUnfinished(this.#options.db, laneOf(job), mostUnfinished + 1));
      if (pending === 0) return "done";
      await this.#waitIdle(job, fromMs);
    }
    return "stopped";
  }

  async #isGone(job: JobRow): Promise<boolean> {
    const { db } = this.#options;
    const row = await this.#patiently(() => readJob(db, job.id, undefined));
    if (row === undefined || row.state === "canceled" || row.pages !== job.pages) return true;
    if (job.subscriptionId === null) return false;
    const subscription = await this.#patiently(() => readSubscription(db, job.subscriptionId ?? ""));
    if (subscription === undefined || subscription.state === "deleted")
      throw new AncrageError("ANCRAGE_JOB_REFUSED", `its subscription ${job.subscriptionId} was deleted.`);
    if (subscription.state === "disabled" && isShaped(job)) {
      const why = subscription.stateReason === null ? "" : ` (${subscription.stateReason})`;
      throw new AncrageError("ANCRAGE_JOB_REFUSED", `its subscription ${subscription.id} was disabled${why}: nothing is sent to it.`, {
        hint: "Enable it and make another job. What this one had begun, a replay with again sends.",
      });
    }
    return false;
  }

  #workOf(job: JobRow): Work {
    const deps: WorkDeps = { ...this.#options, stopping: this.#stopping.signal };
    const { kind } = job.input as JobInput;
    switch (kind) {
      case "recover":
      case "replay":
        return createReplay(deps);
      case "backfill":
        return createBackfill(deps);
      case "cancel":
        return createCancel(deps);
      case "retry":
        return createRetry(deps);
      default:
        return kind satisfies never;
    }
  }

  /** What passes by itself is waited out: a job goes on for hours, and a failover is no reason to end it. */
  async #patiently<Result>(work: () => Promise<Result>, alsoPasses: (error: unknown) => boolean = () => false): Promise<Result> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        const isPassing = error instanceof BatchFault || isPassingFault(error) || alsoPasses(error);
        if (this.#isStopping || !isPassing) throw error;
        this.#options.log.warn({ err: error }, "a job waits: the database could not be asked");
        await pause(delayOf(faultDelaysMs, attempt), this.#stopping.signal);
      }
    }
  }

  /** Until the job works on, it takes nobody's turn. The longer it has waited, the less often it asks. */
  async #waitIdle(job: JobRow, fromMs: number): Promise<void> {
    this.#idle.add(placeOf(job));
    const waitedMs = this.#options.clock.monotonicMs() - fromMs;
    await this.#pause(Math.min(mostRoomMs, Math.max(roomMs, waitedMs / 10)));
  }

  /** Less, where it is woken. */
  async #pause(ms: number): Promise<void> {
    if (this.#isStopping) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#pausing.add(resolve);
    await promise;
    this.#pausing.delete(resolve);
    clearTimeout(timer);
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }
}

/** Whether it makes deliveries of one subscription, and so at the rate that its receiver takes them. */
const isShaped = ({ kind }: JobRow): boolean => kind === "recover" || kind === "replay" || kind === "backfill";

/** What must not run twice at once. Whoever cancels deliveries does not wait for what makes them. */
const placeOf = (job: JobRow): string => (isShaped(job) ? (job.subscriptionId ?? job.id) : job.id);

const laneOf = (job: JobRow) => ({ subscriptionId: job.subscriptionId ?? "", jobId: job.id });
