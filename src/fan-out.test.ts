import { expect, test } from "vitest";
import { fanOut } from "./fan-out.ts";
import type { Message } from "./message.ts";
import { createRegistry, type Subscription } from "./subscription/registry.ts";

const subscription = (over: Partial<Subscription>): Subscription => ({
  id: "sub_1",
  project: "acme",
  events: ["won"],
  origin: "https://example.com",
  path: "/",
  format: "standard",
  keys: [],
  revision: 1n,
  startLsn: 100n,
  state: "enabled",
  ...over,
});
const message = (over: Partial<Message>): Message => ({
  id: "msg_1",
  project: "acme",
  event: "won",
  key: "1",
  position: { commitLsn: 200n, changeLsn: 1n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
  ...over,
});
const idsOf = (subscriptions: readonly Subscription[]) => subscriptions.map(({ id }) => id);

test("a message goes to the subscriptions of its event and project that were committed before it", () => {
  const registry = createRegistry();
  registry.put(subscription({ id: "sub_before", startLsn: 199n }));
  registry.put(subscription({ id: "sub_same", startLsn: 200n }));
  registry.put(subscription({ id: "sub_after", startLsn: 201n }));
  registry.put(subscription({ id: "sub_project", project: "other" }));
  registry.put(subscription({ id: "sub_event", events: ["lost"] }));
  registry.put(subscription({ id: "sub_disabled", state: "disabled" }));
  registry.put(subscription({ id: "sub_paused", state: "paused" }));
  expect(idsOf(fanOut(message({}), registry))).toEqual(["sub_before", "sub_paused"]);
});

test("the registry takes only higher revisions, and a deletion stays one", () => {
  const registry = createRegistry();
  expect(registry.put(subscription({ revision: 5n }))).toBe(true);
  expect(registry.put(subscription({ revision: 5n, events: ["lost"] }))).toBe(false);
  expect(registry.put(subscription({ revision: 6n, events: ["lost", "lost"] }))).toBe(true);
  expect(idsOf(registry.of("acme", "won"))).toEqual([]);
  expect(idsOf(registry.of("acme", "lost"))).toEqual(["sub_1"]);
  expect(registry.remove("sub_1", 5n)).toBe(false);
  expect(registry.remove("sub_1", 7n)).toBe(true);
  expect(registry.put(subscription({ revision: 6n }))).toBe(false);
  expect(registry.size).toBe(0);
  // A deletion may come before the creation does: the stream is slower than the API.
  expect(registry.remove("sub_2", 9n)).toBe(true);
  expect(registry.put(subscription({ id: "sub_2", revision: 8n }))).toBe(false);
});
