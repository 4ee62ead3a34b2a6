export { fire } from "./testing/fire.ts";
export type { Fired, FiredMessage, FiredRejection, Happening } from "./testing/fire.ts";
export type { ReceivedMessage } from "./testing/test-receiver.ts";
export { startTest } from "./testing/start-test.ts";
export type { TestOptions, TestRun } from "./testing/start-test.ts";
