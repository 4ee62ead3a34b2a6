import fc from "fast-check";
import { expect, test } from "vitest";
import { comparePositions, type Position } from "../capture/change.ts";
import type { DeliveryUpdate, Message, Rejection } from "../message.ts";
import type { Batch } from "./journal.ts";
import { splitBatch } from "./split.ts";

const at = (lsn: number): Position => ({ commitLsn: BigInt(lsn), changeLsn: 1n, ordinal: 0 });
const messageAt = (lsn: number, id: string): Message => ({
  id,
  project: "default",
  event: "E",
  key: "1",
  position: at(lsn),
  committedAtUs: 0n,
  body: Buffer.alloc(0),
  envelopes: {},
});
const rejectionAt = (lsn: number, id: string): Rejection => ({
  ...messageAt(lsn, id),
  reason: "schema",
  error: "",
  occurrence: Buffer.alloc(0),
});
const updateOf = (id: string): DeliveryUpdate => ({
  row: {
    messageId: id,
    subscriptionId: "sub_A",
    project: "default",
    state: "delivered",
    round: 1,
    attempts: 1,
    nextAttemptAtMs: undefined,
    lastStatus: 200,
    lastReason: undefined,
    durationMs: 1,
    updatedAtMs: 0,
  },
  from: undefined,
  attempt: undefined,
  batch: undefined,
});

/** Several of one position are of one change. */
const anyBatch = fc
  .record({
    lsns: fc.array(fc.tuple(fc.integer({ min: 11, max: 25 }), fc.boolean()), { maxLength: 25 }),
    updates: fc.nat({ max: 9 }),
    starts: fc.nat({ max: 2 }),
  })
  .map(({ lsns, updates, starts }): Batch => {
    const sorted = lsns.toSorted(([a], [b]) => a - b);
    return {
      messages: sorted.flatMap(([lsn, isMessage], i) => (isMessage ? [messageAt(lsn, `msg_${i}`)] : [])),
      rejections: sorted.flatMap(([lsn, isMessage], i) => (isMessage ? [] : [rejectionAt(lsn, `rej_${i}`)])),
      updates: Array.from({ length: updates }, (_, i) => updateOf(`msg_old${i}`)),
      starts: Array.from({ length: starts }, (_, i) => ({ id: `sub_${i}`, revision: 1n, lsn: 30n })),
      journaled: at(30),
      endLsn: 31n,
    };
  });

function parts(batch: Batch, from: Pick<Batch, "journaled" | "endLsn">): readonly Batch[] {
  const halves = splitBatch(batch, from);
  if (halves === undefined) return [batch];
  return [...parts(halves[0], from), ...parts(halves[1], { journaled: halves[0].journaled, endLsn: halves[0].endLsn })];
}

test("split as far as it goes, a batch is what it was, in its order, and never cut inside a change", () => {
  const from = { journaled: at(10), endLsn: 9n };
  fc.assert(
    fc.property(anyBatch, (batch) => {
      const all = parts(batch, from);
      expect(all.flatMap(({ messages }) => messages)).toEqual(batch.messages);
      expect(all.flatMap(({ rejections }) => rejections)).toEqual(batch.rejections);
      expect(all.flatMap(({ updates }) => updates)).toEqual(batch.updates);
      expect(all.flatMap(({ starts }) => starts)).toEqual(batch.starts);
      expect(all.at(-1)).toMatchObject({ journaled: batch.journaled, endLsn: batch.endLsn });
      let before: Position = from.journaled;
      for (const [i, part] of all.entries()) {
        const positions = [...part.messages, ...part.rejections].map(({ position }) => position.commitLsn);
        // One outcome, or the messages and rejections of one change; nothing that a crash between two parts would skip or repeat.
        expect(part.updates.length + new Set(positions).size).toBeLessThanOrEqual(1);
        for (const lsn of positions) expect(lsn > before.commitLsn && lsn <= part.journaled.commitLsn).toBe(true);
        expect(comparePositions(before, part.journaled)).toBeLessThanOrEqual(0);
        // Only the last says that the log was passed, and places what stands at its end.
        expect(i === all.length - 1 || (part.endLsn === from.endLsn && part.starts.length === 0)).toBe(true);
        before = part.journaled;
      }
    }),
    { numRuns: 500 },
  );
});
