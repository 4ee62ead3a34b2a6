import { expect, test } from "vitest";
import { createRegistry, type Subscription } from "./registry.ts";

const subscription = (over: Partial<Subscription>): Subscription => ({
  id: "sub_1",
  project: "acme",
  events: ["deal.won"],
  origin: "https://example.com",
  path: "/",
  format: "standard",
  keys: [],
  revision: 1n,
  startLsn: 1n,
  state: "enabled",
  ...over,
});
const idsOf = (all: readonly Subscription[]): readonly string[] => all.map(({ id }) => id);

test("it takes only higher revisions, and a deletion stays", () => {
  const registry = createRegistry();
  expect(registry.put(subscription({ revision: 2n }))).toBe(true);
  expect(registry.put(subscription({ revision: 1n }))).toBe(false);
  expect(registry.put(subscription({ revision: 3n, events: ["deal.lost", "deal.lost"] }))).toBe(true);
  expect(idsOf(registry.of("acme", "deal.won"))).toEqual([]);
  expect(idsOf(registry.of("acme", "deal.lost"))).toEqual(["sub_1"]);
  expect(registry.remove("sub_1", 2n)).toBe(false);
  expect(registry.remove("sub_1", 4n)).toBe(true);
  expect(registry.put(subscription({ revision: 4n }))).toBe(false);
  expect([registry.size, registry.of("acme", "deal.lost")]).toEqual([0, []]);
});

test("a list that was handed out stays as it was", () => {
  const registry = createRegistry();
  registry.put(subscription({ id: "sub_1" }));
  const before = registry.of("acme", "deal.won");
  registry.put(subscription({ id: "sub_2" }));
  registry.remove("sub_1", 2n);
  expect(idsOf(before)).toEqual(["sub_1"]);
  expect(idsOf(registry.of("acme", "deal.won"))).toEqual(["sub_2"]);
});

test("a hundred thousand subscriptions to one event come and go: their square would not end in the time of a test", () => {
  const registry = createRegistry();
  const all = Array.from({ length: 100_000 }, (_, index) => subscription({ id: `sub_${index}` }));
  for (const one of all) registry.put(one);
  expect(registry.of("acme", "deal.won")).toHaveLength(all.length);
  for (const { id } of all) registry.remove(id, 2n);
  expect(registry.size).toBe(0);
});

test("it knows how many subscriptions an event has at most, whoever comes, changes and goes", () => {
  const registry = createRegistry();
  for (const id of ["sub_1", "sub_2", "sub_3"]) registry.put(subscription({ id }));
  registry.put(subscription({ id: "sub_4", project: "other" }));
  expect(registry.widest).toBe(3);
  registry.put(subscription({ id: "sub_1", revision: 2n, events: ["deal.lost"] }));
  expect(registry.widest).toBe(2);
  for (const id of ["sub_2", "sub_3"]) registry.remove(id, 9n);
  expect(registry.widest).toBe(1);
});
