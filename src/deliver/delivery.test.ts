import fc from "fast-check";
import { expect, test } from "vitest";
import type { DeliveryState, Message } from "../message.ts";
import { applyOutcome, cancel, suspend, transitions, type Delivery, type DeliveryEvent } from "./delivery.ts";
import type { Outcome } from "./outcome.ts";

const message: Message = {
  id: "msg_1",
  project: "default",
  event: "E",
  key: "1",
  position: { commitLsn: 1n, changeLsn: 0n, ordinal: 0 },
  committedAtUs: 0n,
  body: Buffer.from("{}"),
  envelopes: {},
};
const fresh: Delivery = {
  message,
  subscriptionId: "sub_1",
  state: "pending",
  round: 1,
  attempts: 0,
  hasRow: false,
  nextAttemptAtMs: undefined,
  batch: undefined,
};
const failed: Outcome = { kind: "failed", reason: "status", status: 503, durationMs: 2, response: undefined };
const delivered: Outcome = { kind: "delivered", status: 200, durationMs: 2 };
const policy = { scheduleS: [0, 5, 10], jitter: 0 };
const now = { ms: 1_000, random: 0.5 };
const states = Object.keys(transitions) as readonly DeliveryState[];
const over = new Set<DeliveryState>(["delivered", "exhausted", "canceled"]);

test("from what is over only a resend leads out, and from what is not every other event does", () => {
  for (const state of states) {
    for (const [event, next] of Object.entries(transitions[state])) {
      expect({ state, event, next: next === undefined }).toEqual({ state, event, next: over.has(state) !== (event === "resend") });
    }
  }
});

test("every state can be come to, and whatever happens a delivery ends in three steps or goes on retrying", () => {
  const event = fc.constantFrom<DeliveryEvent>("success", "failure", "failure-last", "abort", "cancel", "expire", "resend");
  const seen = new Set<DeliveryState>();
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), (events) => {
      let state: DeliveryState = "pending";
      for (const one of events) {
        seen.add(state);
        const next: DeliveryState | undefined = transitions[state][one];
        if (next === undefined) continue;
        expect(over.has(next) || (one === "failure" ? next === "retrying" : next === "pending")).toBe(true);
        state = next;
      }
    }),
    { numRuns: 200 },
  );
  expect(seen).toEqual(new Set(states));
});

test("attempts take a delivery along the table, and what is over takes no more", () => {
  const once = applyOutcome(fresh, failed, policy, now);
  expect(once.delivery).toMatchObject({ state: "retrying", attempts: 1, nextAttemptAtMs: 6_000 });
  const twice = applyOutcome(once.delivery, failed, policy, now);
  expect(twice.update.from).toEqual({ state: "retrying", attempts: 1 });
  const thrice = applyOutcome(twice.delivery, failed, policy, now);
  expect(thrice.delivery).toMatchObject({ state: "exhausted", attempts: 3, nextAttemptAtMs: undefined });
  expect(applyOutcome(twice.delivery, delivered, policy, now).delivery.state).toBe("delivered");
  expect(cancel(twice.delivery, 1).update.row).toMatchObject({ state: "canceled", attempts: 2 });
  expect(suspend(fresh, 1).update.row).toMatchObject({ state: "pending", attempts: 0 });
  expect(() => cancel(thrice.delivery, 1)).toThrow(/exhausted/);
  expect(() => applyOutcome(thrice.delivery, delivered, policy, now)).toThrow(/exhausted/);
});

test("Retry-After puts the next attempt off, and never brings it forward", () => {
  expect(applyOutcome(fresh, { ...failed, retryAfterMs: 60_000 }, policy, now).delivery.nextAttemptAtMs).toBe(61_000);
  expect(applyOutcome(fresh, { ...failed, retryAfterMs: 1 }, policy, now).delivery.nextAttemptAtMs).toBe(6_000);
});

test("a receiver that does not want a message gets it no more; one that took it all the same has it", () => {
  const aborted = applyOutcome(fresh, { ...failed, directive: "abort-message" }, policy, now);
  expect(aborted.update.row).toMatchObject({ state: "exhausted", attempts: 1, lastReason: "aborted", nextAttemptAtMs: undefined });
  expect(aborted.update.attempt).toMatchObject({ reason: "status", status: 503 });
  expect(applyOutcome(fresh, { ...delivered, directive: "abort-message" }, policy, now).delivery.state).toBe("delivered");
});
