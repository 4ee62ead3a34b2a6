import { expect, test } from "vitest";
import { formatLsn } from "./lsn.ts";
import { computeResume, type Resume, type ResumeInput } from "./resume-position.ts";
import type { SlotRow } from "./store/capture-state.ts";

const slotAt = (lsn: bigint, over: Partial<SlotRow> = {}): SlotRow => ({
  confirmedLsn: formatLsn(lsn),
  restartLsn: formatLsn(lsn),
  walStatus: "reserved",
  invalidationReason: null,
  activePid: null,
  plugin: "pgoutput",
  database: "app",
  isFailover: false,
  ...over,
});
const at = new Date("2026-11-01T10:22:00Z");
const resume = (over: Partial<ResumeInput> = {}): Resume =>
  computeResume({
    slotName: "ancrage_1",
    slot: slotAt(100n),
    database: "app",
    journal: { endLsn: 100n, at },
    flushLsn: 500n,
    isAtEndOfGap: false,
    timeline: 1,
    lastTimeline: 1,
    ...over,
  });

test("the first start reads from where the slot stands, each later one from the journal's end", () => {
  expect(resume({ journal: undefined, slot: slotAt(40n) })).toEqual({ kind: "resume", endLsn: 40n, isAfterGap: false });
  expect(resume()).toEqual({ kind: "resume", endLsn: 100n, isAfterGap: false });
  // What is journaled need not be confirmed yet.
  expect(resume({ slot: slotAt(40n) })).toEqual({ kind: "resume", endLsn: 100n, isAfterGap: false });
});

test("a slot beyond the journal's end is gone on from only at the end of a gap that was noted", () => {
  expect(resume({ slot: slotAt(200n), isAtEndOfGap: true })).toEqual({ kind: "resume", endLsn: 200n, isAfterGap: true });
  expect(resume({ slot: slotAt(200n) })).toMatchObject({
    kind: "lost",
    reason: "slot-moved",
    what: expect.stringContaining("was moved to 0/C8"),
    fromLsn: 100n,
    fromAt: at,
  });
});

test.each([
  ["gone", undefined, "slot-dropped", "is gone"],
  ["lost", slotAt(100n, { walStatus: "lost", restartLsn: null }), "slot-invalidated", "(wal_removed)"],
  ["lost, as 17 says it", slotAt(100n, { walStatus: "lost", invalidationReason: "idle_timeout" }), "slot-invalidated", "(idle_timeout)"],
  ["never made whole", slotAt(100n, { confirmedLsn: null }), "slot-invalidated", "was invalidated"],
  ["of another plugin", slotAt(100n, { plugin: "test_decoding" }), "slot-foreign", 'of the plugin "test_decoding"'],
  ["of another database", slotAt(100n, { database: "other" }), "slot-foreign", 'the database "other"'],
] as const)("a slot that is %s is lost, also before anything was journaled", (_, slot, reason, words) => {
  const expected = { kind: "lost", reason, what: expect.stringContaining(words) };
  expect(resume({ slot })).toMatchObject(expected);
  expect(resume({ slot, journal: undefined })).toMatchObject(expected);
});

test("a journal that ends after the server's log was copied from elsewhere, or the server restored", () => {
  expect(resume({ flushLsn: 99n })).toMatchObject({ reason: "log-went-back", what: expect.stringContaining("went back in time") });
  expect(resume({ flushLsn: 100n })).toMatchObject({ kind: "resume" });
});

test("another timeline alone loses nothing; where something is lost it is told as the likely cause", () => {
  expect(resume({ timeline: 2 })).toMatchObject({ kind: "resume" });
  expect(resume({ timeline: 2, slot: undefined })).toMatchObject({ what: expect.stringContaining("on timeline 2, and was on 1") });
  expect(resume({ timeline: 2, lastTimeline: undefined, slot: undefined })).toMatchObject({
    what: expect.not.stringContaining("timeline"),
  });
});
