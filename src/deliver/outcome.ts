/** What came of one attempt, as data: a receiver's failure is no error of ours. */
export type Outcome =
  | { readonly kind: "delivered"; readonly status: number; readonly durationMs: number }
  | {
      readonly kind: "failed";
      readonly reason: FailureReason;
      /** Where an answer came. */
      readonly status: number | undefined;
      readonly durationMs: number;
      /** The answer's first bytes, or what the socket said. */
      readonly response: Buffer | undefined;
    };

/**
 * - `status`: an answer that is not 2xx; a redirect is one of them.
 * - `timeout`: no whole answer within the deadline.
 * - `connection`: refused, reset, no such name, TLS, an answer that is no HTTP.
 * - `blocked`: the address is not public and nobody allowed it.
 * - `too-large`: the answer's headers.
 */
export type FailureReason = "status" | "timeout" | "connection" | "blocked" | "too-large";
