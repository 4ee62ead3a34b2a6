import fc from "fast-check";
import { expect, test } from "vitest";
import type { DeliveryState, DeliveryUpdate } from "../message.ts";
import { coalesceUpdates } from "./coalesce.ts";

interface Row {
  readonly state: DeliveryState;
  readonly attempts: number;
  readonly round: number;
}

const updateOf = (message: string, from: Row | undefined, to: Row): DeliveryUpdate => ({
  row: {
    messageId: message,
    subscriptionId: "sub_A",
    project: "default",
    ...to,
    nextAttemptAtMs: undefined,
    lastStatus: undefined,
    lastReason: undefined,
    durationMs: undefined,
    updatedAtMs: 0,
  },
  from,
  attempt: undefined,
  batch: undefined,
});

const anyRow = fc.record({
  state: fc.constantFrom<DeliveryState>("pending", "retrying", "delivered", "canceled"),
  attempts: fc.nat({ max: 2 }),
  round: fc.constantFrom(1, 2),
});
const anyUpdate = fc
  .record({ message: fc.constantFrom("msg_1", "msg_2", "msg_3"), from: anyRow, to: anyRow })
  // An outcome belongs to the round that its attempt began in.
  .map(({ message, from, to }) => updateOf(message, from, { ...to, round: from.round }));

/** As SQL does it: those of a statement see the rows as they were before it. */
function apply(
  rows: Map<string, Row>,
  statement: readonly { readonly from: DeliveryUpdate["from"]; readonly row: DeliveryUpdate["row"] }[],
): readonly boolean[] {
  const before = new Map(rows);
  return statement.map(({ from, row }) => {
    const found = before.get(row.messageId);
    const matches = found !== undefined && found.state === from?.state && found.attempts === from.attempts && found.round === row.round;
    if (matches) rows.set(row.messageId, { state: row.state, attempts: row.attempts, round: row.round });
    return matches;
  });
}

test("the waves leave the rows as the updates would, one after the other, and call the same ones late", () => {
  fc.assert(
    fc.property(
      fc.array(anyUpdate, { maxLength: 12 }),
      fc.dictionary(fc.constantFrom("msg_1", "msg_2", "msg_3"), anyRow),
      (updates, start) => {
        const one = new Map(Object.entries(start));
        const late = updates.filter((update) => apply(one, [update])[0] === false);
        // What follows on from a late outcome is late with it, even where somebody else has brought the row to where it began.
        const chains = coalesceUpdates(updates).flat();
        fc.pre(chains.every((chain) => new Set(chain.updates.map((update) => late.includes(update))).size === 1));
        const waves = new Map(Object.entries(start));
        const lateInWaves = coalesceUpdates(updates).flatMap((chains) => {
          const written = apply(waves, chains);
          return chains.filter((_, i) => written[i] === false).flatMap((chain) => chain.updates);
        });
        expect(waves).toEqual(one);
        expect(new Set(lateInWaves)).toEqual(new Set(late));
      },
    ),
    { numRuns: 3_000 },
  );
});

test("a delivery that failed and then succeeded within a batch is one row", () => {
  const failed = updateOf("msg_1", undefined, { state: "retrying", attempts: 1, round: 1 });
  const delivered = updateOf("msg_1", { state: "retrying", attempts: 1, round: 1 }, { state: "delivered", attempts: 2, round: 1 });
  expect(coalesceUpdates([failed, delivered])).toEqual([[{ from: undefined, row: delivered.row, updates: [failed, delivered] }]]);
});
