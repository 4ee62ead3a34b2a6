import fc from "fast-check";
import { expect, test } from "vitest";
import { parseRetryAfter } from "./retry-after.ts";

const nowMs = Date.UTC(2026, 10, 24, 8, 0, 0);
const dayMs = 86_400_000;

test.each([
  ["0", 0],
  ["7", 7_000],
  [" 120 ", 120_000],
  ["86401", dayMs],
  // Ten years, and more digits than a number has.
  ["315360000", dayMs],
  ["9".repeat(400), dayMs],
  ["Tue, 24 Nov 2026 08:01:30 GMT", 90_000],
  ["Tue, 24 Nov 2026 07:59:00 GMT", 0],
  ["Wed, 24 Nov 2036 08:00:00 GMT", dayMs],
  ["-1", undefined],
  ["1.5", undefined],
  ["1e3", undefined],
  ["soon", undefined],
  ["", undefined],
  ["2026-11-24T08:01:30Z", undefined],
  ["Tue, 45 Nov 2026 08:01:30 GMT", undefined],
  [undefined, undefined],
])("%s", (value, expected) => {
  expect(parseRetryAfter(value, nowMs)).toBe(expected);
});

test("whatever a receiver writes is a wait between nothing and a day, or no wait", () => {
  const anyValue = fc.oneof(
    fc.string(),
    fc.integer().map(String),
    fc.bigInt().map(String),
    fc.date({ noInvalidDate: true }).map((at) => at.toUTCString()),
  );
  fc.assert(
    fc.property(anyValue, (value) => {
      const waitMs = parseRetryAfter(value, nowMs);
      return waitMs === undefined || (waitMs >= 0 && waitMs <= dayMs);
    }),
  );
});

test("a date says the same as the seconds until it", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 86_400 }), (seconds) => {
      expect(parseRetryAfter(new Date(nowMs + seconds * 1000).toUTCString(), nowMs)).toBe(parseRetryAfter(String(seconds), nowMs));
    }),
  );
});
