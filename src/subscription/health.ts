/** How a receiver has been doing. What is kept of it over a restart. */
export interface Health {
  /** Milliseconds since the Unix epoch of the first failure that no success followed; undefined where the last attempt succeeded. */
  readonly firstFailureAtMs: number | undefined;
  /** Failures in a row. */
  readonly failures: number;
}

export const healthy: Health = { firstFailureAtMs: undefined, failures: 0 };
