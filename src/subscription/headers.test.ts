import { expect, test } from "vitest";
import type { Fault } from "./fault.ts";
import { checkHeaders, flattenHeaders } from "./headers.ts";

const check = (value: unknown): { readonly headers: unknown; readonly faults: readonly Fault[] } => {
  const faults: Fault[] = [];
  return { headers: checkHeaders(value, (pointer, detail) => void faults.push({ pointer, detail })), faults };
};

test("names are taken in lower case, and appended as a flat list", () => {
  const { headers, faults } = check({ Authorization: "Bearer abc", "X-Tenant": "42" });
  expect(faults).toEqual([]);
  expect(headers).toEqual({ authorization: "Bearer abc", "x-tenant": "42" });
  expect(flattenHeaders({ authorization: "Bearer abc", "x-tenant": "42" })).toEqual(["authorization", "Bearer abc", "x-tenant", "42"]);
  expect(check(undefined)).toEqual({ headers: {}, faults: [] });
});

test.each(
  [
    "Host",
    "connection",
    "Content-Length",
    "content-type",
    "transfer-encoding",
    "TE",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "keep-alive",
    "cookie",
    "webhook-signature",
    "ancrage-cause",
    "user-agent",
    "accept-encoding",
    "forwarded",
    "X-Forwarded-Host",
    "X-HTTP-Method-Override",
  ].map((name) => [name] as const),
)("%s cannot be set", (name) => {
  expect(check({ [name]: "x" })).toEqual({
    headers: undefined,
    faults: [{ pointer: `/headers/${name}`, detail: expect.stringContaining("cannot be set") }],
  });
});

test.each([
  [{ "x y": "1" }, "/headers/x y", "letters, digits and hyphens"],
  [{ "": "1" }, "/headers/", "letters, digits and hyphens"],
  [{ "x/y": "1" }, "/headers/x~1y", "letters, digits and hyphens"],
  [{ x: "a\r\nb: c" }, "/headers/x", "printable ASCII"],
  [{ x: "é" }, "/headers/x", "printable ASCII"],
  [{ x: "…" }, "/headers/x", "printable ASCII"],
  [{ x: "" }, "/headers/x", "printable ASCII"],
  [{ x: " a" }, "/headers/x", "no space at either end"],
  [{ x: 1 }, "/headers/x", "expected a text"],
  [{ x: null }, "/headers/x", "of type null"],
  [{ x: "a".repeat(1025) }, "/headers/x", "at most 1024"],
  [{ x: "1", X: "2" }, "/headers/X", "twice"],
  [[], "/headers", "got an array"],
  [Object.fromEntries(Array.from({ length: 21 }, (_, index) => [`x-${index}`, "1"])), "/headers", "at most 20 headers, got 21"],
  [Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`x-${index}`, "1".repeat(1000)])), "/headers", "at most 8192 bytes"],
])("%j is refused", (value, pointer, words) => {
  expect(check(value).faults).toEqual([{ pointer, detail: expect.stringContaining(words) }]);
});

test("no message shows a value", () => {
  const { faults } = check({ host: "hunter2", "x y": "hunter2", x: "hunter2é", y: ["hunter2"] });
  expect(faults).toHaveLength(4);
  expect(JSON.stringify(faults)).not.toContain("hunter2");
});
