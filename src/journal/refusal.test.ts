import { expect, test } from "vitest";
import { classifyRefusal, type Refusal } from "./refusal.ts";

test.each<[string, string | undefined, Refusal]>([
  ["22021", undefined, "data"], // a NUL in a text
  ["23505", "messages_20261124_pkey", "data"],
  ["23502", undefined, "data"],
  ["23514", "settings_only_row_check", "data"],
  ["23514", undefined, "unable"], // no partition for the row
  ["23505", "batches_pkey", "superseded"],
  ["08006", undefined, "unable"],
  ["40001", undefined, "unable"],
  ["53100", undefined, "unable"], // disk full
  ["55P03", undefined, "unable"],
  ["57014", undefined, "unable"],
  ["57P01", undefined, "unable"],
  ["25006", undefined, "unable"], // read-only
  ["42P01", undefined, "unable"],
  ["P0001", undefined, "unable"],
])("%s of %s: %s", (code, constraint, expected) => {
  expect(classifyRefusal(Object.assign(new Error("refused"), { code, constraint }))).toBe(expected);
});

test("what has no SQLSTATE is a lost connection, or a fault of ours: waited out, and shown", () => {
  expect(classifyRefusal(new Error("Connection terminated unexpectedly"))).toBe("unable");
  expect(classifyRefusal(Object.assign(new Error("reset"), { code: "ECONNRESET" }))).toBe("unable");
});
