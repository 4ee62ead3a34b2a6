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

/**
 * What may happen to a delivery.
 *
 * - `failure`: an attempt failed, and one is left; `failure-last`: none is.
 * - `abort`: an attempt failed, and the receiver does not want this message again.
 * - `cancel`: its subscription was deleted, or somebody asked for it; `expire`: its message is too old to be kept.
 * - `resend`: by hand. It begins a new round: attempts count from nothing.
 */
export type DeliveryEvent = "success" | "failure" | "failure-last" | "abort" | "cancel" | "expire" | "resend";

//                      ┌── success ──────────► delivered ──┐
//   ┌─► pending ───────┤                                   │
//   │      │ failure   ├── failure-last, abort ► exhausted ┤
//   │      ▼           │                                   │
//   │   retrying ──────┤                                   │
//   │    ▲    │        └── cancel, expire ────► canceled ──┤
//   │    └────┘ failure                                    │
//   └───────────────────────── resend (one round up) ──────┘

/** From each state by each event to the next one; undefined where it does not happen. (Complete: the compiler asks for each pair.) */
export const transitions: Readonly<Record<DeliveryState, Readonly<Record<DeliveryEvent, DeliveryState | undefined>>>> = {
  pending: {
    success: "delivered",
    failure: "retrying",
    "failure-last": "exhausted",
    abort: "exhausted",
    cancel: "canceled",
    expire: "canceled",
    resend: undefined,
  },
  retrying: {
    success: "delivered",
    failure: "retrying",
    "failure-last": "exhausted",
    abort: "exhausted",
    cancel: "canceled",
    expire: "canceled",
    resend: undefined,
  },
  delivered: { ...never(), resend: "pending" },
  exhausted: { ...never(), resend: "pending" },
  canceled: { ...never(), resend: "pending" },
};

/** What is over stays as it is; only somebody's hand begins it anew. */
function never(): Readonly<Record<DeliveryEvent, undefined>> {
  return {
    success: undefined,
    failure: undefined,
    "failure-last": undefined,
    abort: undefined,
    cancel: undefined,
    expire: undefined,
    resend: undefined,
  };
}

/** Turns an outcome into what happens next. Pure: time and chance are given. */
export function applyOutcome(
  delivery: Delivery,
  outcome: Outcome,
  policy: RetryPolicy,
  now: { readonly ms: number; readonly random: number },
): Step {
  const attempts = delivery.attempts + 1;
  if (outcome.kind === "delivered") return step(delivery, { event: "success", attempts, nextAttemptAtMs: undefined }, outcome, now.ms);
  const delayMs = computeRetryDelayMs(policy, attempts, now.random);
  const event = outcome.directive === "abort-message" ? "abort" : delayMs === undefined ? "failure-last" : "failure";
  const nextAttemptAtMs = event === "failure" && delayMs !== undefined ? now.ms + Math.max(delayMs, outcome.retryAfterMs ?? 0) : undefined;
  return step(delivery, { event, attempts, nextAttemptAtMs }, outcome, now.ms);
}

/** Its row, without an attempt: it has been open for long, or leaves memory. */
export function suspend(delivery: Delivery, nowMs: number): Step {
  const { attempts, nextAttemptAtMs } = delivery;
  return step(delivery, { event: undefined, attempts, nextAttemptAtMs }, undefined, nowMs);
}

/** Its subscription was deleted, or somebody asked for it. */
export function cancel(delivery: Delivery, nowMs: number): Step {
  return step(delivery, { event: "cancel", attempts: delivery.attempts, nextAttemptAtMs: undefined }, undefined, nowMs);
}

interface Move extends Pick<Delivery, "attempts" | "nextAttemptAtMs"> {
  /** Undefined: its state stays. */
  readonly event: DeliveryEvent | undefined;
}

function step(delivery: Delivery, { event, attempts, nextAttemptAtMs }: Move, outcome: Outcome | undefined, nowMs: number): Step {
  const { message, subscriptionId, round, jobId } = delivery;
  const state = event === undefined ? delivery.state : transitions[delivery.state][event];
  if (state === undefined) throw new Error(`expected a delivery that is not over, got ${delivery.state} and "${event ?? ""}"`);
  const failure = outcome?.kind === "failed" ? outcome : undefined;
  return {
    delivery: { ...delivery, state, attempts, nextAttemptAtMs, hasRow: true, batch: undefined },
    update: {
      row: {
        messageId: message.id,
        subscriptionId,
        project: message.project,
        state,
        round,
        attempts,
        nextAttemptAtMs,
        lastStatus: outcome?.status,
        lastReason: event === "abort" ? "aborted" : failure?.reason,
        durationMs: outcome?.durationMs,
        updatedAtMs: nowMs,
        jobId,
      },
      from: delivery.hasRow ? { state: delivery.state, attempts: delivery.attempts } : undefined,
      attempt:
        failure === undefined
          ? undefined
          : {
              messageId: message.id,
              subscriptionId,
              round,
              number: attempts,
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
