import { expect, test } from "vitest";
import { takeWithin } from "./take-within.ts";

test("a refill takes what is within its bytes, and one message of whatever size", () => {
  const items = [3, 3, 3].map((bytes) => ({ bytes }));
  expect(takeWithin(items, 9)).toHaveLength(3);
  expect(takeWithin(items, 8)).toHaveLength(2);
  expect(takeWithin(items, 1)).toHaveLength(1);
  expect(takeWithin([], 1)).toHaveLength(0);
});
