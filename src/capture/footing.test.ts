import { expect, test } from "vitest";
import { changedFooting } from "./footing.ts";

test("what was dropped and made again in between is told, and nothing that came, went or moved", () => {
  const before = { ancrage_1: ["10"], ancrage_1_inserts: ["11"], "table 7": ["100"], "table 8": ["101"] };
  expect(changedFooting(before, before)).toEqual([]);
  expect(changedFooting(before, { ...before, "table 9": ["200"] })).toEqual([]);
  expect(changedFooting(before, { ancrage_1: ["10"] })).toEqual([]);
  // It was tracked, and had no place yet.
  expect(changedFooting({ ...before, "table 9": [] }, { ...before, "table 9": ["200"] })).toEqual([]);
  expect(changedFooting(before, { ...before, "table 7": [] })).toEqual(["table 7"]);
  // It stands in both.
  expect(changedFooting(before, { ...before, "table 7": ["100", "150"] })).toEqual([]);
  expect(changedFooting({ ...before, "table 7": ["100", "150"] }, { ...before, "table 7": ["150"] })).toEqual([]);
  expect(changedFooting(before, { ...before, ancrage_1: ["20"], "table 8": ["160"] })).toEqual(["ancrage_1", "table 8"]);
});
