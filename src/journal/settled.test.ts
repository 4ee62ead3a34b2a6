import fc from "fast-check";
import { expect, test } from "vitest";
import type { Position } from "../capture/change.ts";
import type { BatchInFlight } from "../message.ts";
import { computeSettled } from "./settled.ts";

const at = (lsn: number): Position => ({ commitLsn: BigInt(lsn), changeLsn: 0n, ordinal: 0 });

/** A message of the naive model: where it stands, its id (which does not follow the positions), and its deliveries without a row. */
interface NaiveMessage {
  readonly lsn: number;
  readonly id: string;
  open: number;
}

const anyBatches = fc.array(
  fc.record({ messages: fc.array(fc.nat({ max: 3 }), { maxLength: 4 }), idsFrom: fc.nat({ max: 20 }), rowsWritten: fc.nat({ max: 12 }) }),
  { minLength: 1, maxLength: 30 },
);

test("every message after the mark, and none before it, may still owe a row; a start reads from the least id of those", () => {
  fc.assert(
    fc.property(anyBatches, (batches) => {
      const all: NaiveMessage[] = [];
      const inFlight: BatchInFlight[] = [];
      const messagesOf = new Map<BatchInFlight, NaiveMessage[]>();
      let journaled = at(0);
      let lsn = 0;
      for (const { messages, idsFrom, rowsWritten } of batches) {
        // Rows of earlier batches go with this one, wherever they belong.
        for (let i = 0; i < rowsWritten; i++) {
          const batch = inFlight.find(({ open }) => open > 0);
          const message = messagesOf.get(batch!)?.find(({ open }) => open > 0);
          if (batch === undefined || message === undefined) break;
          batch.open--;
          message.open--;
        }
        const added = messages.map((open, i) => {
          const number = String(Math.max(0, 100 + lsn + i - idsFrom)).padStart(4, "0");
          return { lsn: lsn + i + 1, id: `msg_${number}_${lsn + i}`, open };
        });
        lsn += messages.length + 1;
        const leastId = added.map(({ id }) => id).toSorted()[0];
        const settled = computeSettled(inFlight, journaled, { position: at(lsn), leastId });

        // The crash comes right after this batch: the naive truth is every message that owes a row, the new ones included.
        const owing = [...all.filter(({ open }) => open > 0), ...added];
        for (const message of owing) expect(at(message.lsn).commitLsn).toBeGreaterThan(settled.position.commitLsn);
        expect(settled.unsettledFrom === undefined).toBe(owing.length === 0);
        for (const { id } of owing) expect(id >= settled.unsettledFrom!).toBe(true);
        // And it is not behind for nothing: all is settled when nobody owes anything.
        expect(owing.length > 0 || settled.position.commitLsn === BigInt(lsn)).toBe(true);

        all.push(...added);
        const open = messages.reduce((sum, count) => sum + count, 0);
        if (open > 0 && leastId !== undefined) {
          const batch = { before: journaled, leastId, open };
          inFlight.push(batch);
          messagesOf.set(batch, added);
        }
        journaled = at(lsn);
      }
    }),
    { numRuns: 500 },
  );
});
