import { expect, test } from "vitest";
import { computeResumePosition, type ResumeInput } from "./resume-position.ts";

const resume = (over: Partial<ResumeInput>) =>
  computeResumePosition({ slot: "ancrage_1", journalEndLsn: 100n, confirmedLsn: 100n, flushLsn: 500n, gapEndLsn: undefined, ...over });

test("the first start reads from where the slot stands, each later one from the journal's end", () => {
  expect(resume({ journalEndLsn: undefined, confirmedLsn: 40n })).toEqual({ endLsn: 40n, isAfterGap: false });
  expect(resume({})).toEqual({ endLsn: 100n, isAfterGap: false });
  // What is journaled need not be confirmed yet.
  expect(resume({ confirmedLsn: 40n })).toEqual({ endLsn: 100n, isAfterGap: false });
});

test("a slot beyond the journal's end is gone on from only at the end of a gap that was noted", () => {
  expect(resume({ confirmedLsn: 200n, gapEndLsn: 200n })).toEqual({ endLsn: 200n, isAfterGap: true });
  const moved = expect.objectContaining({ code: "ANCRAGE_SLOT_LOST", message: expect.stringContaining("was moved to 0/C8") });
  for (const gapEndLsn of [undefined, 199n, 201n]) expect(() => resume({ confirmedLsn: 200n, gapEndLsn })).toThrow(moved);
});

test("a journal that ends after the server's log was copied from elsewhere, or the server restored", () => {
  expect(() => resume({ flushLsn: 99n })).toThrow(
    expect.objectContaining({ code: "ANCRAGE_SLOT_LOST", message: expect.stringContaining("went back in time") }),
  );
  expect(resume({ flushLsn: 100n })).toEqual({ endLsn: 100n, isAfterGap: false });
});
