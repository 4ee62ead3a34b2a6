import fc from "fast-check";
import { pino } from "pino";
import { expect, test } from "vitest";
import type { DeliveryRow, DeliveryUpdate, Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";
import type { Health } from "./breaker.ts";
import { newDelivery, type Delivery } from "./delivery.ts";
import { Dispatcher, type DisableReason } from "./dispatcher.ts";
import { createPicking, orderKeyOf, pickInOrder } from "./order.ts";
import type { Outcome } from "./outcome.ts";

const subscription: Subscription = {
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
  id: `msg_${String(number).padStart(6, "0")}`,
  project: "default",
  event: "E",
  key: String(number % keys),
  position: { commitLsn: BigInt(number), changeLsn: 0n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
});
const delivered = { kind: "delivered", status: 200, durationMs: 1 } satisfies Outcome;
const failed = { kind: "failed", reason: "status", status: 500, durationMs: 1, response: undefined } satisfies Outcome;
const isUnfinished = (row: DeliveryRow): boolean => row.state === "pending" || row.state === "retrying";

interface WorldOptions {
  readonly subscriptions?: readonly Subscription[];
  readonly scheduleS?: readonly number[];
  readonly connectionsPerOrigin?: number;
  /** How many records the messages are about. */
  readonly keys?: number;
  readonly initialHealth?: Health;
}

interface Sent {
  readonly id: string;
  readonly subscriptionId: string;
  readonly atMs: number;
  readonly number: number;
  readonly isWanted: () => boolean;
  readonly done: (outcome: Outcome) => void;
}

/**
 * A dispatcher between a journal and a receiver that both do what the test says, when it says it: requests are answered, batches
 * committed and refills read in any order. It watches that nothing is sent which must not be.
 */
function createWorld(options: WorldOptions = {}) {
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
  const disabled: (DisableReason & { readonly id: string })[] = [];
  const told: Health[] = [];
  const unfinished = new Map<string, Map<string, Message>>();
  const heldUntil = new Map<string, number>();
  const reads: (() => void)[] = [];
  const clock = { nowMs: () => nowMs, monotonicMs: () => nowMs };
  const orderOf = (id: string): "none" | "record" | "all" => live.get(id)?.order ?? "none";

  const watchStart = (subscriptionId: string, message: Message): void => {
    const subscriber = live.get(subscriptionId);
    if (subscriber?.state !== "enabled") faults.push(`${message.id} was sent to one that is not enabled`);
    if (disabled.some(({ id }) => id === subscriptionId)) faults.push(`${message.id} was sent to one that wants nothing`);
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
      send({ message, subscription: { id: subscriptionId }, number, isWanted }, done) {
        watchStart(subscriptionId, message);
        const one = { id: message.id, subscriptionId, atMs: nowMs, number, isWanted, done };
        sent.push(one);
        starts.push(one);
      },
      close: () => Promise.resolve(),
    },
    subscription: (id) => live.get(id),
    retry: { scheduleS: options.scheduleS ?? Array.from({ length: 500 }, (_, index) => (index % 3 === 1 ? 1 : 100)), jitter: 0 },
    record(update) {
      recorded.push(update);
      const { messageId, subscriptionId, state } = update.row;
      if (state !== "pending" && state !== "retrying") unfinished.get(subscriptionId)?.delete(messageId);
    },
    async refill({ lane, order, limit, whereIs }) {
      commit();
      const held = dispatcher.heldBy(lane);
      const all = [...rows.values()]
        .filter((row) => row.subscriptionId === lane.subscriptionId && row.jobId === lane.jobId && isUnfinished(row))
        .toSorted((a, b) => (a.messageId < b.messageId ? -1 : 1));
      const due = all.filter((row) => (row.nextAttemptAtMs ?? 0) <= nowMs).slice(0, limit + held);
      const waiting = all.map((row) => ({ ...row, key: messages.get(row.messageId)!.key, dueInMs: (row.nextAttemptAtMs ?? 0) - nowMs }));
      // The statement has read; its answer arrives when the test lets it.
      await new Promise<void>((resolve) => reads.push(resolve));
      const picking = createPicking();
      const taken =
        order === "none"
          ? due.filter((row) => whereIs(row.messageId) === undefined)
          : pickInOrder(order, waiting, picking, whereIs).slice(0, limit);
      const isAll = order === "none" ? due.length < limit + held : picking.blocked.size === 0 && taken.length < limit;
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
      return { deliveries, isAll, dueInMs: order === "none" ? undefined : picking.dueInMs };
    },
    maySend: () => true,
    onDisable: (id, why) => disabled.push({ id, ...why }),
    onHealth: (_, health) => told.push(health),
    initialHealth: () => options.initialHealth,
    connectionsPerOrigin,
    laneCapacity: 1_000,
    clock,
    log: pino({ level: "silent" }),
    random: () => 0.5,
  });

  function commit(): void {
    const updates = recorded;
    recorded = [];
    for (const { row, from } of updates) {
      const name = `${row.messageId} ${row.subscriptionId}`;
      const known = rows.get(name);
      // What the journal promises: a first row is new, a later one is written only where it still is what the attempt began from.
      if (from === undefined) expect(known).toBeUndefined();
      else if (known?.state !== from.state || known.attempts !== from.attempts) continue;
      rows.set(name, row);
    }
    dispatcher.journaled(updates);
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
    add(count: number, jobId?: string) {
      const batch = { before: { commitLsn: 0n, changeLsn: 0n, ordinal: 0 }, leastId: "", open: count };
      for (let i = 0; i < count; i++) {
        const message = messageOf(messages.size, keys);
        messages.set(message.id, message);
        for (const subscriber of live.values()) {
          const all = unfinished.get(subscriber.id) ?? new Map<string, Message>();
          unfinished.set(subscriber.id, all.set(message.id, message));
          dispatcher.add({ ...newDelivery(message, subscriber, batch), jobId });
        }
      }
    },
    answer(index: number, outcome: Outcome) {
      const [request] = sent.splice(index % Math.max(1, sent.length), 1);
      if (request === undefined) return;
      const { id, subscriptionId } = request;
      if (outcome.kind === "delivered") successes.set(`${id} ${subscriptionId}`, (successes.get(`${id} ${subscriptionId}`) ?? 0) + 1);
      else if (outcome.retryAfterMs !== undefined) heldUntil.set(subscriptionId, nowMs + outcome.retryAfterMs);
      request.done(outcome);
    },
    /** Answers all that is in flight, and what starts on that, for as long as `outcomeOf` has an answer. */
    answerAll(outcomeOf: (one: Sent) => Outcome | undefined) {
      for (let left = 0; left < sent.length;) {
        const one = sent[left];
        const outcome = one === undefined ? undefined : outcomeOf(one);
        if (outcome === undefined) left++;
        else world.answer(left, outcome);
      }
    },
    async read() {
      reads.shift()?.();
      // The refill goes on in a microtask, and its caller in another.
      for (let i = 0; i < 8; i++) await Promise.resolve();
    },
    async settle() {
      for (let i = 0; i < 4; i++) {
        commit();
        await world.read();
      }
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
      if (change?.state === "enabled") disabled.splice(0, disabled.length, ...disabled.filter((one) => one.id !== id));
      dispatcher.changed(id);
    },
    unfinished: () => [...rows.values()].filter(isUnfinished).length,
    total: () => messages.size * subscriptions.length,
  };
  return world;
}

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("add"), count: fc.integer({ min: 1, max: 900 }) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("answer"), count: fc.integer({ min: 1, max: 200 }), index: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("fail"), count: fc.integer({ min: 1, max: 20 }), index: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("commit") }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("read") }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("later"), count: fc.constantFrom(300, 1_000, 5_000, 100_000) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("hold"), count: fc.constantFrom(1, 2_000, 90_000), index: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("disable"), index: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("pause") }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("enable") }) },
);
type World = ReturnType<typeof createWorld>;
interface Step {
  readonly kind: string;
  readonly count?: number;
  readonly index?: number;
}

