import type { LeaderRow } from "../store/leaders.ts";

/** When the lease was last known to be ours: read from both clocks *before* the database was asked. */
export interface Grant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/**
 * Whether a grant still stands.
 *
 * Both clocks must say so. The monotonic one never jumps, but on Linux it stands still while a machine is suspended, and its wall clock
 * is then what shows that time went by. A wall clock that is set forward costs a pause until the next renewal; one set back, nothing.
 */
export function isGranted(grant: Grant | undefined, now: Grant, leaseMs: number): boolean {
  return grant !== undefined && now.monotonicMs - grant.monotonicMs < leaseMs && now.wallMs - grant.wallMs < leaseMs;
}

/** Since when nobody was seen to hold the lease, and what the leader's row said all that time. */
export interface Quiet {
  readonly sinceMs: number;
  readonly epoch: bigint;
  readonly sessions: bigint;
}

/**
 * What a process that waits for the lead knows after one more look; undefined while somebody holds the lease.
 *
 * @param nowMs the monotonic clock *after* the look: a grant of the leader's is older than the loss of its session
 */
export function nextQuiet(quiet: Quiet | undefined, seen: LeaderRow, nowMs: number): Quiet | undefined {
  if (seen.isHeld) return undefined;
  // It was back between two looks, and may have lost its session again: its last grant may be as young as this look.
  if (quiet?.epoch !== seen.epoch || quiet.sessions !== seen.sessions)
    return { sinceMs: nowMs, epoch: seen.epoch, sessions: seen.sessions };
  return quiet;
}

/**
 * Milliseconds until the lease may be taken; 0: now.
 *
 * A lease that was lost (a crash, a cut network, a restart of the database) is left alone for its whole length, so that its holder, if it
 * lives, can take it again, and otherwise has stopped sending.
 */
export function leaseWaitMs(quiet: Quiet, { isGivenBack }: LeaderRow, nowMs: number, leaseMs: number): number {
  return isGivenBack ? 0 : Math.max(0, quiet.sinceMs + leaseMs - nowMs);
}
