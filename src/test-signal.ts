/**
 * Points in the flow that a test may wait for, or act at; free in production, where none is given.
 *
 * (River's idea: a test that waits for a signal is neither slow nor flaky.)
 */
export type SignalName =
  | "captured"
  | "built"
  | "rebuilding"
  | "journaling"
  | "journaled"
  | "confirmed"
  | "attempted"
  | "outcome-journaled"
  | "idle-journaled";

export type TestSignal = (name: SignalName, detail?: unknown) => void | Promise<void>;
