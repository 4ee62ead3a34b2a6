import { expect, test } from "vitest";
import { nextTurnStep } from "./turns.ts";

const MB = 1024 * 1024;

test("the one that nobody writes is emptied, then the full one is left", () => {
  expect(nextTurnStep({ turn: "a", a: 5 * MB, b: 5 * MB }, false)).toEqual({ kind: "truncate", turn: "b" });
  expect(nextTurnStep({ turn: "a", a: 5 * MB, b: 24_576 }, false)).toEqual({ kind: "turn" });
  expect(nextTurnStep({ turn: "b", a: 5 * MB, b: 5 * MB }, false)).toEqual({ kind: "truncate", turn: "a" });
  expect(nextTurnStep({ turn: "a", a: MB, b: 24_576 }, false)).toEqual({ kind: "nothing" });
});

test("while the other cannot be emptied, a turn leads there all the same, later", () => {
  expect(nextTurnStep({ turn: "a", a: 5 * MB, b: 5 * MB }, true)).toEqual({ kind: "nothing" });
  expect(nextTurnStep({ turn: "a", a: 7 * MB, b: 5 * MB }, true)).toEqual({ kind: "turn" });
});
