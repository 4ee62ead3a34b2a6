import fc from "fast-check";
import { expect, test } from "vitest";
import type { Position } from "./capture/change.ts";
import { computeMessageId, dayOfMessage, formatDay, rejectionIdOf } from "./message-id.ts";

const lsn = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const anyInput = fc.record({
  sourceId: fc.constantFrom("wal-1", "wal-2"),
  committedAtUs: fc.bigInt({ min: 0n, max: 4_000_000_000_000_000n }),
  position: fc.record({ commitLsn: lsn, changeLsn: lsn, ordinal: fc.integer({ min: 0, max: 2 ** 31 - 1 }) }),
  event: fc.string({ minLength: 1 }),
  key: fc.string(),
});
type Input = { sourceId: string; committedAtUs: bigint; position: Position; event: string; key: string };
const idOf = (input: Input): string =>
  computeMessageId({ ...input, transaction: { xid: 1, commitLsn: input.position.commitLsn, committedAtUs: input.committedAtUs } });

test("an id has at most 64 characters, no dot, and names its day", () => {
  fc.assert(
    fc.property(anyInput, (input) => {
      const id = idOf(input);
      expect(id).toMatch(/^msg_[0-9A-HJKMNP-TV-Z]{56}$/);
      expect(dayOfMessage(id)).toBe(Math.floor(Number(input.committedAtUs / 1000n) / 86_400_000));
      expect(rejectionIdOf(id)).toBe(`rej_${id.slice(4)}`);
    }),
  );
});

test("of one commit time, ids sort by position", () => {
  fc.assert(
    fc.property(anyInput, anyInput, (a, b) => {
      const [first, second] = [idOf(a), idOf({ ...b, committedAtUs: a.committedAtUs })];
      const order =
        a.position.commitLsn === b.position.commitLsn
          ? a.position.changeLsn === b.position.changeLsn
            ? a.position.ordinal - b.position.ordinal
            : Number(a.position.changeLsn - b.position.changeLsn)
          : Number(a.position.commitLsn - b.position.commitLsn);
      fc.pre(order !== 0);
      expect(first < second).toBe(order < 0);
    }),
  );
});

test("one position, read twice, gives one id; another event, key or source gives another", () => {
  fc.assert(
    fc.property(anyInput, (input) => {
      expect(idOf(input)).toBe(idOf({ ...input, position: { ...input.position } }));
      expect(idOf(input)).not.toBe(idOf({ ...input, event: `${input.event}x` }));
      expect(idOf(input)).not.toBe(idOf({ ...input, key: `${input.key}x` }));
      expect(idOf(input)).not.toBe(idOf({ ...input, sourceId: `${input.sourceId}x` }));
    }),
  );
});

test("a day is written as PostgreSQL reads it", () => {
  expect(formatDay(20_781)).toBe("2026-11-24");
});
