import fc from "fast-check";
import { expect, test } from "vitest";
import { AncrageError } from "./errors.ts";
import { createLogger, type LogOptions, type Logger, redactText } from "./log.ts";

const planted = "hunter2-planted-secret";

interface Capture {
  readonly log: Logger;
  readonly lines: string[];
}

function capture(options: Partial<LogOptions> = {}): Capture {
  const lines: string[] = [];
  return { lines, log: createLogger({ level: "trace", destination: { write: (line) => void lines.push(line) }, ...options }) };
}

test("a line is JSON with the level as a word and the time as ISO 8601", () => {
  const { log, lines } = capture();
  log.info({ delivery: "dlv_1", durationMs: 3, endLsn: 7n }, "delivered");
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    level: "info",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    delivery: "dlv_1",
    durationMs: 3,
    endLsn: 7,
    msg: "delivered",
  });
});

test("what is below the level is not written", () => {
  const { log, lines } = capture({ level: "warn" });
  log.info("no");
  log.warn("yes");
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('"msg":"yes"');
});

const places: readonly [string, (log: Logger) => void][] = [
  ["a key", (log) => log.info({ token: planted })],
  ["a nested key", (log) => log.info({ request: { options: [{ secretKey: planted }] } })],
  ["a header", (log) => log.info({ headers: { "x-api-thing": planted, "content-type": "text/plain" } })],
  ["a signature", (log) => log.info({ "webhook-signature": planted })],
  ["a child's binding", (log) => log.child({ authorization: planted }).info("x")],
  ["a URL's password", (log) => log.info({ database: `postgres://app:${planted}@db:5432/app` })],
  ["a URL's query", (log) => log.info({ url: `https://example.com/hook?key=${planted}&b=1` })],
  ["a URL in a message", (log) => log.info(`no answer from https://example.com/hook?key=${planted}`)],
  ["a bearer token", (log) => log.info(`the header was Bearer ${planted}`)],
  ["a subscription's secret", (log) => log.info({ note: `whsec_${planted}` })],
  ["an error's message", (log) => log.error({ err: new Error(`refused: postgres://u:${planted}@db/app`) })],
  ["an error's fields", (log) => log.error({ err: Object.assign(new Error("x"), { headers: { a: planted }, row: planted }) })],
  ["an error's cause", (log) => log.error({ err: new AncrageError("ANCRAGE_PROTOCOL", "x", { cause: new Error(`Bearer ${planted}`) }) })],
  ["an error under another key", (log) => log.error({ reason: Object.assign(new Error("x"), { row: planted }) })],
];

test.each(places)("a secret in %s is taken out", (_place, write) => {
  const { log, lines } = capture();
  write(log);
  expect(lines).toHaveLength(1);
  expect(lines[0]).not.toContain(planted);
  expect(() => JSON.parse(lines[0] ?? "")).not.toThrow();
});

test("a known secret is taken out wherever it stands", () => {
  const { log, lines } = capture({ secrets: [planted, undefined, ""] });
  log.info({ note: `its value is ${planted}.` }, `and ${planted}`);
  expect(lines.join("")).not.toContain(planted);
  expect(lines[0]).toContain("its value is [redacted].");
});

test("an error keeps what a person needs: code, message, hint, stack, cause", () => {
  const { log, lines } = capture();
  log.error({ err: new AncrageError("ANCRAGE_SLOT_BUSY", "busy", { hint: "wait", cause: new Error("inner") }) }, "stopped");
  expect(JSON.parse(lines[0] ?? "").err).toMatchObject({
    code: "ANCRAGE_SLOT_BUSY",
    message: "busy",
    hint: "wait",
    cause: { message: "inner" },
  });
});

test("what is no secret stays as it was", () => {
  const text = "delivered to https://example.com/hook at 12:00, see https://example.com/a#b";
  expect(redactText(text)).toBe(text);
  expect(redactText("https://u:p@example.com/a?b=c d")).toBe("https://[redacted]@example.com/a?[redacted] d");
});

test("a cycle ends", () => {
  const { log, lines } = capture();
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  log.info(cycle, "x");
  expect(lines[0]).toContain("[too deep]");
});

test("a line stays JSON whatever is in it", () => {
  fc.assert(
    fc.property(fc.string(), fc.webUrl({ withQueryParameters: true }), fc.dictionary(fc.string(), fc.jsonValue()), (words, url, fields) => {
      const { log, lines } = capture();
      log.info({ fields, url }, `${words} ${url} Bearer ${words}`);
      JSON.parse(lines[0] ?? "");
      expect(lines).toHaveLength(1);
    }),
  );
});

test("a long text is cut before it is searched for secrets: a line never takes the process's time", () => {
  const lines: string[] = [];
  const log = createLogger({ level: "info", destination: { write: (line: string) => void lines.push(line) } });
  log.info({ key: "a-".repeat(100_000) }, "x".repeat(12_000_000));
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    key: expect.stringContaining("(200000 characters)"),
    msg: expect.stringContaining("(12000000 characters)"),
  });
});
