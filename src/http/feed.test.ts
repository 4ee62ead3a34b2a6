import { expect, test } from "vitest";
import { nextReach, type ReachState } from "./feed.ts";

const none: ReachState = { seen: [], completeToMs: 0 };
const at = (nowMs: number, logLsn: bigint, journaledLsn: bigint) => ({ nowMs, logLsn, journaledLsn, newestCommitMs: 0 });

test("a time counts as complete once the end that the log had then is journaled", () => {
  const first = nextReach(none, at(10_000, 100n, 50n));
  expect(first).toEqual({ seen: [{ lsn: 100n, atMs: 10_000 }], completeToMs: 0 });
  const second = nextReach(first, at(12_000, 150n, 99n));
  expect(second.completeToMs).toBe(0);
  const third = nextReach(second, at(13_000, 170n, 100n));
  expect(third.completeToMs).toBe(10_000);
  expect(nextReach(third, at(14_000, 200n, 180n))).toEqual({ seen: [{ lsn: 200n, atMs: 14_000 }], completeToMs: 13_000 });
});

test("a feed that is asked all the time while capture stands still remembers a bounded number of ends, the first among them", () => {
  let state = none;
  for (let i = 0; i < 10_000; i++) state = nextReach(state, at(10_000 + i * 100, BigInt(100 + i), 50n));
  expect(state.seen).toHaveLength(64);
  expect(nextReach(state, at(2_000_000, 20_000n, 100n)).completeToMs).toBe(10_000);
});
