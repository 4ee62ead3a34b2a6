import fc from "fast-check";
import { expect, test } from "vitest";
import { createWorld, delivered, failed, subscription, type World } from "../../test/dispatcher-world.ts";

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

test("what overflows while a page is read, and stands before the page's end, is read as well", async () => {
  const world = createWorld();
  world.add(1_200, { from: 100 });
  world.commit();
  const answerAll = (): void => {
    while (world.sent.length > 0) world.answer(0, delivered);
    world.commit();
  };
  // A page is being read by now; what it says was read before this one came.
  answerAll();
  world.add(1, { from: 1 });
  for (let i = 0; i < 5; i++) {
    await world.read();
    answerAll();
  }
  expect(world.unfinished()).toBe(0);
  expect(world.successes.size).toBe(1_201);
  await world.dispatcher.stop(0);
});

test("what is canceled while a page is read, which was read before, is not sent", async () => {
  const world = createWorld();
  world.add(1_200);
  world.commit();
  while (world.sent.length > 0) world.answer(0, delivered);
  world.commit();
  const begun = world.starts.length;
  const waiting = [...world.rows].filter(([, row]) => row.state === "pending");
  expect(waiting.length).toBeGreaterThan(100);
  // The journal's rows first, then whoever has them in memory: nobody has.
  const [[kept]] = waiting as [(typeof waiting)[number]];
  for (const [name, row] of waiting) if (name !== kept) world.rows.set(name, { ...row, state: "canceled" });
  world.dispatcher.cancelWhere(({ message }) => `${message.id} ${subscription.id}` !== kept);
  await world.read();
  expect(world.starts.slice(begun).map(({ id }) => `${id} ${subscription.id}`)).toEqual([kept]);
  // Only those: what comes later is sent.
  while (world.sent.length > 0) world.answer(0, delivered);
  world.commit();
  await world.read();
  world.add(1);
  expect(world.sent).toHaveLength(1);
  await world.dispatcher.stop(0);
});
