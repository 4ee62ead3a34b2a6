import { expect, test } from "vitest";
import { createRateLimit } from "./rate-limit.ts";

test("so many in any stretch of time, each name for itself", () => {
  let now = 0;
  const limit = createRateLimit({ most: 2, perMs: 1_000, nowMs: () => now });
  const take = (name: string): number => {
    const wait = limit.waitMs(name);
    if (wait === 0) limit.note(name);
    return wait;
  };
  expect(take("a")).toBe(0);
  now = 400;
  expect(take("a")).toBe(0);
  now = 500;
  expect(take("a")).toBe(500);
  expect(take("b")).toBe(0);
  now = 1_000;
  expect(take("a")).toBe(0);
  expect(take("a")).toBe(400);
});

test("names that nothing was done under lately are forgotten, the others not", () => {
  let now = 0;
  const limit = createRateLimit({ most: 1, perMs: 1_000, nowMs: () => now });
  for (let name = 0; name < 1_000; name++) limit.note(`old ${name}`);
  now = 5_000;
  for (let name = 0; name < 10; name++) limit.note(`new ${name}`);
  expect(limit.waitMs("new 0")).toBe(1_000);
  expect(limit.waitMs("old 0")).toBe(0);
});
