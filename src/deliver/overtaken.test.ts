import { expect, test } from "vitest";
import { createWorld, delivered, failed, subscription, type World } from "../../test/dispatcher-world.ts";
import type { DeliveryRow } from "../message.ts";

/** What people do, and what changes, while something is in flight or a page is being read. */
const unsent = { kind: "unsent", shortage: undefined } as const;

async function settle(world: World): Promise<void> {
  for (let i = 0; i < 6; i++) {
    world.commit();
    await world.read();
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }
}

/** The only row; then what the API writes over it. */
function write(world: World, change: Partial<DeliveryRow>): void {
  const [[name, row] = []] = [...world.rows];
  if (name === undefined || row === undefined) throw new Error("expected a row, found none");
  world.rows.set(name, { ...row, nextAttemptAtMs: undefined, ...change });
}

/** In flight, with its row; canceled by hand. */
async function cancelInFlight(world: World): Promise<void> {
  await settle(world);
  world.add(1);
  await settle(world);
  await world.run(2_000, () => undefined);
  expect(world.sent).toHaveLength(1);
  write(world, { state: "canceled" });
  world.dispatcher.cancelWhere(() => true);
  await settle(world);
}

test.each(["none", "record"] as const)(
  "resent while the attempt before its cancellation is in flight, it is sent after that (order: %s)",
  async (order) => {
    const world = createWorld({ subscriptions: [{ ...subscription, order }], keys: 1 });
    await cancelInFlight(world);
    write(world, { state: "pending", round: 2, attempts: 0 });
    world.dispatcher.added(subscription.id);
    await settle(world);
    await world.run(100, () => undefined);
    expect(world.sent).toHaveLength(1);
    world.answer(0, delivered);
    await settle(world);
    world.add(1);
    await world.run(10_000, (one, nowMs) => (nowMs - one.atMs > 10 ? delivered : undefined));
    expect([...world.rows.values()].map(({ state, round }) => [state, round])).toEqual([
      ["delivered", 2],
      ["delivered", 1],
    ]);
    expect(world.faults).toEqual([]);
  },
);

test.each([
  ["a job", { jobId: "job_1" }, 0],
  ["a resend, in a lane that was forgotten meanwhile", { jobId: undefined }, 11_000],
])("begun again by %s while the attempt before its cancellation is in flight, it waits for that", async (_, change, laterMs) => {
  const world = createWorld();
  await cancelInFlight(world);
  await world.run(laterMs, () => undefined);
  write(world, { state: "pending", round: 2, attempts: 0, ...change });
  world.dispatcher.added(subscription.id, change.jobId);
  await settle(world);
  expect(world.sent).toHaveLength(1);
  world.answer(0, failed);
  await world.run(1_000, (one, nowMs) => (nowMs - one.atMs > 10 ? delivered : undefined));
  expect([...world.rows.values()]).toMatchObject([{ state: "delivered", round: 2 }]);
  expect(world.faults).toEqual([]);
});

test("of a record one is in flight at a time, also where one before it was canceled and then could not be sent", async () => {
  const world = createWorld({ subscriptions: [{ ...subscription, order: "record" }], keys: 1 });
  await settle(world);
  world.add(3);
  await settle(world);
  const [first] = world.sent;
  world.dispatcher.cancelWhere(({ message }) => message.id === first?.id);
  await settle(world);
  expect(world.sent).toHaveLength(2);
  world.answer(0, unsent);
  await settle(world);
  await world.run(500, () => undefined);
  expect(world.sent).toHaveLength(1);
  expect(world.faults).toEqual([]);
});

test("of a record one is in flight at a time, also where order is asked for while two were", async () => {
  const world = createWorld({ keys: 1 });
  world.add(2);
  await settle(world);
  expect(world.sent).toHaveLength(2);
  world.set(subscription.id, { order: "record" });
  await settle(world);
  world.answer(1, unsent);
  await settle(world);
  await world.run(500, () => undefined);
  expect(world.sent).toHaveLength(1);
  expect(world.faults).toEqual([]);
});

