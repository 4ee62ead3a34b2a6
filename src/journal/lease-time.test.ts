import fc from "fast-check";
import { expect, test } from "vitest";
import type { LeaderRow } from "../store/leaders.ts";
import { isGranted, leaseWaitMs, nextQuiet, type Quiet } from "./lease-time.ts";

const seen = (given: Partial<LeaderRow>): LeaderRow => ({
  epoch: 1n,
  sessions: 1n,
  process: "a:1",
  isGivenBack: false,
  isHeld: false,
  ...given,
});

test("a grant stands for a lease by both clocks: a jump forward or a suspended machine ends it, a jump back does not lengthen it", () => {
  const grant = { monotonicMs: 1_000, wallMs: 50_000 };
  const after = (monotonic: number, wall: number): boolean =>
    isGranted(grant, { monotonicMs: 1_000 + monotonic, wallMs: 50_000 + wall }, 4_000);
  expect([after(0, 0), after(3_999, 3_999), after(4_000, 3_999), after(10, 86_400_000), after(3_999, -3_600_000)]).toEqual([
    true,
    true,
    false,
    false,
    true,
  ]);
  expect(after(4_000, -3_600_000)).toBe(false);
  expect(isGranted(undefined, grant, 4_000)).toBe(false);
});

test("what was given back is free at once; what was lost is left alone for a lease", () => {
  const quiet = nextQuiet(undefined, seen({}), 1_000);
  expect(leaseWaitMs(quiet as Quiet, seen({ isGivenBack: true }), 1_000, 4_000)).toBe(0);
  expect(leaseWaitMs(quiet as Quiet, seen({}), 2_500, 4_000)).toBe(2_500);
  expect(leaseWaitMs(quiet as Quiet, seen({}), 9_000, 4_000)).toBe(0);
});

/**
 * A leader that loses its session and takes the lock again, at random, beside one that looks now and then.
 *
 * The leader's last grant is as young as it can be: taken at the very moment before its session was lost.
 */
test("whoever waits takes the lease only when the last grant of the one before has run out", () => {
  const leaseMs = 4_000;
  const anyStep = fc.record({ afterMs: fc.nat({ max: 3_000 }), what: fc.constantFrom("lose", "retake", "look") });
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 60 }), (steps) => {
      let nowMs = 0;
      let [isHeld, sessions, lastGrantMs] = [true, 1n, 0];
      let quiet: Quiet | undefined;
      for (const { afterMs, what } of steps) {
        nowMs += afterMs;
        if (isHeld) lastGrantMs = nowMs;
        if (what === "lose") isHeld = false;
        else if (what === "retake" && !isHeld) [isHeld, sessions, lastGrantMs] = [true, sessions + 1n, nowMs];
        else if (what === "look") {
          const row = seen({ isHeld, sessions });
          quiet = nextQuiet(quiet, row, nowMs);
          if (quiet === undefined || leaseWaitMs(quiet, row, nowMs, leaseMs) > 0) continue;
          return !isGranted({ monotonicMs: lastGrantMs, wallMs: 0 }, { monotonicMs: nowMs, wallMs: 0 }, leaseMs);
        }
      }
      return true;
    }),
    { numRuns: 2_000 },
  );
});
