/** What came of one attempt, as data: a receiver's failure is no error of ours. */
export type Outcome =
  | {
      readonly kind: "delivered";
      readonly status: number;
      readonly durationMs: number;
      readonly directive?: Directive | undefined;
    }
  | {
      readonly kind: "failed";
      readonly reason: FailureReason;
      /** Where an answer came. */
      readonly status: number | undefined;
      readonly durationMs: number;
      /** The answer's first bytes, or what the socket said. */
      readonly response: Buffer | undefined;
      /** What a 429 or a 503 asked to be left alone for, 0 to 24 h; undefined where it asked nothing that can be read. */
      readonly retryAfterMs?: number | undefined;
      readonly directive?: Directive | undefined;
    };

/** No byte was sent, and that is no fault of the receiver's: it is no attempt, and counts for nothing. */
export interface Unsent {
  readonly kind: "unsent";
  /** What this machine lacks, in words; undefined where nobody wants it sent any more. */
  readonly shortage: string | undefined;
}

/**
 * What a receiver asks beyond the answer's status.
 *
 * - `disable`: it wants nothing more: a 410, or the answer's header `webhook-delivery: disable`.
 * - `abort-message`: it does not want this message again: `webhook-delivery: abort-message`.
 */
export type Directive = "disable" | "abort-message";

/**
 * - `status`: an answer that is not 2xx; a redirect is one of them.
 * - `timeout`: no whole answer within the deadline.
 * - `dns`: the name has no address, or its name server did not say.
 * - `refused`: nobody listens there, or no way leads there.
 * - `tls`: the certificate is not one for this name, or there was no agreement on how to speak.
 * - `reset`: the connection ended before the answer was whole.
 * - `protocol`: the answer is no HTTP/1.1.
 * - `blocked`: the address is not public and not allowed.
 * - `too-large`: the answer's headers are longer than what is read of them.
 * - `connection`: whatever else a socket says.
 */
export type FailureReason =
  | "status"
  | "timeout"
  | "dns"
  | "refused"
  | "tls"
  | "reset"
  | "protocol"
  | "blocked"
  | "too-large"
  | "connection";