test("a page that was read before a pause does not come into memory after it", async () => {
  const world = createWorld();
  world.add(1_200);
  world.commit();
  while (world.sent.length > 0) world.answer(0, delivered);
  world.commit();
  world.set(subscription.id, { state: "paused" });
  await world.read();
  expect(world.dispatcher.heldCount).toBe(0);
});

test("in an order too, what is resent is sent at once although another record waits for hours", async () => {
  const world = createWorld({ subscriptions: [{ ...subscription, order: "record" }], keys: 1_000, scheduleS: [0, 7_200, 7_200] });
  await settle(world);
  world.add(2);
  await settle(world);
  await world.run(5_000, (one) => (one.id.endsWith("0") ? failed : delivered));
  const [name, row] = [...world.rows].find(([, { state }]) => state === "delivered")!;
  world.rows.set(name, { ...row, state: "pending", round: 2, attempts: 0, nextAttemptAtMs: undefined });
  const [sentBefore, fromMs] = [world.starts.length, world.nowMs()];
  world.dispatcher.added(subscription.id);
  while (world.starts.length === sentBefore) await world.run(100, () => undefined);
  expect(world.nowMs() - fromMs).toBeLessThan(1_000);
});

test("another URL is asked at once, whatever the former one had answered", async () => {
  const world = createWorld();
  world.add(2);
  await settle(world);
  world.answer(0, { ...failed, status: 503, retryAfterMs: 86_400_000 });
  world.answer(0, failed);
  await world.run(5_000, () => undefined);
  expect(world.sent).toHaveLength(0);
  world.set(subscription.id, { path: "/elsewhere" });
  world.add(1);
  await settle(world);
  expect(world.sent).toHaveLength(1);
});

test("another URL is asked at once, whatever the former one still answers", async () => {
  const world = createWorld();
  world.add(12);
  await settle(world);
  expect(world.sent.length).toBeGreaterThan(1);
  world.set(subscription.id, { path: "/elsewhere" });
  world.answer(0, { ...failed, status: 503, retryAfterMs: 86_400_000 });
  while (world.sent.some(({ path }) => path === "/"))
    world.answer(
      world.sent.findIndex(({ path }) => path === "/"),
      failed,
    );
  await settle(world);
  await world.run(500, (one) => (one.path === "/elsewhere" ? delivered : undefined));
  world.add(1);
  await world.run(500, (one) => (one.path === "/elsewhere" ? delivered : undefined));
  expect(world.successes.size).toBeGreaterThan(1);
  expect(world.told.filter(({ failures }) => failures > 0)).toEqual([]);
  expect(world.faults).toEqual([]);
});

test("in an order, what is due goes on when there is room again, and not when another record's retry is due in hours", async () => {
  const others = Array.from({ length: 10 }, (_, number) => ({ ...subscription, id: `sub_other${number}` }));
  const world = createWorld({
    subscriptions: [{ ...subscription, order: "record" }, ...others],
    keys: 1_000,
    scheduleS: [0, 7_200, 7_200],
  });
  await settle(world);
  world.add(2, { subscriptionId: subscription.id });
  await settle(world);
  await world.run(5_000, (one) => (one.id.endsWith("0") ? failed : delivered));
  const [name, row] = [...world.rows].find(([, { state }]) => state === "delivered")!;
  world.rows.set(name, { ...row, state: "pending", round: 2, attempts: 0, nextAttemptAtMs: undefined });
  world.dispatcher.added(subscription.id);
  world.pass(100);
  // The page is being read; meanwhile others fill the memory.
  for (const { id } of others) world.add(7, { subscriptionId: id, bytes: 1_048_576 });
  await world.read();
  expect(world.sent.filter(({ subscriptionId }) => subscriptionId === subscription.id)).toHaveLength(0);
  const [sentBefore, fromMs] = [world.starts.length, world.nowMs()];
  const isSent = (): boolean => world.starts.slice(sentBefore).some(({ subscriptionId }) => subscriptionId === subscription.id);
  while (!isSent() && world.nowMs() - fromMs < 10_000)
    await world.run(100, (one) => (one.subscriptionId === subscription.id ? undefined : delivered));
  expect(isSent()).toBe(true);
  expect(world.faults).toEqual([]);
});
