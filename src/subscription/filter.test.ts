import { describe, expect, test } from "vitest";
import type { Fault } from "./fault.ts";
import { checkFilter, compileFilter, type FilterSpec } from "./filter.ts";

const payload = {
  status: "won",
  amount: "1500.50",
  count: 3,
  isBig: true,
  owner: null,
  signedOn: "2026-11-24",
  customer: { country: "FR", "a.b": 1 },
  tags: ["vip", "new"],
  items: [{ sku: "A1" }],
  empty: [],
};

test.each<[FilterSpec, boolean]>([
  [{}, true],
  [{ status: "won" }, true],
  [{ status: "lost" }, false],
  [{ status: "won", count: 4 }, false],
  [{ status: ["lost", "won"] }, true],
  [{ status: { in: ["lost", "won"] } }, true],
  [{ status: { in: ["lost"] } }, false],
  [{ status: { ne: "lost" } }, true],
  [{ status: { ne: "won" } }, false],
  [{ isBig: true }, true],
  [{ isBig: "true" }, false],
  [{ count: { gt: 2, lt: 4 } }, true],
  [{ count: { gt: 3 } }, false],
  [{ count: { gte: 3, lte: 3 } }, true],
  // numeric and bigint columns are texts in a payload.
  [{ amount: { gte: 1000 } }, true],
  [{ amount: { gte: 200 } }, true],
  [{ amount: { lt: 1500.5 } }, false],
  [{ amount: 1500.5 }, true],
  [{ amount: [1, 1500.5] }, true],
  [{ amount: { ne: 1500.5 } }, false],
  [{ status: { gte: 0 } }, false],
  [{ count: { gte: "0" } }, false],
  [{ signedOn: { gte: "2026-11-01", lt: "2026-12-01" } }, true],
  [{ signedOn: { lt: "2026-11-24" } }, false],
  [{ owner: null }, true],
  [{ owner: { exists: true } }, true],
  [{ nowhere: null }, false],
  [{ nowhere: { exists: false } }, true],
  [{ nowhere: { ne: "x" } }, true],
  [{ nowhere: { lt: 5 } }, false],
  [{ "customer.country": ["FR", "BE"] }, true],
  [{ "customer.city": { exists: true } }, false],
  [{ "/customer/a.b": 1 }, true],
  [{ "status.length": 3 }, false],
  [{ constructor: { exists: true } }, false],
  [{ "items.0.sku": "A1" }, true],
  [{ tags: "vip" }, true],
  [{ tags: { ne: "vip" } }, false],
  [{ tags: { ne: "old" } }, true],
  [{ empty: "vip" }, false],
  [{ empty: { exists: true } }, true],
])("%j of the payload is %s", (spec, wanted) => {
  expect(compileFilter(spec)(payload)).toBe(wanted);
  expect(checkFilter(spec, () => undefined)).toEqual(Object.keys(spec).length === 0 ? null : spec);
});

test.each([[null], [4], ["text"], [[]]])("a payload that is %j has no paths", (value) => {
  expect(compileFilter({ a: 1 })(value)).toBe(false);
  expect(compileFilter({ a: { exists: false } })(value)).toBe(true);
});

describe("what is refused", () => {
  const faultsOf = (value: unknown): readonly Fault[] => {
    const faults: Fault[] = [];
    expect(checkFilter(value, (pointer, detail) => void faults.push({ pointer, detail }))).toBeUndefined();
    return faults;
  };
  test.each([
    [[], "/filter", "expected an object of paths"],
    ["status", "/filter", `got "status"`],
    [{ "": 1 }, "/filter/", "expected a path"],
    [{ a: {} }, "/filter/a", "at least one of eq, ne"],
    [{ a: [] }, "/filter/a", "an array of 1 to 100 values"],
    [{ a: [[1]] }, "/filter/a", "expected a value"],
    [{ a: { b: 1 } }, "/filter/a/b", `written with a dot`],
    [{ a: { $gte: 1 } }, "/filter/a/$gte", "unknown comparison; expected one of eq, ne, gt"],
    [{ "x/y": { gt: true } }, "/filter/x~1y/gt", "expected a text or a number, got true"],
    [{ a: { in: "x" } }, "/filter/a/in", "expected an array"],
    [{ a: { exists: 1 } }, "/filter/a/exists", "expected true or false, got 1"],
    [{ a: "\0" }, "/filter", "U+0000"],
    [Object.fromEntries(Array.from({ length: 21 }, (_, index) => [`p${index}`, 1])), "/filter", "at most 20 paths, got 21"],
    [{ a: "x".repeat(9000) }, "/filter", "at most 8192 characters"],
  ])("%j", (value, pointer, words) => {
    expect(faultsOf(value)).toEqual([{ pointer, detail: expect.stringContaining(words) }]);
  });

  test("all of it at once", () => {
    expect(faultsOf({ a: {}, b: { gt: null, exists: 0 } }).map(({ pointer }) => pointer)).toEqual([
      "/filter/a",
      "/filter/b/gt",
      "/filter/b/exists",
    ]);
  });
});
