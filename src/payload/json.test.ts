import { expect, test } from "vitest";
import { describeBigInt, stringifyPayload } from "./json.ts";

test("bytes are base64, wherever they stand; what only looks like them stays as it is", () => {
  const bytes = Buffer.from("hé");
  expect(JSON.parse(stringifyPayload({ bytes, list: [bytes], like: { type: "Buffer", data: [1] }, at: new Date(0) }) ?? "")).toEqual({
    bytes: "aMOp",
    list: ["aMOp"],
    like: { type: "Buffer", data: [1] },
    at: "1970-01-01T00:00:00.000Z",
  });
  expect(stringifyPayload(bytes)).toBe('"aMOp"');
  expect(stringifyPayload('{"type":"Buffer","data":[')).toBe(JSON.stringify('{"type":"Buffer","data":['));
  expect(stringifyPayload(() => 1)).toBeUndefined();
});

test.each<[string, unknown, string | undefined]>([
  ["a field", { lines: [{ amount: 1 }, { amount: 1n }] }, "lines[1].amount"],
  ["the whole", 1n, "it"],
  ["the first of two", { a: 1n, b: 1n }, "a"],
])("a bigint is named: %s", (_what, output, path) => {
  expect(describeBigInt(output)).toBe(`${path} is a bigint, which JSON does not have; write String(…), or Number(…) below 2 ** 53`);
});

test("a circle ends, and is no bigint", () => {
  const circle: Record<string, unknown> = { at: new Date(0) };
  circle["self"] = circle;
  expect(describeBigInt(circle)).toBeUndefined();
});
