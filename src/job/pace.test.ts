import fc from "fast-check";
import { expect, test } from "vitest";
import { createPace, giveBack, mostUnfinished, takePace } from "./pace.ts";

test("a job without a rate makes what its receiver has taken, half a page at least", () => {
  const pace = createPace(undefined, 0);
  expect(takePace(pace, { nowMs: 0, unfinished: 0 }).count).toBe(mostUnfinished);
  expect(takePace(pace, { nowMs: 0, unfinished: mostUnfinished - 1 }).count).toBe(0);
  expect(takePace(pace, { nowMs: 0, unfinished: mostUnfinished / 2 }).count).toBe(mostUnfinished / 2);
  expect(takePace(pace, { nowMs: 0, unfinished: mostUnfinished * 2 }).count).toBe(0);
});

test("what is not used of a rate is given back", () => {
  const taken = takePace(createPace(10, 0), { nowMs: 1_000, unfinished: 0 });
  expect(taken.count).toBe(11);
  expect(takePace(giveBack(taken.pace, 4), { nowMs: 1_000, unfinished: 0 }).count).toBe(4);
});

test("however often it is asked, a rate is neither passed nor missed", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 400 }), fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1 }), (ratePerS, stepsMs) => {
      let pace = createPace(ratePerS, 0);
      let nowMs = 0;
      let made = 0;
      for (const stepMs of stepsMs) {
        nowMs += stepMs;
        const taken = takePace(pace, { nowMs, unfinished: 0 });
        made += taken.count;
        pace = taken.pace;
      }
      const due = (nowMs / 1_000) * ratePerS;
      expect(made).toBeLessThanOrEqual(due + 1 + 1e-6);
      // What it may not have used yet: the fraction of one.
      expect(made).toBeGreaterThanOrEqual(Math.floor(due + 1 - 1e-6));
    }),
    { examples: [[1, [656, 623, 624, 144, 140, 567, 490, 643, 857, 576, 841, 839]]] },
  );
});
