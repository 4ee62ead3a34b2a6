import { expect, test } from "vitest";
import { isDeeperThan } from "./body.ts";

test.each([
  ["[[1]]", 2],
  [`{"a":{"b":[]}}`, 3],
  [`["[[[[", "\\"[[[["]`, 1],
  [`["\\\\", [1], [2], {"x": 1}]`, 2],
])("%s stands %i deep", (json, depth) => {
  expect(isDeeperThan(json, depth)).toBe(false);
  expect(isDeeperThan(json, depth - 1)).toBe(true);
});

test("what is no JSON has an end as well", () => {
  for (const text of ["[".repeat(100_000), `"${"[".repeat(100_000)}`, "]]]][", '"\\']) expect(() => isDeeperThan(text, 100)).not.toThrow();
});
