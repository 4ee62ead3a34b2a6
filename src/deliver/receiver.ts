import { healthy, type Health } from "../subscription/health.ts";
import type { Subscription } from "../subscription/registry.ts";
import { advanceBreaker, breakerOf, closed, isFailing, nextBreaker, nextHealth, noteStart, type Breaker } from "./breaker.ts";
import type { Clock } from "../clock.ts";
import type { Rank } from "./grants.ts";
import type { Lane } from "./lane.ts";
import type { Outcome } from "./outcome.ts";
import { createPace, takeTurn, untilTurnMs, type Pace } from "./pace.ts";
import type { RetryPolicy } from "./retry.ts";
import { firstWindow, nextWindow } from "./window.ts";

/** What the lanes of one subscription share: how the server behind its URL is doing. Times are monotonic. */
export interface Receiver {
  readonly subscriptionId: string;
  /** By job; what happens now has the empty name. */
  readonly lanes: Map<string, Lane>;
  health: Health;
  breaker: Breaker;
  window: number;
  inFlight: number;
  readonly pace: Pace;
  /** It asked to be left alone until then. */
  heldUntilMs: number;
  /** Its last attempt ran to the deadline. */
  hasTimedOut: boolean;
  /** The revision of the subscription that nothing more goes to, because the receiver said so, or is gone. */
  stoppedRevision: bigint | undefined;
  /** What an attempt takes, of the last ones. */
  durationMs: number;
  /** When an attempt ended, or the first one began. */
  progressAtMs: number;
  /** When the due timer looks at it again. */
  wakeAtMs: number;
  healthToldAtMs: number;
}

export function createReceiver(
  subscriptionId: string,
  known: Health | undefined,
  policy: RetryPolicy,
  now: { readonly ms: number; readonly monotonicMs: number },
): Receiver {
  const health = known ?? healthy;
  return {
    subscriptionId,
    lanes: new Map(),
    health,
    breaker: breakerOf(health, policy, now.ms, now.monotonicMs),
    window: health.failures === 0 ? firstWindow : 1,
    inFlight: 0,
    pace: createPace(now.monotonicMs),
    heldUntilMs: 0,
    hasTimedOut: false,
    stoppedRevision: undefined,
    durationMs: 0,
    progressAtMs: now.monotonicMs,
    wakeAtMs: Number.POSITIVE_INFINITY,
    healthToldAtMs: now.monotonicMs,
  };
}

/** How much a receiver took at a time says something of it for so long: one that answers slowly would need many seconds to show it again. */
const windowKeptMs = 10 * 60_000;

/** Nothing is known of it that matters: a new one would begin like it. */
export const isForgettable = (receiver: Receiver, monotonicMs: number): boolean =>
  receiver.lanes.size + receiver.inFlight + receiver.health.failures === 0 &&
  (receiver.window === firstWindow || monotonicMs - receiver.progressAtMs > windowKeptMs) &&
  receiver.breaker.kind === "closed" &&
  receiver.heldUntilMs <= monotonicMs &&
  receiver.stoppedRevision === undefined;

/** Nothing is sent to it until its subscription is another one. */
export const isStopped = (receiver: Receiver, subscription: Subscription): boolean =>
  subscription.state !== "enabled" || (receiver.stoppedRevision !== undefined && subscription.revision <= receiver.stoppedRevision);

/** @returns milliseconds until it may be asked at all, whatever is in flight; 0: now */
export function untilOpenMs({ heldUntilMs, breaker }: Receiver, monotonicMs: number): number {
  return Math.max(0, heldUntilMs - monotonicMs, breaker.kind === "open" ? breaker.probeAtMs - monotonicMs : 0);
}

/** A job's lane gets a quarter: it must not crowd out what happens now. */
const jobShare = 4;

/** Whether a lane is full: what ends next makes room. */
export function isFull(lane: Lane, subscription: Subscription): boolean {
  const { receiver } = lane;
  const window = lane.id.jobId === undefined ? receiver.window : Math.max(1, Math.floor(receiver.window / jobShare));
  if (lane.sending.size >= window) return true;
  // The one attempt of an open breaker.
  if (receiver.breaker.kind === "open" && receiver.inFlight > 0) return true;
  return receiver.inFlight >= (subscription.limits?.inFlight ?? Number.POSITIVE_INFINITY);
}

