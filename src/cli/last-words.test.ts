import { expect, test } from "vitest";
import { lastWords } from "./last-words.ts";

const thrown = (stack: string): Error => Object.assign(new Error("boom"), { stack });

test("an error that nobody caught names the definition that it came from", () => {
  const stack = `Error: boom
    at explode (/app/node_modules/lib/events/index.js:3:1)
    at Timeout._onTimeout (file:///app/hooks/events/deal/won.ts?v=2:5:37)
    at listOnTimeout (node:internal/timers:588:17)`;
  expect(lastWords(thrown(stack))).toMatchObject({
    code: "ANCRAGE_COMMAND_FAILED",
    message: "an error that no code caught has ended this process: boom, at /app/hooks/events/deal/won.ts:5:37.",
    hint: expect.stringContaining("Mend that file"),
  });
  expect(lastWords(thrown("Error: boom\n    at /app/hooks/tracking/deal.ts:1:2")).message).toContain("at /app/hooks/tracking/deal.ts:1:2");
});

test("where no definition is in its stack it says what is known", () => {
  expect(lastWords(thrown("Error: boom\n    at node:internal/timers:588:17")).message).toBe(
    "an error that no code caught has ended this process: boom.",
  );
  expect(lastWords("a text").message).toContain(": a text.");
});
