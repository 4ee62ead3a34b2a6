import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BatchFault } from "./fault.ts";
import { runAll } from "./schedule.ts";

/** What a function does, step by step: a turn of its own, or as many calls at once, each answered a turn after it was sent. */
type Step = "turn" | { readonly calls: number };

const step = fc.oneof(
  fc.constant<Step>("turn"),
  fc.integer({ min: 1, max: 3 }).map((calls): Step => ({ calls })),
);

test("whatever functions wait for, all end, in their order, and never more run than there are places", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(step, { maxLength: 5 }), { maxLength: 40 }),
      fc.integer({ min: 1, max: 5 }),
      async (programs, places) => {
        let running = 0;
        let most = 0;
        const results = await runAll<number>({
          count: programs.length,
          places,
          timeoutMs: 60_000,
          timedOut: () => -1,
          begin(run, schedule) {
            const program = programs[run.index]!;
            if (program.length === 0) return run.index;
            const call = (): Promise<void> =>
              schedule.wait(run, () => new Promise((answer) => schedule.whenQuiet(() => void setImmediate().then(answer))));
            const execute = async (): Promise<number> => {
              for (const step of program) {
                if (step === "turn") {
                  most = Math.max(most, ++running);
                  await setImmediate();
                  running--;
                } else {
                  await Promise.all(Array.from({ length: step.calls }, call));
                }
              }
              return run.index;
            };
            return execute();
          },
        });
        expect(results).toEqual(programs.map((_, index) => index));
        expect(most).toBeLessThanOrEqual(places);
      },
    ),
    { numRuns: 150 },
  );
});

test("calls are sent when a turn brought none: those of functions that had to wait for a place included", async () => {
  const sent: number[][] = [];
  let asked: number[] = [];
  const results = await runAll<number>({
    count: 20,
    places: 2,
    timeoutMs: 60_000,
    timedOut: () => -1,
    begin: async (run, schedule) => {
      // A turn of its own before the call: only two functions get to it at a time.
      await setImmediate();
      return schedule.wait(
        run,
        () =>
          new Promise((answer) => {
            asked.push(run.index);
            schedule.whenQuiet(() => {
              if (asked.length > 0) sent.push(asked);
              asked = [];
              answer(run.index);
            });
          }),
      );
    },
  });
  expect(results).toHaveLength(20);
  expect(sent).toHaveLength(1);
});

test("a bug of begin, or of its promise, fails the batch instead of hanging it", async () => {
  const options = { count: 3, places: 1, timeoutMs: 60_000, timedOut: () => 0 };
  await expect(
    runAll<number>({
      ...options,
      begin() {
        throw new RangeError("a bug");
      },
    }),
  ).rejects.toThrow("a bug");
  await expect(runAll<number>({ ...options, begin: async () => Promise.reject(new RangeError("a bug")) })).rejects.toThrow("a bug");
});

test("a fault ends the batch while others still wait for a place, and no further function starts", async () => {
  let started = 0;
  const fault = new BatchFault(new Error("gone"));
  const batch = runAll<number>({
    count: 5,
    places: 1,
    timeoutMs: 60_000,
    timedOut: () => 0,
    begin: async (_, schedule) => {
      started++;
      await setImmediate();
      schedule.fail(fault);
      return 1;
    },
  });
  await expect(batch).rejects.toBe(fault);
  await setImmediate();
  expect(started).toBe(1);
});

test("an empty batch is done", async () => {
  expect(await runAll({ count: 0, places: 1, timeoutMs: 1, timedOut: () => 0, begin: () => 0 })).toEqual([]);
});
