import { expect, test } from "vitest";
import { definitionError, describeValue, nearestName, suggestName } from "./fault.ts";

test.each([
  ["deel", "deal"],
  ["Deal", "deal"],
  ["custmer", "customer"],
  ["cusotmer", "customer"],
  ["wehre", "where"],
  ["dea", "deal"],
])("%s is near to %s", (name, nearest) => {
  expect(nearestName(name, ["order", "where", "customer", "deal"])).toBe(nearest);
});

test.each(["invoice", "x", ""])("%o is near to nothing", (name) => {
  expect(nearestName(name, ["order", "customer", "deal"])).toBeUndefined();
});

test("where no name is near it says what there is, but not hundreds", () => {
  const names = Array.from({ length: 300 }, (_, index) => `table_${index}`);

  expect(suggestName("invoice", ["deal", "order"])).toBe("There are deal, order.");
  expect(suggestName("invoice", names)).toMatch(/^There are table_0, .*, table_11 and 288 more\.$/);
  expect(suggestName("invoice", [])).toBe("There are none.");
  expect(suggestName(42, ["deal"])).toBe("There are deal.");
});

test("one error lists all faults, each with its file", () => {
  const error = definitionError([
    { file: "events/A.ts", message: "has no `payload`.", hint: "Write one." },
    { file: "events/B.ts", message: "has no `table`.", hint: "Name one." },
  ]);

  expect(error.message).toBe(
    "2 faults in the definitions:\n  events/A.ts: has no `payload`. Write one.\n  events/B.ts: has no `table`. Name one.",
  );
});

test.each([
  ["text", '"text"'],
  [undefined, "undefined"],
  [null, "null"],
  [10n, "10"],
  [[1, 2], "an array of 2"],
  [{}, "an empty object"],
  [{ a: 1, b: 2 }, "an object with a, b"],
  [Math.max, "the function max"],
])("a value %o is described as %s", (value, described) => {
  expect(describeValue(value)).toBe(described);
});
