import fc from "fast-check";
import { expect, test } from "vitest";
import { parseRecord } from "./record.ts";

test.each([
  ["()", [null]],
  ["(42)", ["42"]],
  ['(42,"a ""b"" \\\\ c",,"")', ["42", 'a "b" \\ c', null, ""]],
  ['("(1,""x"")","{1,2}",t)', ['(1,"x")', "{1,2}", "t"]],
  ['("""")', ['"']],
  ['("""""",",")', ['""', ","]],
  ['("\\\\","\\\\""",)', ["\\", '\\"', null]],
])("%s", (text, columns) => expect(parseRecord(text)).toEqual(columns));

test("what record_out writes is read again", () => {
  const write = (text: string | null): string => {
    if (text === null) return "";
    return text === "" || /["\\(),\s]/.test(text) ? `"${text.replaceAll(/["\\]/g, (one) => one + one)}"` : text;
  };
  const columns = fc.array(fc.option(fc.string({ unit: fc.constantFrom('"', "\\", ",", "(", ")", " ", "a", "é", "\n") })), {
    minLength: 1,
  });
  fc.assert(
    fc.property(columns, (texts) => {
      expect(parseRecord(`(${texts.map(write).join(",")})`)).toEqual(texts);
    }),
  );
});

test.each(["", "42", '("', '("a', '("a"b)', "(1,2"])("%j is no row", (text) => {
  expect(() => parseRecord(text)).toThrow(expect.objectContaining({ code: "ANCRAGE_PROTOCOL" }));
});
