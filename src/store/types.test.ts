import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { trickyTexts } from "../../test/tricky-texts.ts";
import {
  createValueTypes,
  formatArray,
  formatJson,
  formatValue,
  parseArray,
  parseTimestamptz,
  toParameter,
  type TypeRow,
} from "./types.ts";

const row = (values: Partial<TypeRow> & { oid: number }): TypeRow => ({
  elementOid: 0,
  delimiter: ",",
  baseOid: 0,
  labels: null,
  ...values,
});

const types = createValueTypes([
  row({ oid: 25 }),
  row({ oid: 1007, elementOid: 23 }),
  row({ oid: 1009, elementOid: 25 }),
  row({ oid: 1020, elementOid: 603, delimiter: ";" }),
  row({ oid: 90_001, labels: ["new", 'the "best"'] }),
  row({ oid: 90_002, elementOid: 90_001 }),
  row({ oid: 90_003, baseOid: 90_004 }),
  row({ oid: 90_004, baseOid: 1007 }),
  row({ oid: 90_005, labels: [] }),
]);

describe("types", () => {
  test("a text type has no parser, so that the hot path skips the call", () => {
    expect(types.parser(25)).toBeUndefined();
    expect(types.parser(90_001)).toBeUndefined();
  });

  test("an enum is the union of its labels", () => {
    expect(types.tsType(90_001)).toBe(String.raw`"new" | "the \"best\""`);
    expect(types.tsType(90_002)).toBe(String.raw`("new" | "the \"best\"")[]`);
    expect(types.tsType(90_005)).toBe("string");
  });

  test("a domain over a domain over an array is that array", () => {
    expect(types.parser(90_003)?.("{1,NULL}")).toEqual([1, null]);
    expect(types.tsType(90_003)).toBe("number[]");
  });

  test("boxes in an array are separated by semicolons", () => {
    expect(types.parser(1020)?.("{(2,2),(1,1);(4,4),(3,3)}")).toEqual(["(2,2),(1,1)", "(4,4),(3,3)"]);
  });

  test("a type that was made after the read is text, and says that it is unknown", () => {
    expect(types.has(4_000_000_000)).toBe(false);
    expect(types.parser(4_000_000_000)).toBeUndefined();
    expect(types.tsType(4_000_000_000)).toBe("string");
    expect(types.has(90_003)).toBe(true);
    expect(types.has(23)).toBe(true);
  });

  test("pg is refused the binary format, whose values would be others", () => {
    expect(types.pgTypes().getTypeParser(23, "text")("42")).toBe(42);
    expect(() => types.pgTypes().getTypeParser(23, "binary")(Buffer.alloc(4))).toThrow("binary format, expected the text format");
  });

  test.each([
    [16, "true", "t or f"],
    [17, String.raw`\000a`, "hexadecimal"],
    [1184, "31.10.2023 01:00:00 CET", "ISO date style"],
    [1184, "2023-10-31 05:30:00+05:30", "zone UTC"],
    [1007, "1,2", "braces"],
  ])("a text that a pinned session does not write is an error (type %i, %s)", (oid, text, expected) => {
    expect(() => types.parser(oid)?.(text)).toThrow(expected);
    expect(() => types.parser(oid)?.(text)).toThrow(JSON.stringify(text));
  });
});

describe("timestamptz", () => {
  test.each([
    ["2023-10-31 00:00:00+00", "2023-10-31T00:00:00.000000Z"],
    ["2023-10-31 00:00:00.1+00", "2023-10-31T00:00:00.100000Z"],
    ["2023-10-31 00:00:00.123456+00", "2023-10-31T00:00:00.123456Z"],
    ["0001-01-01 00:00:00+00", "0001-01-01T00:00:00.000000Z"],
    ["0001-12-31 23:59:59.999999+00 BC", "0000-12-31T23:59:59.999999Z"],
    ["0044-03-15 12:00:00+00 BC", "-000043-03-15T12:00:00.000000Z"],
    ["4713-11-24 00:00:00+00 BC", "-004712-11-24T00:00:00.000000Z"],
    ["12345-01-01 00:00:00.5+00", "+012345-01-01T00:00:00.500000Z"],
    ["294276-12-31 23:59:59.999999+00", "+294276-12-31T23:59:59.999999Z"],
    ["infinity", "infinity"],
    ["-infinity", "-infinity"],
  ])("%s → %s", (text, expected) => {
    expect(parseTimestamptz(text)).toBe(expected);
  });

  test("`new Date` reads every time that both can hold", () => {
    const times = fc.date({ min: new Date("-004712-01-01T00:00:00Z"), max: new Date("+270000-01-01T00:00:00Z"), noInvalidDate: true });
    fc.assert(
      fc.property(times, (time) => {
        expect(new Date(parseTimestamptz(asPostgresWritesIt(time))).getTime()).toBe(time.getTime());
      }),
    );
  });
});

