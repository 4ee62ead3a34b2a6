/** The running system, as a library. (Being written.) */
export interface Ancrage {
  /** Answers Ancrage's HTTP API. Connects on the first request if `start` was not called. */
  readonly fetch: (request: Request) => Promise<Response>;
  /** Begins to capture and deliver; resolves when capture streams. */
  start(): Promise<void>;
  /** Stops reading, finishes what is in flight, journals it. Idempotent, and safe before `start`. */
  stop(): Promise<void>;
}
