import fc from "fast-check";
import { expect, test } from "vitest";
import { formatLsn, parseLsn } from "./lsn.ts";

test("an LSN survives its text", () => {
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (lsn) => parseLsn(formatLsn(lsn)) === lsn));
});

test("what is no LSN is refused with its value", () => {
  for (const text of ["", "0", "0/", "/0", "0/123456789", "g/0", "-1/0"]) {
    expect(() => parseLsn(text)).toThrow(JSON.stringify(text));
  }
});