async function take(world: World, { kind, count = 1, index = 0 }: Step): Promise<void> {
  if (kind === "add") world.add(count);
  else if (kind === "answer") for (let i = 0; i < count; i++) world.answer(index + i, delivered);
  else if (kind === "fail") for (let i = 0; i < count; i++) world.answer(index + i, failed);
  else if (kind === "hold") world.answer(index, { ...failed, status: 429, retryAfterMs: count });
  else if (kind === "disable") world.answer(index, { ...failed, status: 410, directive: "disable" });
  else if (kind === "pause") world.set(subscription.id, { state: "paused" });
  else if (kind === "enable") world.set(subscription.id, { state: "enabled" });
  else if (kind === "commit") world.commit();
  else if (kind === "read") await world.read();
  else await world.later(count);
}

/** Everything is answered, committed and read until nothing moves any more. */
async function drain(world: World): Promise<void> {
  for (const one of world.disabled) world.set(one.id, { state: "enabled" });
  world.set(subscription.id, { state: "enabled" });
  for (let quiet = 0; quiet < 4;) {
    const isBusy = world.sent.length > 0;
    while (world.sent.length > 0) world.answer(0, delivered);
    world.commit();
    await world.read();
    await world.later(100_000);
    quiet = isBusy || world.unfinished() > 0 ? 0 : quiet + 1;
  }
}

async function runsWhole(world: World, steps: readonly Step[]): Promise<void> {
  for (const one of steps) await take(world, one);
  await drain(world);
  expect(world.faults).toEqual([]);
  expect(world.rows.size).toBe(world.total());
  expect(world.unfinished()).toBe(0);
  expect(world.successes.size).toBe(world.total());
  expect([...world.successes.values()].every((count) => count === 1)).toBe(true);
  expect(world.dispatcher.heldCount).toBe(0);
  await world.dispatcher.stop(0);
}

test("whatever the order of answers, commits, refills, pauses and waits: each delivery succeeds exactly once, and nothing is sent that must not be", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), (steps) => runsWhole(createWorld(), steps)),
    { numRuns: 60 },
  );
});

test.each(["record", "all"] as const)("order %s: nothing is sent before what comes before it is over, whatever happens", async (order) => {
  const few = step.filter(({ kind }) => kind !== "add");
  const add = fc.record({ kind: fc.constant("add"), count: fc.integer({ min: 1, max: 40 }) });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof({ weight: 1, arbitrary: add }, { weight: 3, arbitrary: few }), { maxLength: 50 }), (steps) =>
      runsWhole(createWorld({ subscriptions: [{ ...subscription, order }], keys: 7 }), steps),
    ),
    { numRuns: 150 },
  );
});

test("after a deletion no request starts, and what was in memory is canceled", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const world = createWorld();
      for (const one of steps) await take(world, one);
      const before = world.starts.length;
      world.set(subscription.id, undefined);
      for (const one of steps) if (one.kind !== "add") await take(world, one);
      world.commit();
      expect(world.starts.length).toBe(before);
      expect(world.dispatcher.heldCount).toBe(0);
      await world.dispatcher.stop(0);
    }),
    { numRuns: 40 },
  );
});
