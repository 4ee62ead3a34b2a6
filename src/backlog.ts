import type pg from "pg";
import type { Delivery } from "./deliver/delivery.ts";
import type { Dispatcher } from "./deliver/dispatcher.ts";
import type { Refill, RefillRequest } from "./deliver/refiller.ts";
import { createPicking, pickInOrder } from "./deliver/order.ts";
import type { Logger } from "./log.ts";
import type { LaneId } from "./message.ts";
import { pause, repeat } from "./pause.ts";
import {
  cancelDeliveries,
  firstOfLanes,
  readDueDeliveries,
  readDueIds,
  readDueLanes,
  readMessages,
  readWaitingDeliveries,
  type LanePlace,
  type WaitingDelivery,
} from "./store/resume.ts";
import { inPoolTransaction } from "./store/database.ts";
import { cancelLocked, lockUnfinished } from "./store/job-lane.ts";
import { readSubscription } from "./store/subscriptions.ts";
import type { Registry } from "./subscription/registry.ts";
import { takeWithin } from "./take-within.ts";

export interface BacklogOptions {
  /** Of delivery's own: a backlog must not take the sessions that capture reads with. */
  readonly db: pg.Pool;
  readonly registry: Pick<Registry, "get">;
  readonly dispatcher: Pick<Dispatcher, "heldBy" | "isBehind" | "isHeld" | "wake">;
  /** Resolves when all outcomes so far are in the journal. */
  readonly flushed: () => Promise<void>;
  readonly log: Logger;
}

const sweepMs = 5_000;
/** Once a minute a sweep looks for what no lane holds although it has been due for a minute: each sweep before should have woken its lane. */
const lostEvery = 12;
const overdueS = 60;
/** Bodies that one refill reads, at most: hundreds of 1 MiB would be half a gibibyte for each lane. */
const refillBytes = 4 * 1024 * 1024;
/** Of a lane with an order, so many rows are looked at at a time. */
const pageCount = 1_000;
/** Small enough that nobody waits for its rows for long; the pause leaves the disk to others. */
const cancelCount = 1_000;
const cancelPauseMs = 50;

/** Deliveries that wait in the journal only: reads them when there is room or their time has come, and ends those of the deleted. */
export class Backlog {
  readonly #options: BacklogOptions;
  readonly #stopping = new AbortController();
  /** Subscriptions whose deliveries are being canceled, or are to be. */
  readonly #canceling = new Set<string>();
  /** One after another. */
  #cancellations: Promise<void> = Promise.resolve();
  #sweeping: Promise<void> | undefined;

  constructor(options: BacklogOptions) {
    this.#options = options;
  }

