import fc from "fast-check";
import { pino } from "pino";
import { expect, test } from "vitest";
import type { DeliveryRow, DeliveryUpdate, Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";
import { newDelivery, type Delivery } from "./delivery.ts";
import { Dispatcher } from "./dispatcher.ts";
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
const messageOf = (number: number): Message => ({
  id: `msg_${String(number).padStart(6, "0")}`,
  project: "default",
  event: "E",
  key: String(number),
  position: { commitLsn: BigInt(number), changeLsn: 0n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
});
const delivered: Outcome = { kind: "delivered", status: 200, durationMs: 1 };
const failed: Outcome = { kind: "failed", reason: "status", status: 500, durationMs: 1, response: undefined };

/**
 * A dispatcher between a journal and a receiver that both do what the test says, when it says it: requests are answered, batches
 * committed and refills read in any order.
 */
function createWorld() {
  let nowMs = 0;
  let live: Subscription | undefined = subscription;
  const messages = new Map<string, Message>();
  const rows = new Map<string, DeliveryRow>();
  let recorded: DeliveryUpdate[] = [];
  const sent: { readonly id: string; readonly done: (outcome: Outcome) => void }[] = [];
  const successes = new Map<string, number>();
  let afterDrop = 0;
  const reads: (() => void)[] = [];
  const clock = { nowMs: () => nowMs, monotonicMs: () => nowMs };

  const dispatcher = new Dispatcher({
    sender: {
      send({ message }, done) {
        if (live === undefined) afterDrop++;
        sent.push({ id: message.id, done });
      },
      close: () => Promise.resolve(),
    },
    subscription: () => live,
    retry: { scheduleS: Array.from({ length: 50 }, () => 100), jitter: 0 },
    record: (update) => recorded.push(update),
    async refill(_id, limit, isInMemory) {
      commit();
      const held = dispatcher.heldBy({ subscriptionId: subscription.id });
      const due = [...rows.values()]
        .filter((row) => (row.state === "pending" || row.state === "retrying") && (row.nextAttemptAtMs ?? 0) <= nowMs)
        .toSorted((a, b) => (a.messageId < b.messageId ? -1 : 1))
        .slice(0, limit + held);
      // The statement has read; its answer arrives when the test lets it.
      await new Promise<void>((resolve) => reads.push(resolve));
      const deliveries = due
        .filter((row) => !isInMemory(row.messageId))
        .map((row): Delivery => ({
          message: messages.get(row.messageId)!,
          subscriptionId: row.subscriptionId,
          state: row.state,
          round: row.round,
          attempts: row.attempts,
          hasRow: true,
          nextAttemptAtMs: undefined,
          batch: undefined,
        }));
      return { deliveries, isAll: due.length < limit + held };
    },
    maySend: () => true,
    laneCapacity: 1_000,
    clock,
    log: pino({ level: "silent" }),
  });

  function commit(): void {
    const updates = recorded;
    recorded = [];
    for (const { row, from } of updates) {
      const known = rows.get(row.messageId);
      // What the journal promises: a first row is new, a later one is written only where it still is what the attempt began from.
      if (from === undefined) expect(known).toBeUndefined();
      else if (known?.state !== from.state || known.attempts !== from.attempts) continue;
      rows.set(row.messageId, row);
    }
    dispatcher.journaled(updates);
  }

  return {
    dispatcher,
    commit,
    sent,
    rows,
    successes,
    afterDrop: () => afterDrop,
    add(count: number) {
      const batch = { before: { commitLsn: 0n, changeLsn: 0n, ordinal: 0 }, leastId: "", open: count };
      for (let i = 0; i < count; i++) {
        const message = messageOf(messages.size);
        messages.set(message.id, message);
        dispatcher.add(newDelivery(message, subscription, batch));
      }
    },
    answer(index: number, outcome: Outcome) {
      const [request] = sent.splice(index % Math.max(1, sent.length), 1);
      if (request === undefined) return;
      if (outcome.kind === "delivered") successes.set(request.id, (successes.get(request.id) ?? 0) + 1);
      request.done(outcome);
    },
    async read() {
      reads.shift()?.();
      // The refill goes on in a microtask, and its caller in another.
      for (let i = 0; i < 5; i++) await Promise.resolve();
    },
    /** Retries come due through the journal: they are further away than the dispatcher holds them. */
    async later() {
      nowMs += 100_000;
      dispatcher.wake(subscription.id);
      await Promise.resolve();
    },
    drop() {
      live = undefined;
      dispatcher.changed(subscription.id);
    },
    unfinished: () => [...rows.values()].filter((row) => row.state === "pending" || row.state === "retrying").length,
    total: () => messages.size,
  };
}

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("add"), count: fc.integer({ min: 1, max: 900 }) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("answer"), count: fc.integer({ min: 1, max: 200 }), index: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("fail"), count: fc.integer({ min: 1, max: 20 }), index: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("commit") }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("read") }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("later") }) },
);
type World = ReturnType<typeof createWorld>;
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

async function take(world: World, one: Step): Promise<void> {
  if (one.kind === "add") world.add((one as { count: number }).count);
  else if (one.kind === "answer" || one.kind === "fail") {
    const { count, index } = one as { count: number; index: number };
    for (let i = 0; i < count; i++) world.answer(index + i, one.kind === "fail" ? failed : delivered);
  } else if (one.kind === "commit") world.commit();
  else if (one.kind === "read") await world.read();
  else await world.later();
}

/** Everything is answered, committed and read until nothing moves any more. */
async function drain(world: World): Promise<void> {
  for (let quiet = 0; quiet < 3;) {
    const isBusy = world.sent.length > 0;
    while (world.sent.length > 0) world.answer(0, delivered);
    world.commit();
    await world.read();
    await world.later();
    quiet = isBusy || world.unfinished() > 0 ? 0 : quiet + 1;
  }
}

test("whatever the order of answers, commits and refills: each delivery succeeds exactly once", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const world = createWorld();
      for (const one of steps) await take(world, one);
      await drain(world);
      expect(world.rows.size).toBe(world.total());
      expect(world.unfinished()).toBe(0);
      expect(world.successes.size).toBe(world.total());
      expect([...world.successes.values()].every((count) => count === 1)).toBe(true);
      await world.dispatcher.stop(0);
    }),
    { numRuns: 150 },
  );
});

test("after a deletion no request starts, and what was in memory is canceled", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const world = createWorld();
      for (const one of steps) await take(world, one);
      world.drop();
      for (const one of steps) if (one.kind !== "add") await take(world, one);
      world.commit();
      expect(world.afterDrop()).toBe(0);
      expect(world.dispatcher.heldCount).toBe(0);
      await world.dispatcher.stop(0);
    }),
    { numRuns: 100 },
  );
});
