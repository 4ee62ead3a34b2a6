import { expect, test } from "vitest";
import { definitionError, describeValue } from "./fault.ts";

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
