/**
 * Points in the flow that a test may wait for, or act at; free in production, where none is given.
 *
 * (River's idea: a test that waits for a signal is neither slow nor flaky.)
 */
export type SignalName =
  /** A transaction was read whole, and may not be visible yet; its xid. */
  | "received"
  /** The source gave a stretch of the log; `Captured[]`. */
  | "captured"
  /** The database could not be read, and the batch is built again. */
  | "rebuilding"
  /** The journal is about to write a batch, for the first time or again. */
  | "journaling"
  /** The batch is in, and its messages are handed to delivery: `{ messages, owed, updates }`, `owed` with the subscriptions that get them. */
  | "journaled"
  /** An attempt has ended; `{ message, outcome, subscription, after }`, with the delivery as it is from now on. */
  | "attempted"
  /** This process leads from now on; the `Leader`. */
  | "leading"
  /** The slot, and what capture stands on, were looked at. */
  | "watched";

export type TestSignal = (name: SignalName, detail?: unknown) => void | Promise<void>;