  /** Wakes the lanes that have something due, now and from time to time. */
  start(): void {
    let sweeps = 0;
    this.#sweeping = repeat(() => this.sweep(++sweeps % lostEvery === 0), {
      everyMs: sweepMs,
      signal: this.#stopping.signal,
      onFault: (error) => this.#options.log.warn({ err: error }, "could not read which deliveries are due"),
    });
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#sweeping;
    await this.#cancellations;
  }

  /** What `Dispatcher` refills a lane with. */
  async refill(request: RefillRequest): Promise<Refill> {
    const { db, flushed } = this.#options;
    // What overflowed before is read only once it is in the journal.
    await flushed();
    const { lane, order, after, limit, whereIs } = request;
    if (order !== "none") return this.#refillInOrder({ ...request, order });
    const { due, bodiless, lastPlace, isCut } = await readDueDeliveries(db, lane, { after, limit, maxBytes: refillBytes });
    await this.#expire(lane, bodiless);
    const deliveries = due
      .filter(({ message }) => whereIs(message.id) === undefined)
      .map((one): Delivery => ({ ...one, ...lane, hasRow: true, nextAttemptAtMs: undefined, batch: undefined }));
    return { deliveries, isAll: !isCut, readTo: lastPlace ?? after };
  }

  /** Pages of all that is unfinished, by position, until enough may be sent: what waits for its next attempt holds others back. */
  async #refillInOrder({ lane, order, limit, whereIs }: RefillRequest & { readonly order: "record" | "all" }): Promise<Refill> {
    const picking = createPicking();
    const picked: WaitingDelivery[] = [];
    let isEnd = false;
    for (let after = ""; !isEnd && picked.length < limit && !this.#isStopping;) {
      const page = await readWaitingDeliveries(this.#options.db, lane, { after, limit: pageCount });
      const kept = page.flatMap(({ key, ...row }) => (key === null ? [] : [{ ...row, key }]));
      const bodiless = page.filter(({ key }) => key === null).map(({ messageId }) => messageId);
      await this.#expire(lane, bodiless);
      picked.push(...pickInOrder(order, kept, picking, whereIs));
      isEnd = page.length < pageCount || (order === "all" && picking.blocked.size > 0);
      after = page.at(-1)?.place ?? after;
    }
    const taken = takeWithin(picked.slice(0, limit), refillBytes);
    const isAll = isEnd && picking.blocked.size === 0 && taken.length === picked.length;
    return { deliveries: await this.#open(lane, taken), isAll, dueInMs: isAll ? undefined : picking.dueInMs };
  }

  /** Ends what nothing can be sent of any more: its lane would come to it again for ever. */
  async #expire({ subscriptionId }: LaneId, messageIds: readonly string[]): Promise<void> {
    if (messageIds.length === 0) return;
    await inPoolTransaction(this.#options.db, async (client) => {
      const locked = await lockUnfinished(client, subscriptionId, messageIds);
      if (locked.length > 0) await cancelLocked(client, subscriptionId, locked, "expired");
    });
    this.#options.log.warn(
      { subscription: subscriptionId, count: messageIds.length, message: messageIds[0] },
      "deliveries whose messages are no longer kept were canceled as expired",
    );
  }

  async #open(lane: LaneId, taken: readonly WaitingDelivery[]): Promise<readonly Delivery[]> {
    const messages = new Map(
      (
        await readMessages(
          this.#options.db,
          taken.map(({ messageId }) => messageId),
        )
      ).map((one) => [one.id, one]),
    );
    return taken.flatMap(({ messageId, state, round, attempts }) => {
      const message = messages.get(messageId);
      return message === undefined
        ? []
        : [{ message, ...lane, state, round, attempts, hasRow: true, nextAttemptAtMs: undefined, batch: undefined }];
    });
  }

  /** Ends what waits of a deleted subscription, in its own time: nothing of it is sent any more. */
  cancel(subscriptionId: string): void {
    if (this.#canceling.has(subscriptionId)) return;
    this.#canceling.add(subscriptionId);
    this.#cancellations = this.#cancellations.then(() => this.#cancelAll(subscriptionId));
  }

  async #cancelAll(subscriptionId: string): Promise<void> {
    const { db, flushed, log } = this.#options;
    try {
      await flushed();
      for (let after: LanePlace | undefined = firstOfLanes; after !== undefined && !this.#isStopping;) {
        after = await cancelDeliveries(db, { subscriptionId, after, limit: cancelCount });
        if (after !== undefined) await pause(cancelPauseMs, this.#stopping.signal);
      }
    } catch (error) {
      // The sweep comes to them again when they are due.
      if (!this.#isStopping) log.warn({ subscription: subscriptionId, error: String(error) }, "could not cancel what waits");
    } finally {
      this.#canceling.delete(subscriptionId);
    }
  }

  /** Wakes the lanes that have something due which they do not hold. The timer's; and a test's, which does not wait a minute. */
  async sweep(looksForLost: boolean): Promise<void> {
    const { db, registry, dispatcher } = this.#options;
    for (const lane of await readDueLanes(db)) {
      if (this.#isStopping) return;
      const id = lane.subscriptionId;
      const subscription = registry.get(id);
      if (subscription === undefined) {
        // An earlier process had not come to the end of them.
        if ((await readSubscription(db, id))?.state === "deleted") this.cancel(id);
      } else if (subscription.state === "enabled") {
        if (looksForLost) await this.#lookForLost(lane);
        // One that is behind reads on anyhow; it begins anew for what has come to be due meanwhile.
        if (dispatcher.isBehind(lane) || !(await this.#holdsAllDue(lane))) dispatcher.wake(id, lane.jobId);
      }
    }
  }

  /** A lane that is woken for what it holds already goes behind for nothing. */
  async #holdsAllDue(lane: LaneId): Promise<boolean> {
    const { db, dispatcher } = this.#options;
    const held = dispatcher.heldBy(lane);
    if (held === 0) return false;
    const due = await readDueIds(db, lane, { limit: held + 1, overdueS: 0 });
    return due.length <= held && due.every((messageId) => dispatcher.isHeld(lane, messageId));
  }

  /** What has been due for long, in a lane that takes nothing from the journal, and that nobody holds: there is none, or it is a bug. */
  async #lookForLost(lane: LaneId): Promise<void> {
    const { dispatcher, flushed, log } = this.#options;
    const first = await this.#readOverdue(lane);
    if (first.length === 0) return;
    // It may have ended while it was read; then it is gone now.
    await flushed();
    const still = new Set(await this.#readOverdue(lane));
    const lost = first.filter((messageId) => still.has(messageId));
    if (lost.length === 0) return;
    log.error({ ...lane, count: lost.length, message: lost[0] }, "deliveries are due that no lane holds; they are taken up again");
    dispatcher.wake(lane.subscriptionId, lane.jobId);
  }

  async #readOverdue(lane: LaneId): Promise<readonly string[]> {
    const { db, dispatcher } = this.#options;
    if (dispatcher.isBehind(lane)) return [];
    const due = await readDueIds(db, lane, { limit: dispatcher.heldBy(lane) + 1, overdueS });
    return dispatcher.isBehind(lane) ? [] : due.filter((messageId) => !dispatcher.isHeld(lane, messageId));
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }
}
