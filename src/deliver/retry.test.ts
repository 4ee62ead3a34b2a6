import fc from "fast-check";
import { expect, test } from "vitest";
import { computeRetryDelayMs } from "./retry.ts";

const policy = { scheduleS: [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400], jitter: 0.2 };

test("a delay is the schedule's, give or take a fifth, and the tenth attempt is the last", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), fc.double({ min: 0, max: 1, noNaN: true }), (attempts, random) => {
      const scheduledMs = (policy.scheduleS[attempts] ?? 0) * 1000;
      const delayMs = computeRetryDelayMs(policy, attempts, random);
      expect(delayMs).toBeGreaterThanOrEqual(scheduledMs * 0.8);
      expect(delayMs).toBeLessThanOrEqual(scheduledMs * 1.2);
    }),
  );
  expect(computeRetryDelayMs(policy, 10, 0.5)).toBeUndefined();
});
