import { createSecretKey, randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { formatCause, parseCause } from "./cause.ts";

const key = createSecretKey(randomBytes(64));
const idArbitrary = (prefix: string) => fc.stringMatching(/^[0-9A-Z]{10,58}$/).map((digits) => prefix + digits);
const causeArbitrary = fc.record({
  messageId: idArbitrary("msg_"),
  subscriptionId: idArbitrary("sub_"),
  depth: fc.integer({ min: 1, max: 99 }),
});

test("a cause comes back as it was sent, and fits a header", () => {
  fc.assert(
    fc.property(causeArbitrary, (cause) => {
      const text = formatCause(key, cause);
      expect(parseCause(key, text)).toEqual(cause);
      expect(text).toMatch(/^[\x21-\x7e]{1,256}$/);
    }),
  );
});

test("one character changed, or signed with another key, it is none", () => {
  const other = createSecretKey(randomBytes(64));
  fc.assert(
    fc.property(causeArbitrary, fc.nat(), fc.constantFrom("0", "Z", ".", "a"), (cause, at, character) => {
      const text = formatCause(key, cause);
      const index = at % text.length;
      const changed = text.slice(0, index) + character + text.slice(index + 1);
      fc.pre(changed !== text);
      expect(parseCause(key, changed)).toBeUndefined();
      expect(parseCause(other, text)).toBeUndefined();
    }),
  );
});

test.each(["", "x", "msg_1.sub_1.0.aaaaaaaaaaaaaaaaaaaaaa", "msg_1.sub_1.1.", "\0", "msg_1.sub_1.1.é".repeat(9)])("%j is none", (text) => {
  expect(parseCause(key, text)).toBeUndefined();
});