function asPostgresWritesIt(time: Date): string {
  const year = time.getUTCFullYear();
  const [, rest = "", fraction = ""] = /-(\d\d-\d\dT[\d:]{8})\.(\d{3})Z$/.exec(time.toISOString()) ?? [];
  const digits = fraction.replace(/0+$/, "");
  const text = `${String(year > 0 ? year : 1 - year).padStart(4, "0")}-${rest.replace("T", " ")}${digits === "" ? "" : `.${digits}`}+00`;
  return year > 0 ? text : `${text} BC`;
}

describe("arrays", () => {
  test.each<[string, unknown[]]>([
    ["{}", []],
    ["{NULL}", [null]],
    ['{"NULL",""}', ["NULL", ""]],
    ["{a,b}", ["a", "b"]],
    ["[0:1]={a,b}", ["a", "b"]],
    [
      "[2:3][-1:0]={{a,b},{c,NULL}}",
      [
        ["a", "b"],
        ["c", null],
      ],
    ],
    ['{"a \\"b\\"","c\\\\d","{e}","f,g"}', ['a "b"', "c\\d", "{e}", "f,g"]],
    ['[1:1]={"=x"}', ["=x"]],
    ['{"="}', ["="]],
  ])("%s", (text, expected) => {
    expect(parseArray(text)).toEqual(expected);
  });

  test.each(["", "{", "}", "{a", '{"a', '{"a"b}', '{"a"}}', "{{a},{b}", "[0:1]", '{"a\\'])("%s is no array", (text) => {
    expect(() => parseArray(text)).toThrow("as an array");
  });

  test("what is formatted is parsed to the same, in up to three dimensions", () => {
    const level1 = fc.array(fc.option(trickyTexts), { minLength: 1, maxLength: 4 });
    const level2 = fc.array(level1, { minLength: 1, maxLength: 3 });
    const level3 = fc.array(level2, { minLength: 1, maxLength: 2 });
    fc.assert(
      fc.property(fc.oneof(fc.constant([]), level1, level2, level3), (values) => {
        expect(parseArray(formatArray(values))).toEqual(values);
      }),
    );
  });
});

describe("values as parameters", () => {
  test.each<[unknown, string]>([
    ["a", "a"],
    [1.5, "1.5"],
    [2n ** 60n, "1152921504606846976"],
    [true, "true"],
    [new Date("2023-10-31T00:00:00Z"), "2023-10-31T00:00:00.000Z"],
    [Buffer.from([0, 255]), String.raw`\x00ff`],
    [[1, null, [new Date(0)]], '{"1",NULL,{"1970-01-01T00:00:00.000Z"}}'],
    [{ a: 1 }, '{"a":1}'],
  ])("%s", (value, expected) => {
    expect(formatValue(value)).toBe(expected);
  });

  const circle: Record<string, unknown> = {};
  circle["itself"] = circle;
  test.each([undefined, null, Symbol("s"), () => 1, new Date("x"), circle, { big: 1n }])("%s is none", (value) => {
    expect(() => formatValue(value)).toThrow("expected a value that a column can have");
  });

  test.each([undefined, () => 1, 1n, circle])("%s is none in JSON", (value) => {
    expect(() => formatJson(value)).toThrow("expected a value that a column can have");
  });

  test("only a Date is not left to pg, which would write the machine's local time", () => {
    expect(toParameter(new Date("2023-10-31T00:00:00Z"))).toBe("2023-10-31T00:00:00.000Z");
    expect(toParameter([[new Date(0)], 1])).toEqual([["1970-01-01T00:00:00.000Z"], 1]);
    const object = { a: 1 };
    expect(toParameter(object)).toBe(object);
  });
});
