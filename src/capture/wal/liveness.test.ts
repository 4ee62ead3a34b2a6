import { expect, test } from "vitest";
import { computeLiveness } from "./liveness.ts";

const quiet = { nowMs: 100_000, lastReceivedAtMs: 100_000, lastSentAtMs: 100_000, senderTimeoutMs: 10_000, isPaused: false };

test("a status is due after half the server's timeout, so that its own question still comes", () => {
  expect(computeLiveness({ ...quiet, lastSentAtMs: 95_001 })).toMatchObject({ shouldSend: false, isDead: false });
  expect(computeLiveness({ ...quiet, lastSentAtMs: 95_000 })).toMatchObject({ shouldSend: true, isDead: false });
});

test("a server that was silent for two timeouts is dead, but not while we do not read", () => {
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 80_001 }).isDead).toBe(false);
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 80_000 }).isDead).toBe(true);
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 0, isPaused: true })).toMatchObject({ isDead: false, isGivenUp: false });
  // After five it is not even asked about any more.
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 50_001 }).isGivenUp).toBe(false);
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 50_000 }).isGivenUp).toBe(true);
});

test("statuses go out while nothing is read: a server that waits for us must not give us up", () => {
  expect(computeLiveness({ ...quiet, lastSentAtMs: 95_000, isPaused: true }).shouldSend).toBe(true);
});

test("a timeout of 0 means that the server never gives up: nothing is derived from it", () => {
  const silent = { ...quiet, senderTimeoutMs: 0 };
  expect(computeLiveness(silent)).toMatchObject({ shouldSend: false, isDead: false });
  expect(computeLiveness({ ...silent, lastSentAtMs: 70_000 }).shouldSend).toBe(true);
  expect(computeLiveness({ ...silent, nowMs: 220_000, lastReceivedAtMs: 100_001 }).isDead).toBe(false);
  expect(computeLiveness({ ...silent, nowMs: 220_000 }).isDead).toBe(true);
});

test("a server that was silent for half its timeout, or five seconds, is asked where its log ends, but not while we do not read", () => {
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 95_001 }).shouldAsk).toBe(false);
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 95_000 }).shouldAsk).toBe(true);
  expect(computeLiveness({ ...quiet, lastReceivedAtMs: 0, isPaused: true }).shouldAsk).toBe(false);
  const patient = { ...quiet, senderTimeoutMs: 60_000, lastReceivedAtMs: 95_000 };
  expect(computeLiveness({ ...patient, lastSentAtMs: 95_001 }).shouldSend).toBe(false);
  expect(computeLiveness({ ...patient, lastSentAtMs: 95_000 })).toMatchObject({ shouldSend: true, shouldAsk: true, isDead: false });
});
