import fc from "fast-check";
import { expect, test } from "vitest";
import { computeHealth, formatBytes, formatDuration, healthProblems, remember, type History, type SlotFacts } from "./health.ts";

const MiB = 1024 * 1024;
const facts = (over: Partial<SlotFacts> = {}): SlotFacts => ({
  atMs: 0,
  currentLsn: 1_000n,
  confirmedLsn: 1_000n,
  restartLsn: 900n,
  isThere: true,
  isActive: true,
  walStatus: "reserved",
  invalidationReason: undefined,
  safeBytes: undefined,
  outboxBytes: undefined,
  oldestTransaction: undefined,
  ...over,
});
const after = (...looks: readonly SlotFacts[]): History => looks.reduce<History>(remember, []);
const problemsOf = (...looks: readonly SlotFacts[]): readonly string[] => {
  const health = computeHealth(after(...looks));
  return health === undefined ? [] : healthProblems(health).map(({ code }) => code);
};

test("before the first look nothing is known", () => {
  expect(computeHealth([])).toBeUndefined();
});

test("a slot that is read up to the end is not behind, and keeps what its oldest transaction needs", () => {
  expect(computeHealth(after(facts()))).toMatchObject({ state: "reserved", lagBytes: 0, lagS: 0, keptBytes: 100, secondsLeft: undefined });
});

test("the lag counts from the first look at what is not journaled, also when that is long ago", () => {
  const hour = 3_600_000;
  const looks = [
    facts({ atMs: 0, currentLsn: 1_000n }),
    facts({ atMs: 10_000, currentLsn: 2_000n }),
    facts({ atMs: 20_000, currentLsn: 3_000n }),
    ...Array.from({ length: 5_000 }, (_, i) => facts({ atMs: hour + i * 10_000, currentLsn: 4_000n + BigInt(i) })),
  ];
  const history = after(...looks);
  expect(computeHealth(history)?.lagS).toBe((looks.at(-1)!.atMs - 10_000) / 1000);
  expect(history.length).toBeLessThan(1_100);
  // Once it is journaled, what came after counts.
  const end = looks.at(-1)!;
  expect(computeHealth(remember(history, { ...end, atMs: end.atMs + 10_000, confirmedLsn: end.currentLsn }))?.lagS).toBe(0);
});

test("how long until the bound is told by how fast what is kept grows", () => {
  const grows = [
    facts({ atMs: 0, currentLsn: 1_000n, restartLsn: 1_000n, safeBytes: 20_000 }),
    facts({ atMs: 30_000, currentLsn: 4_000n, restartLsn: 1_000n, safeBytes: 17_000 }),
  ];
  expect(computeHealth(after(...grows))).toMatchObject({ keptBytes: 3_000, safeBytes: 17_000, secondsLeft: 170 });
  // It is read as fast as it is written.
  const flows = [grows[0]!, facts({ atMs: 30_000, currentLsn: 4_000n, restartLsn: 4_000n, safeBytes: 20_000 })];
  expect(computeHealth(after(...flows))?.secondsLeft).toBeUndefined();
  // Two looks in a row say nothing of a rate.
  expect(computeHealth(after(grows[0]!, { ...grows[1]!, atMs: 1_000 }))?.secondsLeft).toBeUndefined();
  expect(computeHealth(after(facts({ safeBytes: -5 })))?.secondsLeft).toBe(0);
});

test.each([
  [{ isThere: false, restartLsn: undefined, confirmedLsn: undefined, walStatus: undefined }, "missing"],
  [{ walStatus: "lost", restartLsn: undefined }, "lost"],
  // PostgreSQL 17 and later: `idle_timeout`, `rows_removed`, `wal_level_insufficient`.
  [{ walStatus: "reserved", invalidationReason: "idle_timeout" }, "lost"],
  [{ walStatus: "unreserved" }, "unreserved"],
  [{ walStatus: "extended" }, "extended"],
  [{ walStatus: "reserved" }, "reserved"],
] as const)("%o is %s", (over, state) => {
  expect(computeHealth(after(facts(over)))?.state).toBe(state);
});

test("what needs attention is said, and nothing else", () => {
  expect(problemsOf(facts())).toEqual([]);
  expect(problemsOf(facts({ walStatus: "extended" }))).toEqual([]);
  expect(problemsOf(facts({ isThere: false }))).toEqual(["slot-lost"]);
  expect(problemsOf(facts({ walStatus: "unreserved", safeBytes: -1 }))).toEqual(["slot-near-its-bound"]);
  expect(problemsOf(facts({ oldestTransaction: { ageS: 3_601, who: "psql (4711)" } }))).toEqual(["vacuum-held-back"]);
  const far = BigInt(20 * MiB);
  expect(problemsOf(facts(), facts({ atMs: 10_000, currentLsn: far }), facts({ atMs: 80_000, currentLsn: far }))).toEqual([
    "capture-behind",
  ]);
  // Little, or for a short time only.
  expect(problemsOf(facts(), facts({ atMs: 10_000, currentLsn: 2_000n }), facts({ atMs: 80_000, currentLsn: 2_000n }))).toEqual([]);
  expect(problemsOf(facts(), facts({ atMs: 10_000, currentLsn: far }), facts({ atMs: 20_000, currentLsn: far }))).toEqual([]);
});

test("no lag, size or time is ever negative or without end, whatever the looks say", () => {
  const look = fc.record({
    current: fc.bigInt(0n, 1n << 40n),
    confirmed: fc.option(fc.bigInt(0n, 1n << 40n), { nil: undefined }),
    restart: fc.option(fc.bigInt(0n, 1n << 40n), { nil: undefined }),
    safeBytes: fc.option(fc.integer(), { nil: undefined }),
    stepMs: fc.nat(100_000),
  });
  fc.assert(
    fc.property(fc.array(look, { minLength: 1, maxLength: 30 }), (looks) => {
      let atMs = 0;
      let history: History = [];
      for (const one of looks) {
        atMs += one.stepMs;
        history = remember(
          history,
          facts({
            atMs,
            currentLsn: one.current,
            confirmedLsn: one.confirmed,
            restartLsn: one.restart,
            safeBytes: one.safeBytes,
          }),
        );
      }
      const health = computeHealth(history)!;
      for (const value of [health.lagBytes, health.lagS, health.keptBytes, health.secondsLeft ?? 0]) {
        expect(value).toBeGreaterThanOrEqual(0);
        expect(Number.isFinite(value)).toBe(true);
      }
    }),
  );
});

test("sizes and times as people say them", () => {
  expect([0, 1023, 1536, 20 * MiB, 3 * 1024 ** 4].map(formatBytes)).toEqual(["0 bytes", "1023 bytes", "1.5 KiB", "20.0 MiB", "3.0 TiB"]);
  expect([0.4, 119, 120, 7_200, 172_800].map(formatDuration)).toEqual(["0 s", "119 s", "2 min", "2 h", "2 days"]);
});
