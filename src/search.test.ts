import fc from "fast-check";
import { expect, test } from "vitest";
import { search } from "./search.ts";

/** A list of numbers in descending order, of which every `each`th is meant. */
const listOf = (length: number, each: number) => ({
  placeOf: (row: number): number => row,
  look: async ({ after, limit, most }: { readonly after: number | undefined; readonly limit: number; readonly most: number }) => {
    const looked = Array.from({ length }, (_, index) => length - index)
      .filter((one) => one < (after ?? Infinity))
      .slice(0, most);
    const meant = looked.filter((one) => one % each === 0).slice(0, limit);
    return { rows: meant, to: meant.length === limit ? meant.at(-1) : looked.at(-1), isEnd: looked.length < most };
  },
});

test("whatever the time allows: the pages together are all that is meant, each once, and the last one says so", async () => {
  const given = fc.record({
    length: fc.integer({ min: 0, max: 20_000 }),
    each: fc.constantFrom(1, 2, 999, 5_000, 30_000),
    limit: fc.integer({ min: 1, max: 200 }),
    budgetMs: fc.constantFrom(0, 2, 1_000),
  });
  await fc.assert(
    fc.asyncProperty(given, async ({ length, each, limit, budgetMs }) => {
      fc.pre(length / each < 2_000);
      let clock = 0;
      const found: number[] = [];
      let after: number | undefined;
      do {
        const page = await search({ ...listOf(length, each), after, limit, budgetMs, nowMs: () => clock++ });
        expect(page.rows.length).toBeLessThanOrEqual(limit);
        found.push(...page.rows);
        after = page.next;
      } while (after !== undefined);
      const meant = Array.from({ length }, (_, index) => length - index).filter((one) => one % each === 0);
      expect(found).toEqual(meant);
    }),
    { numRuns: 50 },
  );
});

test("where it finds nothing in its time it says how far it has come", async () => {
  const { rows, next } = await search({ ...listOf(20_000, 30_000), after: undefined, limit: 10, budgetMs: 0, nowMs: () => 0 });
  expect({ rows, next }).toEqual({ rows: [], next: 19_001 });
});
