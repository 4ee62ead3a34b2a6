import { expect, test } from "vitest";
import { computeOutboxResume, endOfTransaction, formatCursor, parseCursor, startOfOutbox, type PollPoint } from "./cursor.ts";

const from: PollPoint = { snapshot: "10:12:10", endLsn: 100n, atUs: 5n };
const to: PollPoint = { snapshot: "12:15:", endLsn: 140n, atUs: 9n };
const at = (commitLsn: bigint, changeLsn: bigint) => ({ commitLsn, changeLsn, ordinal: 0 });

test("what is written is read again", () => {
  for (const cursor of [{ from: startOfOutbox(7n) }, { from, to }, { from, to, lastLsn: 103n, isSwitched: true }]) {
    expect(parseCursor(formatCursor(cursor))).toEqual(cursor);
  }
});

test("where nothing of the stretch is in the journal, it is looked anew", () => {
  expect(computeOutboxResume({ from, to, lastLsn: 103n }, at(100n, endOfTransaction))).toEqual({ from });
});

test("a stretch that was begun is gone on with, and one that is whole is left", () => {
  const cursor = { from, to, lastLsn: 103n };
  expect(computeOutboxResume(cursor, at(102n, endOfTransaction))).toEqual({ from, begun: { to, at: at(102n, endOfTransaction) } });
  expect(computeOutboxResume(cursor, at(103n, 17n))).toEqual({ from, begun: { to, at: at(103n, 17n) } });
  expect(computeOutboxResume(cursor, at(103n, endOfTransaction))).toEqual({ from: to });
  expect(computeOutboxResume({ ...cursor, isSwitched: true }, at(103n, endOfTransaction))).toEqual({ from: to, isSwitched: true });
  // Not all of it is listed: its last transaction is not known.
  expect(computeOutboxResume({ from, to }, at(103n, endOfTransaction))).toEqual({ from, begun: { to, at: at(103n, endOfTransaction) } });
});
