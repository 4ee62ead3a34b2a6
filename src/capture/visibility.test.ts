import fc from "fast-check";
import { expect, test } from "vitest";
import { isVisible, parseSnapshot, widenXid } from "./visibility.ts";

test("a snapshot is read as PostgreSQL writes it", () => {
  expect(parseSnapshot("795:799:795,797")).toEqual({ xmin: 795n, xmax: 799n, inProgress: new Set([795n, 797n]) });
  expect(parseSnapshot("795:795:")).toEqual({ xmin: 795n, xmax: 795n, inProgress: new Set() });
  expect(parseSnapshot("4294967299:4294967300:4294967299").xmin).toBe(4_294_967_299n);
  for (const wrong of ["", "795:799", "a:b:c", "1:2:3;4", " 1:2:"]) {
    expect(() => parseSnapshot(wrong)).toThrow(`got ${JSON.stringify(wrong)}`);
  }
});

const epoch = fc.bigInt({ min: 0n, max: 1_000n });
/** A full id, as the server has it, near a wrap-around of its 32 bits more often than not. */
const fullXid = fc.oneof(
  fc.bigInt({ min: 3n, max: 2n ** 44n }),
  fc.tuple(epoch, fc.bigInt({ min: -2_000n, max: 2_000n })).map(([turns, near]) => (turns + 1n) * 2n ** 32n + near),
);

test("32 bits are widened to the id that was meant, up to 2^31 away and across the wrap-around", () => {
  fc.assert(
    fc.property(fullXid, fc.bigInt({ min: -(2n ** 31n) + 1n, max: 2n ** 31n - 1n }), (reference, distance) => {
      const meant = reference + distance;
      fc.pre(meant >= 3n);
      expect(widenXid(Number(meant & 0xffff_ffffn), reference)).toBe(meant);
    }),
    { numRuns: 1_000 },
  );
});

test("visible is what is over: before xmin, or before xmax and not in progress", () => {
  fc.assert(
    fc.property(
      fullXid,
      fc.uniqueArray(fc.bigInt({ min: 0n, max: 50n }), { maxLength: 20 }),
      fc.bigInt({ min: -100n, max: 100n }),
      (base, running, offset) => {
        const xmax = base + 60n;
        const inProgress = new Set(running.map((one) => base + one));
        const xmin = [...inProgress].reduce((least, one) => (one < least ? one : least), xmax);
        const xid = base + offset;
        fc.pre(xid >= 3n);
        const snapshot = parseSnapshot(`${xmin}:${xmax}:${[...inProgress].join(",")}`);
        expect(isVisible(Number(xid & 0xffff_ffffn), snapshot)).toBe(xid < xmax && !inProgress.has(xid));
      },
    ),
    { numRuns: 1_000 },
  );
});
