import { expect, test } from "vitest";
import { AncrageError } from "../errors.ts";
import { createLogger } from "../log.ts";
import { formatLogLine } from "./format-log-line.ts";

/** A line as the pipeline really writes it, without its time. */
function logged(write: (log: ReturnType<typeof createLogger>) => void): string | undefined {
  let line = "";
  write(createLogger({ level: "trace", destination: { write: (text) => (line = text) } }));
  return formatLogLine(line)?.replace(/^\d\d:\d\d:\d\d /, "");
}

test("message first, then the fields; the usual level is not said", () => {
  expect(logged((log) => log.info({ event: "deal.won", key: "42", status: 200, note: "two words" }, "delivered"))).toBe(
    'delivered event=deal.won key=42 status=200 note="two words"',
  );
  expect(logged((log) => log.warn("slow"))).toBe("warn slow");
});

test("an error of ours shows its hint and no stack, any other its stack", () => {
  expect(logged((log) => log.error({ err: new AncrageError("ANCRAGE_SLOT_BUSY", "busy.", { hint: "Wait." }) }, "stopped"))).toBe(
    "error stopped\n  ANCRAGE_SLOT_BUSY: busy.\n  Wait.",
  );
  expect(logged((log) => log.error({ err: new Error("bug") }, "stopped"))).toMatch(/^error stopped\n {2}bug\nError: bug\n +at /);
});

test("what is not a line of the log stays as it is", () => {
  expect(formatLogLine("hello from an event file")).toBe("hello from an event file");
  expect(formatLogLine('{"a":1}')).toBe('{"a":1}');
  expect(formatLogLine("{broken")).toBe("{broken");
  expect(formatLogLine("  ")).toBeUndefined();
});
