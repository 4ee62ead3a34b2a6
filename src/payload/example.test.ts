import { expect, test } from "vitest";
import { z } from "zod";
import { exampleOf } from "./example.ts";

test.each<[string, z.ZodType]>([
  ["flat", z.object({ id: z.int().min(10), label: z.string(), url: z.url(), at: z.iso.datetime(), mail: z.email(), code: z.uuid() })],
  ["nested", z.object({ customer: z.object({ tags: z.array(z.string()) }), lines: z.array(z.object({ price: z.number() })) })],
  [
    "unions",
    z.object({ note: z.string().nullable(), kind: z.enum(["a", "b"]), either: z.union([z.string(), z.number()]), one: z.literal(7) }),
  ],
  ["an intersection", z.object({ a: z.string() }).and(z.object({ b: z.boolean() }))],
])("an example satisfies the schema it was made from: %s", (_, schema) => {
  expect(schema.safeParse(exampleOf(z.toJSONSchema(schema))).error).toBeUndefined();
});

test("what the schema itself gives comes first", () => {
  expect(
    exampleOf({ properties: { a: { default: 1 }, b: { examples: ["x"] }, c: { const: null }, d: { type: ["null", "boolean"] } } }),
  ).toEqual({
    a: 1,
    b: "x",
    c: null,
    d: true,
  });
});

test("a schema that contains itself ends", () => {
  const tree = {
    $defs: { "a/b": { type: "object", properties: { child: { $ref: "#/$defs/a~1b" }, id: { type: "integer" } } } },
    $ref: "#/$defs/a~1b",
  };
  const example = exampleOf(tree);
  expect(example).toMatchObject({ id: 1, child: { id: 1 } });
  expect(JSON.stringify(example).length).toBeLessThan(1_000);
});

test.each([undefined, true, {}, { $ref: "https://example.com/elsewhere" }])("a schema that says nothing gives null: %j", (schema) => {
  expect(exampleOf(schema)).toBeNull();
});
