import { pino } from "pino";
import { expect, test } from "vitest";
import { subscription } from "../test/dispatcher-world.ts";
import type { SubscriptionMark } from "./capture/change.ts";
import { placeSubscriptions } from "./place-subscriptions.ts";
import { createRegistry, unplaced } from "./subscription/registry.ts";

test("a place that was given before a fault is journaled all the same", async () => {
  const registry = createRegistry();
  let faults = 1;
  const refreshSubscription = (id: string): Promise<boolean> => {
    if (id === "b" && faults-- > 0) return Promise.reject(new Error("Connection terminated unexpectedly"));
    registry.put({ ...subscription, id, startLsn: unplaced });
    return Promise.resolve(true);
  };
  const mark = (subscriptionId: string) =>
    ({ kind: "subscription", subscriptionId, revision: 1n, transaction: { commitLsn: 7n } }) as SubscriptionMark;
  const starts = await placeSubscriptions([mark("a"), mark("b")], {
    registry,
    refreshSubscription,
    log: pino({ level: "silent" }),
    stopping: new AbortController().signal,
  });
  expect(starts).toEqual([
    { id: "a", revision: 1n, lsn: 7n },
    { id: "b", revision: 1n, lsn: 7n },
  ]);
});
