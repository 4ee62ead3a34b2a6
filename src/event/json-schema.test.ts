import { expect, test } from "vitest";
import { z } from "zod";
import type { EventDefinition } from "./define.ts";
import { jsonSchemaOf } from "./json-schema.ts";

const define = (options: object): EventDefinition => ({ kind: "event", payload: () => ({}), ...options });

test("is that of the schema's output: what is sent", () => {
  const schema = z.object({ amount: z.string().transform(Number).pipe(z.number()), at: z.string().default("") });

  expect(jsonSchemaOf(define({ schema }))).toMatchObject({
    type: "object",
    properties: { amount: { type: "number" }, at: { type: "string" } },
    required: ["amount", "at"],
  });
});

test("keeps the rest where one part has no JSON Schema", () => {
  const schema = z.object({ label: z.string(), at: z.string().transform((text) => new Date(text)) });

  expect(jsonSchemaOf(define({ schema }))).toMatchObject({ properties: { label: { type: "string" }, at: {} } });
});

test("the one beside the schema comes first", () => {
  const jsonSchema = { type: "object", title: "Deal" };

  expect(jsonSchemaOf(define({ schema: z.object({}), jsonSchema }))).toBe(jsonSchema);
});

test("reads a zod that does not speak Standard JSON Schema yet", () => {
  const schema = z.object({ label: z.string() });
  const { vendor, version, validate } = schema["~standard"];
  Object.defineProperty(schema, "~standard", { value: { vendor, version, validate } });

  expect(jsonSchemaOf(define({ schema }))).toMatchObject({ properties: { label: { type: "string" } } });
});

test("is undefined where nothing says it", () => {
  const silent = { "~standard": { version: 1, vendor: "own", validate: (value: unknown) => ({ value }) } };

  expect(jsonSchemaOf(define({}))).toBeUndefined();
  expect(jsonSchemaOf(define({ schema: silent }))).toBeUndefined();
});
