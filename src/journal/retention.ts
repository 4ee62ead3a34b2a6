import type pg from "pg";
import { sqlStateOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import { pause, repeat } from "../pause.ts";
import { deleteLeftRecords } from "../store/backfill.ts";
import { ensurePartitions } from "../store/batches.ts";
import { connectClient, inPoolTransaction } from "../store/database.ts";
import type { DeliveryKey } from "../store/deliveries.ts";
import {
  detachConcurrently,
  dropPartition,
  expireDeliveries,
  hasUnfinishedOfDay,
  lockUnfinishedOfDay,
  ownsTables,
  readPartitions,
  type OverdueDelivery,
  type Partition,
} from "../store/retention.ts";
import { dropEndedJobs } from "../store/jobs.ts";
import { dropPassedStarts } from "../store/subscription-starts.ts";
import { addDays, computeExpired, type RetentionDays } from "./expired.ts";

export interface RetentionOptions extends RetentionDays {
  readonly db: pg.Pool;
  /** For the one session that detaches. */
  readonly connectionString: string;
  /** How long it waits for statements that were there before; they hold nothing else up meanwhile. @default 30000 */
  readonly detachTimeoutMs?: number;
  /** Rows of these were ended: what is in memory of them is not sent any more. */
  readonly onCanceled: (deliveries: readonly DeliveryKey[]) => void;
  /** Deliveries of a subscription that ended unfinished, of messages of one day. In the transaction that ended them. */
  readonly onExpired?: (client: pg.ClientBase, expired: Expired) => Promise<void>;
  readonly log: Logger;
}

export interface Expired {
  readonly subscriptionId: string;
  /** `2026-11-24` */
  readonly day: string;
  readonly deliveries: readonly OverdueDelivery[];
}

/** What came of one look. */
export interface Kept {
  readonly dropped: readonly string[];
  /** What somebody held on to; the next look comes to it. */
  readonly left: readonly string[];
  readonly expired: number;
}

const lookMs = 3_600_000;
const daysAhead = 2;
const expireCount = 1_000;
/** The journal may have some of them in its hands for a moment. */
const heldMs = 50;
const mostHeldTurns = 100;
/** Without a right to detach concurrently the whole table waits with us: for so long at most, so often. */
const dropTurns = 20;
const dropPauseMs = 500;

/**
 * Makes partitions ahead and drops those that are over, once an hour. What was not delivered by then ends as `expired`, and is told.
 */
export class Retention {
  readonly #options: RetentionOptions;
  readonly #stopping = new AbortController();
  #looking: Promise<void> | undefined;
  /** The session that detaches, while it does: it may wait for long, and an end must not. */
  #detaching: pg.Client | undefined;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  start(): void {
    this.#looking = repeat(async () => void (await this.look()), {
      everyMs: lookMs,
      signal: this.#stopping.signal,
      onFault: (error) => this.#options.log.warn({ err: error }, "could not look after the journal's days; the next look is in an hour"),
    });
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#detaching?.end().catch(() => undefined);
    await this.#looking;
  }

  /** One look. Two processes that look at once, while the lead changes, do the same things twice, which harms nothing. */
  async look(): Promise<Kept> {
    const { db, log } = this.#options;
    const { today, partitions } = await readPartitions(db);
    for (let ahead = 0; ahead <= daysAhead; ahead++) await ensurePartitions(db, addDays(today, ahead));
    const over = computeExpired(partitions, today, this.#options);
    const dropped: string[] = [];
    const left: string[] = [];
    let expired = 0;
    for (const [day, ofDay] of Map.groupBy(over, (partition) => partition.day)) {
      if (this.#isStopping) break;
      const isThere = partitions.some((one) => one.parent === "deliveries" && one.day === day && one.state === "attached");
      const { count, isAll } = isThere ? await this.expire(day) : { count: 0, isAll: true };
      expired += count;
      for (const partition of ofDay) {
        const name = `${partition.parent} ${day}`;
        const isDropped = isAll && (await this.#drop(partition));
        (isDropped ? dropped : left).push(name);
      }
    }
    // Of jobs that were canceled in the moment in which the lead changed.
    await deleteLeftRecords(db);
    await dropEndedJobs(db, Math.max(this.#options.messagesDays, this.#options.deliveriesDays));
    // Days are whole: a rejection may be a day older than they say.
    await dropPassedStarts(db, this.#options.messagesDays + 1);
    if (dropped.length > 0) log.info({ dropped, expired }, "days of the journal are over and were dropped");
    if (left.length > 0) log.warn({ left }, "days of the journal are over and could not be dropped now: somebody reads them");
    return { dropped, left, expired };
  }

  /** Ends what is unfinished of one day, `2026-11-24`. A body that goes while it is owed to somebody goes in silence else. */
  async expire(day: string): Promise<{ readonly count: number; readonly isAll: boolean }> {
    const { db, log, onCanceled, onExpired } = this.#options;
    let count = 0;
    for (let held = 0; held < mostHeldTurns && !this.#isStopping;) {
      const keys = await inPoolTransaction(db, async (client) => {
        const locked = await lockUnfinishedOfDay(client, day, expireCount);
        if (locked.length === 0) return locked;
        await expireDeliveries(client, day, locked);
        for (const [subscriptionId, its] of Map.groupBy(locked, (key) => key.subscriptionId)) {
          await onExpired?.(client, { subscriptionId, day, deliveries: its });
        }
        return locked;
      });
      count += keys.length;
      if (keys.length > 0) onCanceled(keys);
      for (const [subscription, its] of Map.groupBy(keys, (key) => key.subscriptionId)) {
        log.warn({ subscription, day, count: its.length }, "deliveries have expired: their messages are no longer kept");
      }
      if (keys.length > 0) continue;
      if (!(await hasUnfinishedOfDay(db, day))) return { count, isAll: true };
      held++;
      await pause(heldMs, this.#stopping.signal);
    }
    return { count, isAll: false };
  }

  /** @returns whether it is gone */
  async #drop(partition: Partition): Promise<boolean> {
    const { db, connectionString, detachTimeoutMs = 30_000 } = this.#options;
    if (partition.state !== "detached" && (await ownsTables(db))) {
      const client = await connectClient({
        connectionString,
        applicationName: "ancrage retention",
        settings: { lock_timeout: String(detachTimeoutMs), statement_timeout: "0" },
      });
      // Whatever waits on it is told by its statement.
      client.on("error", () => undefined);
      this.#detaching = client;
      try {
        if (!this.#isStopping) await detachConcurrently(client, partition);
      } catch (error) {
        if (isHeldUp(error)) return false;
        throw error;
      } finally {
        this.#detaching = undefined;
        await client.end().catch(() => undefined);
      }
    }
    for (let turn = 0; turn < dropTurns && !this.#isStopping; turn++) {
      try {
        await dropPartition(db, partition);
        return true;
      } catch (error) {
        if (!isHeldUp(error)) throw error;
        await pause(dropPauseMs, this.#stopping.signal);
      }
    }
    return false;
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }
}

/** A lock that was not to be had in time, a deadlock, or a statement that was ended for its time. */
const isHeldUp = (error: unknown): boolean => ["55P03", "40P01", "57014"].includes(sqlStateOf(error) ?? "");
