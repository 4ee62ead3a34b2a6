import type { BatchInFlight, DeliveryState, DeliveryUpdate, Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";
import type { Outcome } from "./outcome.ts";
import { computeRetryDelayMs, type RetryPolicy } from "./retry.ts";

/** One message for one subscription, while it is in memory. */
export interface Delivery {
  readonly message: Message;
  readonly subscriptionId: string;
  /** The job whose lane it goes through. */
  readonly jobId?: string | undefined;
  readonly state: DeliveryState;
  readonly round: number;
  /** Made in this round. */
  readonly attempts: number;
  /** Whether the journal has a row of it: then it is updated from here on. */
  readonly hasRow: boolean;
  /** Milliseconds since the Unix epoch before which it is not tried; undefined: at once. */
  readonly nextAttemptAtMs: number | undefined;
  /** The batch that waits for its first row. */
  readonly batch: BatchInFlight | undefined;
}

/** A message that was just fanned out. */
export function newDelivery(message: Message, subscription: Subscription, batch: BatchInFlight): Delivery {
  return {
    message,
    subscriptionId: subscription.id,
    state: "pending",
    round: 1,
    attempts: 0,
    hasRow: false,
    nextAttemptAtMs: undefined,
    batch,
  };
}

/** What an outcome makes of a delivery: the delivery as it is now, and what the journal must write. */
export interface Step {
  readonly delivery: Delivery;
  readonly update: DeliveryUpdate;
}

//            delivered ◄────────────┐
//                ▲                  │
//   pending ─────┼──► retrying ─────┼──► exhausted      (an attempt failed, and none is left)
//      └─────────┴────────┴─────────┴──► canceled       (its subscription was deleted)

/** Turns an outcome into what happens next. Pure: time and chance are given. */
export function applyOutcome(
  delivery: Delivery,
  outcome: Outcome,
  policy: RetryPolicy,
  now: { readonly ms: number; readonly random: number },
): Step {
  const attempts = delivery.attempts + 1;
  if (outcome.kind === "delivered") {
    return step(delivery, { state: "delivered", attempts, nextAttemptAtMs: undefined }, outcome, now.ms);
  }
  const delayMs = computeRetryDelayMs(policy, attempts, now.random);
  return delayMs === undefined
    ? step(delivery, { state: "exhausted", attempts, nextAttemptAtMs: undefined }, outcome, now.ms)
    : step(delivery, { state: "retrying", attempts, nextAttemptAtMs: now.ms + delayMs }, outcome, now.ms);
}

/** Its row, without an attempt: it has been open for long, or leaves memory. */
export function suspend(delivery: Delivery, nowMs: number): Step {
  return step(
    delivery,
    { state: delivery.state, attempts: delivery.attempts, nextAttemptAtMs: delivery.nextAttemptAtMs },
    undefined,
    nowMs,
  );
}

/** Its subscription was deleted. */
export function cancel(delivery: Delivery, nowMs: number): Step {
  return step(delivery, { state: "canceled", attempts: delivery.attempts, nextAttemptAtMs: undefined }, undefined, nowMs);
}

function step(
  delivery: Delivery,
  to: Pick<Delivery, "state" | "attempts" | "nextAttemptAtMs">,
  outcome: Outcome | undefined,
  nowMs: number,
): Step {
  const { message, subscriptionId, round } = delivery;
  const failure = outcome?.kind === "failed" ? outcome : undefined;
  return {
    delivery: { ...delivery, ...to, hasRow: true, batch: undefined },
    update: {
      row: {
        messageId: message.id,
        subscriptionId,
        project: message.project,
        state: to.state,
        round,
        attempts: to.attempts,
        nextAttemptAtMs: to.nextAttemptAtMs,
        lastStatus: outcome?.status,
        lastReason: failure?.reason,
        durationMs: outcome?.durationMs,
        updatedAtMs: nowMs,
        jobId: delivery.jobId,
      },
      from: delivery.hasRow ? { state: delivery.state, attempts: delivery.attempts } : undefined,
      attempt:
        failure === undefined
          ? undefined
          : {
              messageId: message.id,
              subscriptionId,
              round,
              number: to.attempts,
              atMs: nowMs - failure.durationMs,
              status: failure.status,
              reason: failure.reason,
              durationMs: failure.durationMs,
              response: failure.response,
            },
      batch: delivery.batch,
    },
  };
}
