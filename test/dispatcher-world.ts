import { placeOfMessage } from "../src/message-id.ts";
import { pino } from "pino";
import { createRandom } from "./e2e/random.ts";
import { expect } from "vitest";
import type { DeliveryRow, DeliveryUpdate, Message } from "../src/message.ts";
import type { Subscription } from "../src/subscription/registry.ts";
import type { Health } from "../src/subscription/health.ts";
import { newDelivery, type Delivery } from "../src/deliver/delivery.ts";
import { Dispatcher, type DisableRequest } from "../src/deliver/dispatcher.ts";
import { createPicking, orderKeyOf, pickInOrder } from "../src/deliver/order.ts";
import type { Outcome, Unsent } from "../src/deliver/outcome.ts";

export const subscription: Subscription = {
  id: "sub_1",
  project: "default",
  events: ["E"],
  origin: "http://localhost",
  path: "/",
  format: "bare",
  keys: [],
  revision: 1n,
  startLsn: 0n,
  state: "enabled",
};
const messageOf = (number: number, keys: number): Message => ({
  // Ten digits of time, then where it stands.
  id: `msg_${"0".repeat(10)}${String(number).padStart(6, "0")}`,
  project: "default",
  event: "E",
  key: String(number % keys),
  position: { commitLsn: BigInt(number), changeLsn: 0n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
});
export const delivered = { kind: "delivered", status: 200, durationMs: 1 } satisfies Outcome;
export const failed = { kind: "failed", reason: "status", status: 500, durationMs: 1, response: undefined } satisfies Outcome;
const isUnfinished = (row: DeliveryRow): boolean => row.state === "pending" || row.state === "retrying";

export interface WorldOptions {
  readonly subscriptions?: readonly Subscription[];
  readonly scheduleS?: readonly number[];
  /** Default 0: then the times of retries are what the schedule says. */
  readonly jitter?: number;
  readonly connectionsPerOrigin?: number;
  /** How many records the messages are about. */
  readonly keys?: number;
  readonly initialHealth?: Health;
}

export interface Sent {
  readonly id: string;
  readonly subscriptionId: string;
  readonly path: string;
  readonly atMs: number;
  readonly number: number;
  readonly isWanted: () => boolean;
  readonly done: (outcome: Outcome | Unsent) => void;
}

/**
 * A dispatcher between a journal and a receiver that both do what the test says, when it says it: requests are answered, batches
 * committed and refills read in any order. It watches that nothing is sent which must not be.
 */
export function createWorld(options: WorldOptions = {}) {
  const { subscriptions = [subscription], keys = 1_000_000, connectionsPerOrigin = 1_000 } = options;
  let nowMs = 1_000;
  const live = new Map(subscriptions.map((one) => [one.id, one]));
  const messages = new Map<string, Message>();
  const rows = new Map<string, DeliveryRow>();
  let recorded: DeliveryUpdate[] = [];
  const sent: Sent[] = [];
  const starts: Sent[] = [];
  const successes = new Map<string, number>();
  /** What must not have happened. */
  const faults: string[] = [];
  const disabled: (DisableRequest & { readonly id: string })[] = [];
  const told: Health[] = [];
  const unfinished = new Map<string, Map<string, Message>>();
  const heldUntil = new Map<string, number>();
  const reads: (() => void)[] = [];
  const clock = { nowMs: () => nowMs, monotonicMs: () => nowMs };
  const orderOf = (id: string): "none" | "record" | "all" => live.get(id)?.order ?? "none";

  const watchStart = (subscriptionId: string, message: Message): void => {
    const subscriber = live.get(subscriptionId);
    if (subscriber?.state !== "enabled") faults.push(`${message.id} was sent to one that is not enabled`);
    // What it answered to an earlier revision says nothing of this one.
    if (disabled.some(({ id, revision }) => id === subscriptionId && revision >= (subscriber?.revision ?? 0n)))
      faults.push(`${message.id} was sent to one that wants nothing`);
    if ((heldUntil.get(subscriptionId) ?? 0) > nowMs) faults.push(`${message.id} was sent before Retry-After had passed`);
    if (sent.some((one) => one.id === message.id && one.subscriptionId === subscriptionId))
      faults.push(`${message.id} was sent twice at once`);
    if (sent.length >= connectionsPerOrigin) faults.push("more are in flight than there are connections");
    const order = orderOf(subscriptionId);
    if (order === "none") return;
    for (const earlier of unfinished.get(subscriptionId)?.values() ?? []) {
      if (earlier.position.commitLsn >= message.position.commitLsn) continue;
      if (orderKeyOf(order, earlier.key) === orderKeyOf(order, message.key)) faults.push(`${message.id} was sent before ${earlier.id}`);
    }
  };

  const dispatcher: Dispatcher = new Dispatcher({
    sender: {
      send({ message, subscription: { id: subscriptionId, path }, number, isWanted }, done) {
        watchStart(subscriptionId, message);
        const one = { id: message.id, subscriptionId, path, atMs: nowMs, number, isWanted, done };
        sent.push(one);
        starts.push(one);
      },
      close: () => Promise.resolve(),
    },
    subscription: (id) => live.get(id),
    retry: {
      scheduleS: options.scheduleS ?? Array.from({ length: 500 }, (_, index) => (index % 3 === 1 ? 1 : 100)),
      jitter: options.jitter ?? 0,
    },
    record(update) {
      recorded.push(update);
      const { messageId, subscriptionId, state } = update.row;
      if (state !== "pending" && state !== "retrying") unfinished.get(subscriptionId)?.delete(messageId);
    },
    async refill({ lane, order, after, limit, whereIs }) {
      commit();
      const all = [...rows.values()]
        .filter((row) => row.subscriptionId === lane.subscriptionId && row.jobId === lane.jobId && isUnfinished(row))
        .toSorted((a, b) => (a.messageId < b.messageId ? -1 : 1));
      const due = all.filter((row) => (row.nextAttemptAtMs ?? 0) <= nowMs && placeOfMessage(row.messageId) > after).slice(0, limit);
      const waiting = all.map((row) => ({ ...row, key: messages.get(row.messageId)!.key, dueInMs: (row.nextAttemptAtMs ?? 0) - nowMs }));
      // The statement has read; its answer arrives when the test lets it.
      await new Promise<void>((resolve) => reads.push(resolve));
      const picking = createPicking();
      const taken =
        order === "none"
          ? due.filter((row) => whereIs(row.messageId) === undefined)
          : pickInOrder(order, waiting, picking, whereIs).slice(0, limit);
      const isAll = order === "none" ? due.length < limit : picking.blocked.size === 0 && taken.length < limit;
      const deliveries = taken.map((row): Delivery => ({
        message: messages.get(row.messageId)!,
        subscriptionId: row.subscriptionId,
        jobId: row.jobId,
        state: row.state,
        round: row.round,
        attempts: row.attempts,
        hasRow: true,
        nextAttemptAtMs: undefined,
        batch: undefined,
      }));
      const last = due.at(-1);
      const readTo = last === undefined ? after : placeOfMessage(last.messageId);
      return { deliveries, isAll, readTo, dueInMs: order === "none" ? undefined : picking.dueInMs };
    },
    maySend: () => true,
    onDisable: (id, why) => disabled.push({ id, ...why }),
    onHealth: (_, health) => told.push(health),
    initialHealth: () => options.initialHealth,
    connectionsPerOrigin,
    laneCapacity: 1_000,
    clock,
    log: pino({ level: "silent" }),
    random: options.jitter === undefined ? () => 0.5 : createRandom(7).next,
  });

  function commit(): void {
    const updates = recorded;
    recorded = [];
    for (const { row, from } of updates) {
      const name = `${row.messageId} ${row.subscriptionId}`;
      const known = rows.get(name);
      // What the journal promises: a first row is new, a later one is written only where it still is what the attempt began from.
      if (from === undefined) expect(known).toBeUndefined();
      else if (known?.state !== from.state || known.attempts !== from.attempts || known.round !== row.round) continue;
      rows.set(name, row);
    }
    dispatcher.journaled(updates);
  }

  /** What the sweep finds: one row a lane. */
  function dueRows(): readonly DeliveryRow[] {
    const found = new Map<string, DeliveryRow>();
    for (const row of rows.values()) {
      if (isUnfinished(row) && (row.nextAttemptAtMs ?? 0) <= nowMs && !dispatcher.isHeld(row, row.messageId))
        found.set(`${row.subscriptionId} ${row.jobId ?? ""}`, row);
    }
    return [...found.values()];
  }

  const world = {
    dispatcher,
    commit,
    sent,
    starts,
    rows,
    successes,
    faults,
    disabled,
    told,
    nowMs: () => nowMs,
    /** Messages for all of them, or for one. */
    add(
      count: number,
      to: { readonly subscriptionId?: string; readonly jobId?: string; readonly bytes?: number; readonly from?: number } = {},
    ) {
      const { subscriptionId, jobId, bytes, from = messages.size } = to;
      const batch = { before: { commitLsn: 0n, changeLsn: 0n, ordinal: 0 }, leastId: "", open: count };
      for (let i = 0; i < count; i++) {
        const plain = messageOf(from + i, keys);
        const message = bytes === undefined ? plain : { ...plain, body: Buffer.allocUnsafe(bytes) };
        messages.set(message.id, message);
        for (const subscriber of live.values()) {
          if (subscriptionId !== undefined && subscriber.id !== subscriptionId) continue;
          const all = unfinished.get(subscriber.id) ?? new Map<string, Message>();
          unfinished.set(subscriber.id, all.set(message.id, message));
          dispatcher.add({ ...newDelivery(message, subscriber, batch), jobId });
        }
      }
    },
    answer(index: number, outcome: Outcome | Unsent) {
      const [request] = sent.splice(index % Math.max(1, sent.length), 1);
      if (request === undefined) return;
      const { id, subscriptionId, path } = request;
      if (outcome.kind === "delivered") successes.set(`${id} ${subscriptionId}`, (successes.get(`${id} ${subscriptionId}`) ?? 0) + 1);
      else if (outcome.kind === "failed" && outcome.retryAfterMs !== undefined && live.get(subscriptionId)?.path === path)
        heldUntil.set(subscriptionId, nowMs + outcome.retryAfterMs);
      request.done(outcome);
    },
    /**
     * Lets time pass in steps; a receiver answers what has been in flight for as long as it takes.
     *
     * @param outcomeOf undefined: not yet
     */
    async run(ms: number, outcomeOf: (one: Sent, nowMs: number) => Outcome | Unsent | undefined, stepMs = 50) {
      for (const endMs = nowMs + ms; nowMs < endMs;) {
        // Fine while something moves: a rate must not be limited by the steps of the test.
        const isMoving = nowMs - (starts.at(-1)?.atMs ?? 0) < 2_000;
        const beforeMs = nowMs;
        nowMs += isMoving ? Math.min(stepMs, 20) : stepMs;
        for (const one of sent.slice()) {
          const outcome = outcomeOf(one, nowMs);
          if (outcome !== undefined) world.answer(sent.indexOf(one), outcome);
        }
        dispatcher.tick();
        commit();
        await world.read();
        if (Math.floor(nowMs / 5_000) !== Math.floor(beforeMs / 5_000))
          for (const row of dueRows()) dispatcher.wake(row.subscriptionId, row.jobId);
      }
    },
    async read() {
      reads.shift()?.();
      // The refill goes on in a microtask, and its caller in another.
      for (let i = 0; i < 8; i++) await Promise.resolve();
    },
    /** Time passes, and nothing is answered: what is read by then is on its way. */
    pass(ms: number) {
      nowMs += ms;
      dispatcher.tick();
    },
    /** Time passes, and the sweep wakes what is due. */
    async later(ms: number) {
      nowMs += ms;
      dispatcher.tick();
      for (const id of live.keys()) dispatcher.wake(id);
      await Promise.resolve();
    },
    set(id: string, change: Partial<Subscription> | undefined) {
      const known = live.get(id);
      if (change === undefined) live.delete(id);
      else if (known !== undefined) live.set(id, { ...known, ...change, revision: known.revision + 1n });
      if (change?.state === "enabled" && disabled.some((one) => one.id === id)) heldUntil.delete(id);
      if (change?.state === "enabled") disabled.splice(0, disabled.length, ...disabled.filter((one) => one.id !== id));
      const isElsewhere = change?.path !== undefined;
      if (isElsewhere) heldUntil.delete(id);
      dispatcher.changed(id, isElsewhere);
    },
    unfinished: () => [...rows.values()].filter(isUnfinished).length,
    total: () => messages.size * subscriptions.length,
  };
  return world;
}

export type World = ReturnType<typeof createWorld>;
