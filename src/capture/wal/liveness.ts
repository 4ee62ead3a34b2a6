/** When to send a status, and when to give a silent connection up. Pure; all times are milliseconds of a monotonic clock. */
export interface LivenessInput {
  readonly nowMs: number;
  readonly lastReceivedAtMs: number;
  readonly lastSentAtMs: number;
  /** `wal_sender_timeout` of the session. 0: the server never gives up, and may never ask for a reply (firezone #9828). */
  readonly senderTimeoutMs: number;
  /** We have stopped reading: silence is then our own doing (rocicorp/mono #6344). */
  readonly isPaused: boolean;
}

export interface Liveness {
  readonly shouldSend: boolean;
  /** The status asks for an answer. */
  readonly shouldAsk: boolean;
  readonly isDead: boolean;
  /** Dead, and for so long that it need not be asked about any more. */
  readonly isGivenUp: boolean;
}

/** Used where the server has no timeout of its own: nothing may be derived from 0. */
const defaultTimeoutMs = 60_000;
/**
 * A server with nothing to say may say nothing for half its timeout; where its log ends now is needed sooner, for idle positions: until one
 * is journaled, a pull feed holds its newest messages back.
 */
const mostSilentMs = 5_000;

/**
 * A status goes out after half the server's timeout: early enough to be alive, late enough that the server's own question (at half
 * of it, too) still comes and carries its position (rocicorp/mono #4954). A peer that was silent for two timeouts is dead.
 *
 * While the server skips a large transaction in which nothing is tracked it has nothing to say, and our statuses keep it from asking:
 * it would look dead, and again at the same place after each reconnection. So a status asks once the server was silent for some seconds.
 * Every hundred changes that it skips it reads what we sent, and answers (`WalSndUpdateProgress` in walsender.c).
 */
export function computeLiveness(input: LivenessInput): Liveness {
  const timeoutMs = input.senderTimeoutMs > 0 ? input.senderTimeoutMs : defaultTimeoutMs;
  const silentMs = input.isPaused ? 0 : input.nowMs - input.lastReceivedAtMs;
  const askAfterMs = Math.min(mostSilentMs, timeoutMs / 2);
  const shouldAsk = silentMs >= askAfterMs;
  return {
    shouldSend: input.nowMs - input.lastSentAtMs >= (shouldAsk ? askAfterMs : timeoutMs / 2),
    shouldAsk,
    isDead: silentMs >= 2 * timeoutMs,
    // Where the question about it has no answer either: one such answer must not end a session that works, to begin all over.
    isGivenUp: silentMs >= 5 * timeoutMs,
  };
}
