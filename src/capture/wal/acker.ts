/**
 * What may be confirmed to PostgreSQL, as functions of values.
 *
 * The server forgets its log up to what we confirm, so a position counts only once all before it is in the journal. The two npm
 * clients for this protocol confirm what was merely *received*, and lose changes by it (`docs/decisions/0002-own-replication-client.md`).
 */
export interface AckState {
  /** Everything up to here is in the journal. Only this is ever confirmed. */
  readonly journaledLsn: bigint;
  /** The end of the last whole transaction that was received. */
  readonly receivedLsn: bigint;
  /** Between Begin and Commit. */
  readonly isInTransaction: boolean;
  /** How far the server had read when it last sent a keepalive. */
  readonly keepaliveLsn: bigint;
}

export function initialAckState(journaledLsn: bigint): AckState {
  return { journaledLsn, receivedLsn: journaledLsn, isInTransaction: false, keepaliveLsn: 0n };
}

export type AckEvent =
  | { readonly kind: "begin" }
  | { readonly kind: "commit"; readonly endLsn: bigint }
  | { readonly kind: "keepalive"; readonly lsn: bigint }
  | { readonly kind: "journaled"; readonly lsn: bigint }
  | { readonly kind: "disconnected" };

export function nextAckState(state: AckState, event: AckEvent): AckState {
  switch (event.kind) {
    case "begin":
      return { ...state, isInTransaction: true };
    case "commit":
      return { ...state, isInTransaction: false, receivedLsn: max(state.receivedLsn, event.endLsn) };
    case "keepalive":
      return { ...state, keepaliveLsn: max(state.keepaliveLsn, event.lsn) };
    case "journaled":
      return { ...state, journaledLsn: max(state.journaledLsn, event.lsn) };
    case "disconnected":
      // A keepalive of the old connection says nothing about what the new one will send again.
      return { ...state, isInTransaction: false, keepaliveLsn: 0n };
    default:
      return event satisfies never;
  }
}

/**
 * A keepalive's position that may be journaled, and then confirmed, as an idle position.
 *
 * It counts only while nothing is outstanding. Never counting it would keep the log of a busy database for as long as the tracked
 * tables are quiet (rocicorp/mono #3463, pgjdbc #1328).
 *
 * @returns the position, or `undefined` while something received is not journaled or the server has read nothing new
 */
export function idlePosition(state: AckState): bigint | undefined {
  const isOutstanding = state.isInTransaction || state.receivedLsn > state.journaledLsn;
  return !isOutstanding && state.keepaliveLsn > state.journaledLsn ? state.keepaliveLsn : undefined;
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
