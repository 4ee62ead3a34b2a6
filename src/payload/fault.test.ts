import { expect, test } from "vitest";
import { AncrageError } from "../errors.ts";
import { BatchFault, isPassingFault } from "./fault.ts";

const coded = (code: string): Error => Object.assign(new Error(code), { code });

test.each([
  "08006", // connection_failure
  "40001", // serialization_failure
  "40P01", // deadlock_detected
  "53300", // too_many_connections
  "57014", // query_canceled: a statement timeout
  "57P01", // admin_shutdown
  "55P03", // lock_not_available
  "25P03", // idle_in_transaction_session_timeout
  "ECONNRESET",
  "EPIPE", // looks like an SQLSTATE
])("%s passes by itself", (code) => {
  expect(isPassingFault(coded(code))).toBe(true);
});

test("a statement with more values than it has places is of what was asked; a pooler that says the same word is the connection", () => {
  expect(isPassingFault(coded("08P01"))).toBe(false);
  expect(isPassingFault(Object.assign(coded("08P01"), { severity: "FATAL" }))).toBe(true);
});

test.each([
  ["57014", true],
  ["53400", true],
  ["57P01", false],
  ["53100", false],
])("%s may be the statement's own fault: %s", (code, isOfStatement) => {
  expect(new BatchFault(coded(code)).isOfStatement).toBe(isOfStatement);
});

test("an error of the driver without any code is the connection", () => {
  expect(isPassingFault(new Error("Connection terminated unexpectedly"))).toBe(true);
  expect(isPassingFault(new AncrageError("ANCRAGE_DATABASE_UNREACHABLE", "no answer"))).toBe(true);
});

test.each(["42601", "42P01", "22P02", "25006", "25001", "0A000", "23505", "P0001", "XX000", "54001"])("%s is of what was asked", (code) => {
  expect(isPassingFault(coded(code))).toBe(false);
});

test("what was thrown before anything was sent is of what was asked", () => {
  expect(isPassingFault(new AncrageError("ANCRAGE_DEFINITION_INVALID", "no such table"))).toBe(false);
  expect(isPassingFault(new TypeError("Converting circular structure to JSON"))).toBe(false);
});
