import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { newSubscriptionSchema } from "../http/schemas.ts";
import { checkSubscription, checkUrl, type Fault } from "./check-subscription.ts";
import { createId } from "../create-id.ts";

const events = ["NewOpportunity", "deal.won"];
const check = (input: unknown) => checkSubscription(input, { events, url: {}, nowMs: 0 });
const faultsOf = (input: unknown): readonly Fault[] => {
  const checked = check(input);
  return checked.kind === "refused" ? checked.faults : [];
};

describe("URLs", () => {
  test.each([
    ["https://example.com", "https://example.com/"],
    ["HTTPS://EXAMPLE.com:443/Path?q=1", "https://example.com/Path?q=1"],
    ["https://bücher.example/", "https://xn--bcher-kva.example/"],
    ["https://example.com:8443/a%20b", "https://example.com:8443/a%20b"],
  ])("%s is taken as %s", (text, href) => {
    expect(checkUrl(text, {})).toEqual({ href });
  });

  test.each([
    ["http://example.com/", "expected an https: URL"],
    ["ftp://example.com/", "expected an https: URL"],
    ["javascript:alert(1)", "expected an https: URL"],
    ["example.com/hook", "expected an https: URL"],
    ["", "expected an https: URL"],
    ["https://", "expected an https: URL"],
    ["https://user:pass@example.com/", "without user and password"],
    ["https://user@example.com/", "without user and password"],
    ["https://example.com/#part", "without a fragment"],
    ["https://example.com/#", "without a fragment"],
    [" https://example.com/", "without spaces and control characters"],
    ["https://exam\nple.com/", "without spaces and control characters"],
    ["https://example.com/\u0000", "without spaces and control characters"],
    [`https://example.com/${"a".repeat(2029)}`, "at most 2048 characters, got 2049"],
    [`https://example.com/${"é".repeat(1000)}`, "at most 2048 characters once encoded, got 6020"],
    [42, "expected an https: URL, got 42"],
  ])("%j is refused", (value, fault) => {
    expect(checkUrl(value, {})).toEqual({ fault: expect.stringContaining(fault) });
  });

  test("userinfo is not repeated in the message", () => {
    expect(JSON.stringify(checkUrl("https://user:pass@example.com/", {}))).not.toContain("pass@");
  });

  test("http: is taken where it is allowed, and the longest URL too", () => {
    expect(checkUrl("http://example.com/", { allowHttp: true })).toEqual({ href: "http://example.com/" });
    expect(checkUrl(`https://example.com/${"a".repeat(2028)}`, {})).toHaveProperty("href");
  });
});

describe("subscriptions", () => {
  test("defaults are filled in, events named once", () => {
    expect(check({ events: ["deal.won", "deal.won"], url: "https://example.com" })).toEqual({
      kind: "checked",
      value: {
        events: ["deal.won"],
        url: "https://example.com/",
        description: "",
        format: "standard",
        filter: null,
        headers: {},
        order: "none",
        limits: {},
        ignoredActors: [],
        metadata: {},
        expiresAt: null,
        project: undefined,
        secret: undefined,
      },
    });
  });

  test.each([
    [{ description: "a\u0000b" }, "/description"],
    [{ description: "a".repeat(1001) }, "/description"],
    [{ metadata: { note: "a\u0000b" } }, "/metadata"],
    [{ metadata: { note: "a\\\u0000b" } }, "/metadata"],
    [{ metadata: { note: "\ud800" } }, "/metadata"],
    [{ metadata: { "\u0000": 1 } }, "/metadata"],
    [{ metadata: { note: "a".repeat(8192) } }, "/metadata"],
    [{ project: "" }, "/project"],
    [{ project: "a".repeat(201) }, "/project"],
    [{ secret: 4 }, "/secret"],
    [{ "a/b~c": 1 }, "/a~1b~0c"],
    [{ events: ["deal.won", 4] }, "/events/1"],
    [{ events: "deal.won" }, "/events"],
    [{ events: Array.from({ length: 101 }, () => "deal.won") }, "/events"],
  ])("%j is refused, with its place", (fields, pointer) => {
    const base = "events" in fields ? {} : { event: "deal.won" };
    expect(faultsOf({ ...base, url: "https://example.com/", ...fields }).map((fault) => fault.pointer)).toEqual([pointer]);
  });

  test("metadata may hold whole pairs, and the six characters of an escaped NUL", () => {
    const metadata = { regex: "\\u0000", face: "😀" };
    expect(faultsOf({ event: "deal.won", url: "https://example.com/", metadata })).toEqual([]);
  });

  test("a secret is in no message", () => {
    expect(JSON.stringify(faultsOf({ event: "deal.won", url: "https://example.com/", secret: "whsec_hunter2" }))).not.toContain("hunter2");
  });

  test("whatever is sent, it is checked or refused with at least one fault, never thrown", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.jsonValue(), fc.object({ key: fc.constantFrom("event", "events", "url", "format", "metadata") })),
        (input) => {
          const checked = check(input);
          return checked.kind === "checked" || checked.faults.length > 0;
        },
      ),
    );
  });

  test("the document declares exactly the fields that are taken", () => {
    for (const name of Object.keys(newSubscriptionSchema.shape)) {
      expect(faultsOf({ [name]: null }).filter((fault) => fault.detail.startsWith("unknown field"))).toEqual([]);
    }
    const [unknown] = faultsOf({ nothing: 1 });
    expect(unknown?.detail.split("expected one of ")[1]?.split(", ").toSorted()).toEqual(
      Object.keys(newSubscriptionSchema.shape).toSorted(),
    );
  });
});

test("ids sort as they were made", () => {
  fc.assert(
    fc.property(fc.nat(2 ** 46), fc.nat(2 ** 46), fc.uint8Array({ minLength: 10, maxLength: 10 }), (a, b, random) => {
      const [first, second] = [createId("sub_", Math.min(a, b), random), createId("sub_", Math.max(a, b), random)];
      expect(first).toMatch(/^sub_[0-9A-HJKMNP-TV-Z]{26}$/);
      return first <= second;
    }),
  );
});
