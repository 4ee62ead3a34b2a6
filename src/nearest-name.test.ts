import { expect, test } from "vitest";
import { nearestName, suggestName, suggestTable } from "./nearest-name.ts";

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

test.each([
  ["public.deal", 'Write "deal": a table of the schema public goes by its name alone.'],
  ["order", 'Write it with its schema: "sales.order" or "old.order".'],
  ["sales.ordre", 'Did you mean "sales.order"?'],
  ["public.order", "There are deal, sales.order, old.order."],
])("a table has one name: %s", (name, hint) => {
  expect(suggestTable(name, ["deal", "sales.order", "old.order"])).toBe(hint);
});

test("where no name is near it says what there is, but not hundreds", () => {
  const names = Array.from({ length: 300 }, (_, index) => `table_${index}`);

  expect(suggestName("invoice", ["deal", "order"])).toBe("There are deal, order.");
  expect(suggestName("invoice", names)).toMatch(/^There are table_0, .*, table_11 and 288 more\.$/);
  expect(suggestName("invoice", [])).toBe("There are none.");
  expect(suggestName(42, ["deal"])).toBe("There are deal.");
});
