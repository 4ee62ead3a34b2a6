import { expect, test } from "vitest";
import { createWorld, delivered, failed, subscription, type Sent, type World } from "../../test/dispatcher-world.ts";
import type { Subscription } from "../subscription/registry.ts";
import type { Outcome, Unsent } from "./outcome.ts";

/** What receivers do for minutes or days, on a clock that is the test's own. */
const schedule = [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
const timedOut: Outcome = { ...failed, reason: "timeout", status: undefined };
const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const named = (count: number, given: Partial<Subscription> = {}): readonly Subscription[] =>
  Array.from({ length: count }, (_, index) => ({ ...subscription, ...given, id: `sub_${index}` }));
const unsent: Unsent = { kind: "unsent", shortage: "no descriptor" };
/** A receiver that takes some milliseconds. */
const after =
  <Answer extends Outcome | Unsent>(ms: number, outcome: Answer) =>
  (one: Sent, nowMs: number): Answer | undefined =>
    nowMs - one.atMs >= ms ? outcome : undefined;
const startsOf = (world: World, id: string): readonly Sent[] => world.starts.filter((one) => one.subscriptionId === id);
/** How many started in each second since then. */
function perSecond(world: World, fromMs: number): readonly number[] {
  const counts: number[] = [];
  for (const { atMs } of world.starts) {
    if (atMs < fromMs) continue;
    const second = Math.floor((atMs - fromMs) / 1000);
    counts[second] = (counts[second] ?? 0) + 1;
  }
  return Array.from(counts, (count) => count ?? 0);
}

test("after ten failures in a row one probe a step is all that is sent, and only the probe's attempts rise", async () => {
  const world = createWorld({ scheduleS: schedule });
  world.add(100);
  await world.run(20_000, after(50, failed));
  const opened = world.starts.length;
  // Those in flight when it opened, and the probe after five seconds.
  expect(opened).toBeGreaterThanOrEqual(11);
  expect(opened).toBeLessThanOrEqual(20);
  await world.run(5 * minute, after(50, failed), 500);
  expect(world.starts.length).toBe(opened + 1);
  await world.run(30 * minute, after(50, failed), 5_000);
  expect(world.starts.length).toBe(opened + 2);
  const tried = [...world.rows.values()].filter((row) => row.attempts > 0);
  expect(world.rows.size).toBe(100);
  expect(tried.reduce((sum, row) => sum + row.attempts, 0)).toBe(world.starts.length);
  // What waits for hours is in no memory.
  expect(world.dispatcher.heldCount).toBe(0);
});

test("one that comes back is sent no more in a second than 1.5 times what it was sent in the one before", async () => {
  const world = createWorld({ scheduleS: schedule });
  world.add(800);
  await world.run(2 * minute, after(50, failed), 500);
  const backAtMs = world.nowMs();
  const failedSoFar = world.starts.length;
  await world.run(8 * minute, after(1, delivered), 1_000);
  const counts = perSecond(world, backAtMs).filter((_, index, all) => all.slice(0, index + 1).some((count) => count > 0));
  for (let i = 1; i < counts.length; i++) {
    // The bucket's own turn beside it; and no less than what the first second is allowed.
    expect(counts[i] ?? 0).toBeLessThanOrEqual(Math.max(10, 1.5 * (counts[i - 1] ?? 0)) + 2);
  }
  expect(world.successes.size).toBeGreaterThan(800 - failedSoFar);
});

test("a receiver that flaps every thirty seconds gets all in the end, and few attempts are wasted on it", async () => {
  const world = createWorld({ scheduleS: schedule, jitter: 0.2 });
  const flapping = (one: Sent, nowMs: number): Outcome | undefined =>
    after(100, Math.floor(nowMs / 30_000) % 2 === 0 ? failed : delivered)(one, nowMs);
  for (let i = 0; i < 20; i++) {
    world.add(25);
    await world.run(minute, flapping, 100);
  }
  await world.run(4 * hour, flapping, 1_000);
  expect(world.successes.size).toBe(500);
  expect(world.starts.length).toBeLessThan(700);
});

test("a receiver that comes back at a hundredth of its capacity is not overrun", async () => {
  const world = createWorld({ scheduleS: schedule });
  world.add(600);
  await world.run(minute, after(50, failed), 500);
  const downStarts = world.starts.length;
  // It takes five a second, and answers all others with a 503 at once.
  let second = 0;
  let taken = 0;
  const weak = (one: Sent, nowMs: number): Outcome | undefined => {
    if (nowMs - one.atMs < 50) return undefined;
    if (Math.floor(nowMs / 1000) !== second) [second, taken] = [Math.floor(nowMs / 1000), 0];
    return ++taken <= 5 ? delivered : { ...failed, status: 503 };
  };
  await world.run(12 * hour, weak, 250);
  expect(world.successes.size).toBe(600);
  // Half of what is sent it takes, at least.
  expect(world.starts.length - downStarts).toBeLessThan(1_200);
}, 30_000);

test("Retry-After holds the whole lane, and what failed waits for the later of it and its schedule", async () => {
  const world = createWorld({ scheduleS: schedule });
  world.add(20);
  world.answer(0, { ...failed, status: 429, retryAfterMs: 2 * minute });
  const started = world.starts.length;
  // Those that wait for a connection are not written any more.
  expect(world.sent.length).toBeGreaterThan(0);
  expect(world.sent.filter((one) => one.isWanted())).toEqual([]);
  world.add(5);
  await world.run(2 * minute - 1_000, after(50, delivered), 500);
  expect(world.starts.length).toBe(started);
  await world.run(10_000, after(50, delivered), 500);
  expect(world.successes.size).toBe(25);
  expect(world.faults).toEqual([]);
});

test("a 410 and a directive disable at once, with their reasons; what failed waits, and goes on when it is enabled again", async () => {
  for (const [outcome, reason] of [
    [{ ...failed, status: 410, directive: "disable" }, "gone"],
    [{ ...delivered, directive: "disable" }, "asked"],
  ] as const) {
    const world = createWorld({ scheduleS: schedule });
    world.add(10);
    world.answer(0, outcome);
    world.add(10);
    await world.run(minute, after(50, delivered), 500);
    expect(world.disabled).toMatchObject([{ id: "sub_1", reason, status: outcome.status }]);
    expect(world.faults).toEqual([]);
    expect(world.dispatcher.heldCount).toBe(0);
    world.set("sub_1", { state: "enabled" });
    await world.run(10 * minute, after(50, delivered), 500);
    expect(world.successes.size).toBe(20);
  }
});

test("five days with no success disable; a success a day does not; and its health is told when it changes, else once a minute", async () => {
  const dead = createWorld({ scheduleS: schedule });
  dead.add(40);
  await dead.run(5 * day - 6 * hour, after(50, failed), 2 * minute);
  expect(dead.disabled).toEqual([]);
  await dead.run(2 * day, after(50, failed), 2 * minute);
  expect(dead.disabled).toMatchObject([{ id: "sub_1", reason: "failing", status: 500 }]);
  expect(dead.told[0]).toMatchObject({ failures: 1 });
  expect(dead.told.at(-1)?.failures).toBeGreaterThanOrEqual(10);

  const weak = createWorld({ scheduleS: schedule });
  for (let i = 0; i < 8; i++) {
    weak.add(20);
    await weak.run(day - hour, after(50, failed), 5 * minute);
    await weak.run(hour * 25, after(50, delivered), 5 * minute);
  }
  expect(weak.disabled).toEqual([]);
  expect(weak.told.filter(({ failures }) => failures === 0).length).toBeGreaterThan(1);
}, 30_000);

test("a start remembers a receiver that was down: it is probed once", async () => {
  const world = createWorld({ scheduleS: schedule, initialHealth: { firstFailureAtMs: -3_000_000, failures: 25 } });
  world.add(50);
  expect(world.starts.length).toBe(1);
  await world.run(minute, after(50, failed), 500);
  expect(world.starts.length).toBe(1);
});

test("limits: so many at a time, so many in a second", async () => {
  const world = createWorld({ subscriptions: [{ ...subscription, limits: { inFlight: 3, perSecond: 20 } }] });
  world.add(200);
  let most = 0;
  await world.run(
    9_000,
    (one, nowMs) => {
      most = Math.max(most, world.sent.length);
      return after(20, delivered)(one, nowMs);
    },
    10,
  );
  expect(most).toBeLessThanOrEqual(3);
  for (const count of perSecond(world, 1_000)) expect(count).toBeLessThanOrEqual(21);
  expect(world.starts.length).toBeGreaterThan(150);
});

test("an origin's connections are shared out in turn among a thousand subscriptions", () => {
  const world = createWorld({ subscriptions: named(1_000), connectionsPerOrigin: 10 });
  world.add(3);
  for (let i = 0; i < 2_000; i++) world.answer(0, delivered);
  const counts = new Map<string, number>();
  for (const { subscriptionId } of world.starts) counts.set(subscriptionId, (counts.get(subscriptionId) ?? 0) + 1);
  expect(world.faults).toEqual([]);
  expect(counts.size).toBe(1_000);
  expect(Math.max(...counts.values()) - Math.min(...counts.values())).toBeLessThanOrEqual(1);
});

test("ten that hang to the deadline hold two connections each, and the healthy one beside them has the others", async () => {
  const all = named(11);
  const world = createWorld({ subscriptions: all, connectionsPerOrigin: 32, scheduleS: [0, 1, 1, 1, 1, 1, 1, 1, 1, 1] });
  const receiver = (one: Sent, nowMs: number): Outcome | undefined =>
    one.subscriptionId === "sub_0" ? after(10, delivered)(one, nowMs) : after(15_000, timedOut)(one, nowMs);
  world.add(30);
  await world.run(20_000, receiver);
  for (let i = 0; i < 20; i++) {
    world.add(40);
    await world.run(500, receiver, 10);
    const hanging = world.sent.filter(({ subscriptionId }) => subscriptionId !== "sub_0");
    expect(hanging.length).toBeLessThanOrEqual(20);
  }
  // All of its own, within a step of the simulation.
  expect(startsOf(world, "sub_0").length).toBe(30 + 20 * 40);
  expect(world.faults).toEqual([]);
});

test("a job's lane has a quarter of the window, and yields its turn to what happens now", async () => {
  const world = createWorld({ connectionsPerOrigin: 4 });
  world.add(50, { jobId: "job_1" });
  expect(world.sent.length).toBe(1);
  await world.run(1_000, after(50, delivered));
  world.add(8);
  const before = world.starts.length;
  world.answer(0, delivered);
  world.answer(0, delivered);
  world.answer(0, delivered);
  for (const { id } of world.starts.slice(before)) expect(Number(id.slice(4))).toBeGreaterThanOrEqual(50);
  await world.run(minute, after(50, delivered));
  expect(world.successes.size).toBe(58);
});

test("where memory is short the slow give theirs back to the journal, and the fast one goes on in memory", async () => {
  const all = named(4).map((one, index) => ({ ...one, origin: `http://localhost:${index}` }));
  const world = createWorld({ subscriptions: all });
  const receiver = (one: Sent, nowMs: number): Outcome | undefined =>
    one.subscriptionId === "sub_0" ? after(10, delivered)(one, nowMs) : undefined;
  for (const id of ["sub_1", "sub_2", "sub_3"]) world.add(400, { subscriptionId: id, bytes: 64 * 1024 });
  await world.run(5_000, receiver);
  for (let i = 0; i < 20; i++) {
    world.add(150, { subscriptionId: "sub_0", bytes: 64 * 1024 });
    await world.run(500, receiver, 10);
  }
  expect(startsOf(world, "sub_0").length).toBe(3_000);
  // Never a row before its outcome: it was not refused, and so not read back.
  const rows = [...world.rows.values()].filter(({ subscriptionId }) => subscriptionId === "sub_0");
  expect(rows.every(({ state }) => state === "delivered")).toBe(true);
  expect(world.dispatcher.isBehind({ subscriptionId: "sub_0" })).toBe(false);
  // The others' wait in the journal, whole.
  expect(world.unfinished()).toBe(1_200);
}, 30_000);

test("five thousand subscriptions need no lane each, and no timer each", async () => {
  const all = named(5_000);
  const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const before = timers();
  const world = createWorld({ subscriptions: all, connectionsPerOrigin: 256, scheduleS: [0, 30, 30] });
  world.add(1);
  for (let i = 0; world.sent.length > 0; i++) world.answer(0, i % 10 === 0 ? failed : delivered);
  // Five hundred wait for their next attempt.
  expect(world.dispatcher.heldCount).toBe(500);
  expect(timers() - before).toBeLessThanOrEqual(1);
  await world.run(31_000, after(1, delivered), 1_000);
  await world.run(22_000, after(1, delivered), 1_000);
  expect(world.successes.size).toBe(5_000);
  expect(world.dispatcher.laneCount).toBe(0);
}, 60_000);

test.each(["none", "record", "all"] as const)(
  "for want of a descriptor nothing is an attempt: no breaker opens, and all goes out once there is one again (order: %s)",
  async (order) => {
    const world = createWorld({ scheduleS: schedule, keys: 10, subscriptions: named(1, { order }) });
    world.add(30);
    await world.run(10 * minute, after(1, unsent), 250);
    // Each one of its window, and no more than one a second of each.
    expect(world.starts.length).toBeLessThan(64 * 10 * 60);
    expect(world.starts.length).toBeGreaterThan(60);
    expect(world.told).toEqual([]);
    expect(world.dispatcher.shortage).toBe("no descriptor");
    await world.run(10_000, after(1, delivered));
    expect(world.successes.size).toBe(30);
    expect([...world.rows.values()].map(({ state, attempts }) => `${state} ${attempts}`)).toEqual(
      Array.from({ length: 30 }, () => "delivered 1"),
    );
    expect(world.faults).toEqual([]);
    await world.run(minute, after(1, delivered), 1_000);
    expect(world.dispatcher.shortage).toBeUndefined();
  },
);

test("a receiver that is down stays so for as long as a machine has no descriptor to probe it with", async () => {
  const world = createWorld({ scheduleS: schedule });
  world.add(20);
  await world.run(20_000, after(50, failed));
  const opened = world.starts.length;
  const told = world.told.length;
  await world.run(2 * minute, after(1, unsent), 500);
  // One probe at a time, and nobody hears of it.
  expect(world.starts.length - opened).toBeLessThanOrEqual(2 * 60);
  expect(world.told).toHaveLength(told);
  await world.run(10 * minute, after(50, delivered), 500);
  expect(world.starts.length).toBeGreaterThan(opened);
  expect(world.successes.size).toBe(20);
});

test("what may not be sent when its turn for a connection comes, the lease having run out, is no attempt, and is sent later", async () => {
  const world = createWorld({ scheduleS: schedule });
  world.add(4);
  for (const one of world.sent.slice()) world.answer(world.sent.indexOf(one), { kind: "unsent", shortage: undefined });
  expect(world.told).toEqual([]);
  await world.run(5_000, after(1, delivered));
  expect([...world.rows.values()].map(({ state, attempts }) => `${state} ${attempts}`)).toEqual(
    Array.from({ length: 4 }, () => "delivered 1"),
  );
  expect(world.dispatcher.shortage).toBeUndefined();
  expect(world.faults).toEqual([]);
});

test("an order that changes while an attempt is under way holds what comes after it back all the same", async () => {
  const world = createWorld({ subscriptions: [{ ...subscription, order: "record" }], keys: 1, scheduleS: [0, 1, 1] });
  world.commit();
  await world.read();
  world.add(3);
  await world.run(200, () => undefined);
  expect(world.sent.length).toBe(1);
  world.set(subscription.id, { order: "all" });
  await world.run(200, () => undefined);
  world.answer(0, failed);
  await world.run(20_000, after(1, delivered));
  expect(world.faults).toEqual([]);
  expect(world.successes.size).toBe(3);
  expect(world.dispatcher.heldCount).toBe(0);
});
