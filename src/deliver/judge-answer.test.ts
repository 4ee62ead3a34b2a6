import { expect, test } from "vitest";
import { judgeAnswer } from "./judge-answer.ts";

const judge = (status: number, headers: Record<string, string> = {}, body?: string) =>
  judgeAnswer({ status, headers, body: body === undefined ? undefined : Buffer.from(body) }, 5, 0);

test.each([200, 201, 202, 204, 299])("%i is a success", (status) => {
  expect(judge(status)).toEqual({ kind: "delivered", status, durationMs: 5, directive: undefined });
});

test.each([300, 302, 304, 400, 401, 404, 413, 418, 500, 502, 504, 599, 999])("%i is a failure that asks nothing", (status) => {
  expect(judge(status, { "retry-after": "7" }, "no")).toEqual({
    kind: "failed",
    reason: "status",
    status,
    durationMs: 5,
    response: Buffer.from("no"),
    retryAfterMs: undefined,
    directive: undefined,
  });
});

test("429 and 503 say how long to wait", () => {
  expect(judge(429, { "retry-after": "7" })).toMatchObject({ retryAfterMs: 7_000 });
  expect(judge(503, { "retry-after": "Thu, 01 Jan 1970 00:01:00 GMT" })).toMatchObject({ retryAfterMs: 60_000 });
  expect(judge(503, { "retry-after": "later" })).toMatchObject({ retryAfterMs: undefined });
});

test("410 asks to be left alone, and so does the header, on any answer and in any case", () => {
  expect(judge(410)).toMatchObject({ kind: "failed", directive: "disable" });
  expect(judge(200, { "webhook-delivery": " Disable " })).toMatchObject({ kind: "delivered", directive: "disable" });
  expect(judge(500, { "webhook-delivery": "ABORT-MESSAGE" })).toMatchObject({ kind: "failed", directive: "abort-message" });
  expect(judge(500, { "webhook-delivery": "disabled" })).toMatchObject({ directive: undefined });
});

test("a redirect says what to give instead", () => {
  const words = (location: string): string => String((judge(301, { location }, "moved") as { response: Buffer }).response);
  expect(words("https://example.com/new")).toBe("a redirect to https://example.com/new is a failure: give the final URL");
  expect(words("x".repeat(9_000)).length).toBeLessThan(600);
});