/** @returns milliseconds until an attempt may start, by breaker, Retry-After and rate; 0: now */
export function untilStartMs(receiver: Receiver, subscription: Subscription, clock: Clock): number {
  // Most of them, and asked a few times for each attempt: not even the clock is read.
  if (receiver.breaker.kind === "closed" && receiver.heldUntilMs === 0 && subscription.limits?.perSecond === undefined) return 0;
  const monotonicMs = clock.monotonicMs();
  receiver.breaker = advanceBreaker(receiver.breaker, monotonicMs);
  const openInMs = untilOpenMs(receiver, monotonicMs);
  const perSecond = rateOf(receiver, subscription);
  return openInMs > 0 || perSecond === undefined ? openInMs : untilTurnMs(receiver.pace, perSecond, monotonicMs);
}

/** How many connections of an origin a lane that runs to the deadline may hold while others want some. */
const mostSlow = 2;

export function rankOf({ id, receiver }: Lane): Rank {
  if (receiver.hasTimedOut && receiver.inFlight >= mostSlow) return "slow";
  return id.jobId === undefined ? "now" : "job";
}

export function noteAttempt(receiver: Receiver, subscription: Subscription, monotonicMs: number): void {
  if (receiver.inFlight === 0) receiver.progressAtMs = monotonicMs;
  receiver.inFlight++;
  const perSecond = rateOf(receiver, subscription);
  if (perSecond !== undefined) takeTurn(receiver.pace, perSecond, monotonicMs);
  receiver.breaker = noteStart(receiver.breaker);
}

function rateOf({ breaker }: Receiver, { limits }: Subscription): number | undefined {
  const allowed = breaker.kind === "recovering" ? breaker.perSecond : undefined;
  if (allowed === undefined || limits?.perSecond === undefined) return allowed ?? limits?.perSecond;
  return Math.min(allowed, limits.perSecond);
}

export interface Noted {
  /** Its health as others may want to keep it: at its first failure, at its recovery, and once a minute between. */
  readonly toTell: Health | undefined;
  /** Why its subscription is to be disabled. */
  readonly disable: "gone" | "asked" | "failing" | undefined;
}

const tellEachMs = 60_000;

/** An attempt ended that says nothing of it. */
export function noteEnd(receiver: Receiver, monotonicMs: number): Noted {
  receiver.inFlight--;
  receiver.progressAtMs = monotonicMs;
  return { toTell: undefined, disable: undefined };
}

/** What an outcome says of it. */
export function noteOutcome(
  receiver: Receiver,
  outcome: Outcome,
  options: {
    readonly isProbe: boolean;
    readonly policy: RetryPolicy;
    readonly ms: number;
    readonly monotonicMs: number;
    readonly random: number;
  },
): Noted {
  const { monotonicMs, ms } = options;
  const isSuccess = outcome.kind === "delivered";
  const before = receiver.health;
  const wasOpen = receiver.breaker.kind === "open";
  noteEnd(receiver, monotonicMs);
  receiver.durationMs += (outcome.durationMs - receiver.durationMs) / 8;
  receiver.hasTimedOut = outcome.kind === "failed" && outcome.reason === "timeout";
  receiver.health = nextHealth(before, isSuccess, ms);
  receiver.breaker = nextBreaker(receiver.breaker, { ...options, health: receiver.health, isSuccess });
  // One that comes back begins with a window of one.
  receiver.window = wasOpen ? 1 : nextWindow(receiver.window, isSuccess);
  if (outcome.kind === "failed" && outcome.retryAfterMs !== undefined) {
    receiver.heldUntilMs = Math.max(receiver.heldUntilMs, monotonicMs + outcome.retryAfterMs);
  }
  const isTold = isSuccess ? before.failures === 0 : before.failures > 0 && monotonicMs - receiver.healthToldAtMs < tellEachMs;
  if (!isTold) receiver.healthToldAtMs = monotonicMs;
  const isAsked = outcome.directive === "disable";
  return {
    toTell: isTold ? undefined : receiver.health,
    disable: isAsked ? (outcome.status === 410 ? "gone" : "asked") : isFailing(receiver.health, ms) ? "failing" : undefined,
  };
}

/** Its subscription was enabled again: what was held against it is forgotten. */
export function forgive(receiver: Receiver): void {
  receiver.stoppedRevision = undefined;
  receiver.health = healthy;
  receiver.breaker = closed;
  receiver.window = 1;
  receiver.heldUntilMs = 0;
}

/**
 * How long a lane will need for what it holds, by what it has shown: how many at a time, and how long each takes. Of two lanes that
 * share the memory the slower one gives its own back.
 */
export function computeDrainMs(lane: Lane, monotonicMs: number): number {
  const { receiver } = lane;
  const stalledMs = receiver.inFlight > 0 ? monotonicMs - receiver.progressAtMs : 0;
  const eachMs = Math.max(receiver.durationMs, stalledMs, 1);
  return untilOpenMs(receiver, monotonicMs) + (lane.held.size * eachMs) / receiver.window;
}
