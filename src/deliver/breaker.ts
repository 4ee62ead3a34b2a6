import { healthy, type Health } from "../subscription/health.ts";
import { computeRetryDelayMs, type RetryPolicy } from "./retry.ts";

/**
 * What keeps a receiver that is down from being asked by everything that waits for it. Times are monotonic.
 *
 *   closed ──(10 failures in a row)──► open ──(a success)──► recovering ──(it takes enough, or wants less)──► closed
 *      ▲                                 ▲ └─(its probe failed: the next step)─┘      │
 *      └─────────────────────────────────└──────────────(10 failures in a row)────────┘
 */
export type Breaker =
  | { readonly kind: "closed" }
  /** One attempt, the probe, at `probeAtMs`; all else waits, and its attempts do not rise. */
  | { readonly kind: "open"; readonly step: number; readonly probeAtMs: number }
  /** In each second at most 1.5 times what went in the second before. */
  | {
      readonly kind: "recovering";
      readonly perSecond: number;
      readonly sinceMs: number;
      readonly secondAtMs: number;
      readonly started: number;
    };

export const closed: Breaker = { kind: "closed" };

const openAfter = 10;
/** A receiver that comes back gets so many in its first second. */
const firstPerSecond = 10;
const growth = 1.5;
/** From here on the window alone is enough. */
const enoughPerSecond = 1_000;
const leastRecoveringMs = 60_000;
const disableAfterMs = 5 * 24 * 3_600_000;

export function nextHealth(health: Health, isSuccess: boolean, nowMs: number): Health {
  return isSuccess ? healthy : { firstFailureAtMs: health.firstFailureAtMs ?? nowMs, failures: health.failures + 1 };
}

/** Five days since the first failure that no success followed, and at least ten of them: nobody is there any more. */
export function isFailing({ firstFailureAtMs, failures }: Health, nowMs: number): boolean {
  return firstFailureAtMs !== undefined && failures >= openAfter && nowMs - firstFailureAtMs >= disableAfterMs;
}

export interface BreakerInput {
  /** After the outcome. */
  readonly health: Health;
  readonly isSuccess: boolean;
  /** It was the probe of an open breaker, and not an attempt from before it opened. */
  readonly isProbe: boolean;
  readonly policy: RetryPolicy;
  readonly monotonicMs: number;
  readonly random: number;
}

/** What an outcome makes of it. */
export function nextBreaker(breaker: Breaker, input: BreakerInput): Breaker {
  const { health, isSuccess, isProbe, monotonicMs } = input;
  switch (breaker.kind) {
    case "closed":
      return !isSuccess && health.failures >= openAfter ? openAt(1, input) : breaker;
    case "open":
      if (isSuccess) return recoveringFrom(firstPerSecond, monotonicMs, monotonicMs);
      return isProbe ? openAt(breaker.step + 1, input) : breaker;
    case "recovering":
      if (isSuccess) return breaker;
      if (health.failures >= openAfter) return openAt(1, input);
      return { ...breaker, perSecond: Math.max(1, breaker.perSecond / 2) };
    default:
      return breaker satisfies never;
  }
}

/** A start with what is known from before: a receiver that was down is probed once, and goes on at the step that it had come to. */
export function breakerOf(health: Health, policy: RetryPolicy, nowMs: number, monotonicMs: number): Breaker {
  if (health.failures < openAfter) return closed;
  const downMs = nowMs - (health.firstFailureAtMs ?? nowMs);
  const step = policy.scheduleS.findIndex((delayS, index) => index > 0 && delayS * 1000 > downMs);
  return { kind: "open", step: step === -1 ? policy.scheduleS.length - 1 : step, probeAtMs: monotonicMs };
}

function openAt(step: number, { policy, monotonicMs, random }: BreakerInput): Breaker {
  // After the last step of the schedule its pause goes on.
  const last = Math.min(step, policy.scheduleS.length - 1);
  return { kind: "open", step: last, probeAtMs: monotonicMs + (computeRetryDelayMs(policy, last, random) ?? 0) };
}

const recoveringFrom = (perSecond: number, sinceMs: number, nowMs: number): Breaker => ({
  kind: "recovering",
  perSecond,
  sinceMs,
  secondAtMs: nowMs,
  started: 0,
});

/** An attempt starts. */
export function noteStart(breaker: Breaker): Breaker {
  return breaker.kind === "recovering" ? { ...breaker, started: breaker.started + 1 } : breaker;
}

/** Moves a recovery on to the present second. */
export function advanceBreaker(breaker: Breaker, monotonicMs: number): Breaker {
  if (breaker.kind !== "recovering" || monotonicMs - breaker.secondAtMs < 1_000) return breaker;
  // It could have had twice as many: then it is not this that holds it back.
  if (monotonicMs - breaker.sinceMs >= leastRecoveringMs && breaker.started * 2 < breaker.perSecond) return closed;
  // A quiet second is no reason to go slower than what was allowed in it.
  const perSecond = Math.max(breaker.perSecond, breaker.started * growth);
  return perSecond >= enoughPerSecond ? closed : recoveringFrom(perSecond, breaker.sinceMs, monotonicMs);
}
