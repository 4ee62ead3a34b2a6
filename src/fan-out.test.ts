import { describe, expect, test } from "vitest";
import { fanOut } from "./fan-out.ts";
import type { Message } from "./message.ts";
import { compileFilter } from "./subscription/filter.ts";
import { createRegistry, unplaced, type Subscription } from "./subscription/registry.ts";

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
  registry.put(subscription({ id: "sub_unplaced", startLsn: unplaced }));
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

describe("a subscription that was changed", () => {
  const at = (commitLsn: bigint, over: Partial<Message> = {}): Message =>
    message({ position: { commitLsn, changeLsn: 1n, ordinal: 0 }, ...over });
  const goes = (one: Subscription, of: Message): boolean => {
    const registry = createRegistry();
    registry.put(one);
    return fanOut(of, registry).length === 1;
  };

  test("what was committed before belongs to it as it was then, however late it is fanned out", () => {
    const changed = subscription({
      events: ["lost"],
      startLsn: 300n,
      former: [{ revision: 1n, events: ["won"], filter: undefined, startLsn: 100n }],
    });
    expect([100n, 101n, 300n, 301n].map((lsn) => goes(changed, at(lsn)))).toEqual([false, true, true, false]);
    expect([300n, 301n].map((lsn) => goes(changed, at(lsn, { event: "lost" })))).toEqual([false, true]);
  });

  test("while the log has not come to the change, the former events count", () => {
    const changed = subscription({
      events: ["lost"],
      startLsn: unplaced,
      former: [
        { revision: 2n, events: ["lost"], filter: undefined, startLsn: unplaced },
        { revision: 1n, events: ["won"], filter: undefined, startLsn: 100n },
      ],
    });
    expect([goes(changed, at(900n)), goes(changed, at(900n, { event: "lost" }))]).toEqual([true, false]);
  });

  test("disabled, it gets what was committed before, and nothing from its own transaction on; enabled again, what comes after", () => {
    const first = { revision: 1n, events: ["won"], filter: undefined, startLsn: 100n };
    const disabled = subscription({ state: "disabled", events: [], startLsn: 300n, former: [first] });
    expect([299n, 300n, 301n].map((lsn) => goes(disabled, at(lsn)))).toEqual([true, false, false]);
    const enabled = subscription({
      startLsn: 500n,
      former: [{ revision: 2n, events: [], filter: undefined, startLsn: 300n }, first],
    });
    expect([299n, 300n, 400n, 500n, 501n].map((lsn) => goes(enabled, at(lsn)))).toEqual([true, false, false, false, true]);
  });

  test("each start has its own filter, and one that wants nothing of a message leaves the others theirs", () => {
    const filtered = subscription({
      filter: compileFilter({ amount: { gte: 10 } }),
      startLsn: 300n,
      former: [{ revision: 1n, events: ["won"], filter: compileFilter({ amount: { lt: 10 } }), startLsn: 100n }],
    });
    const body = Buffer.from(`{"amount":5}`);
    expect([goes(filtered, at(200n, { body })), goes(filtered, at(400n, { body }))]).toEqual([true, false]);
    const registry = createRegistry();
    for (const id of ["sub_a", "sub_c"]) registry.put(subscription({ id }));
    registry.put({ ...filtered, id: "sub_b" });
    registry.put(subscription({ id: "sub_d", filter: compileFilter({ amount: 5 }) }));
    expect(idsOf(fanOut(at(400n, { body }), registry))).toEqual(["sub_a", "sub_c", "sub_d"]);
  });
});

describe("a place in the log", () => {
  test("is given once, and to the start that the mark names", () => {
    const registry = createRegistry();
    registry.put(
      subscription({
        revision: 9n,
        startRevision: 7n,
        startLsn: unplaced,
        former: [{ revision: 5n, events: ["won"], filter: undefined, startLsn: unplaced }],
      }),
    );
    expect(registry.place("sub_1", 6n, 50n)).toBe(false);
    expect(registry.place("sub_1", 5n, 100n)).toBe(true);
    expect(registry.place("sub_1", 5n, 101n)).toBe(false);
    expect(registry.place("sub_1", 7n, 200n)).toBe(true);
    expect(registry.place("sub_1", 7n, 201n)).toBe(false);
    expect(registry.place("sub_2", 7n, 201n)).toBe(false);
    expect(registry.get("sub_1")).toMatchObject({ startLsn: 200n, former: [{ startLsn: 100n }] });
  });

  test("stays, though a newer row was read before it was noted there", () => {
    const registry = createRegistry();
    registry.put(subscription({ revision: 1n, startLsn: unplaced }));
    registry.place("sub_1", 1n, 100n);
    registry.put(subscription({ revision: 2n, startRevision: 1n, startLsn: unplaced }));
    expect(registry.get("sub_1")).toMatchObject({ revision: 2n, startLsn: 100n });
    registry.put(
      subscription({
        revision: 3n,
        startLsn: unplaced,
        former: [{ revision: 1n, events: ["won"], filter: undefined, startLsn: unplaced }],
      }),
    );
    expect(registry.get("sub_1")).toMatchObject({ startLsn: unplaced, former: [{ revision: 1n, startLsn: 100n }] });
    expect(idsOf(fanOut(message({}), registry))).toEqual(["sub_1"]);
  });
});
