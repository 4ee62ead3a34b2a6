import type { StandardJSONSchemaV1, StandardSchemaV1 } from "@standard-schema/spec";
import { z } from "zod";
import type { EventDefinition } from "./define.ts";

/**
 * The JSON Schema (2020-12) of what an event sends: `jsonSchema` where the definition has it, else what the schema says of its
 * *output*; `undefined` where it says nothing, or cannot (a transform's output has no schema in some libraries).
 */
export function jsonSchemaOf(definition: EventDefinition): object | undefined {
  if (isObject(definition.jsonSchema)) return definition.jsonSchema;
  const { schema } = definition;
  if (schema === undefined) return undefined;
  try {
    if (speaksJsonSchema(schema)) {
      return schema["~standard"].jsonSchema.output({
        target: "draft-2020-12",
        // zod's word for it: a part that JSON Schema cannot express becomes {} instead of an error for the whole.
        libraryOptions: { unrepresentable: "any" },
      });
    }
    // zod 4 before it spoke Standard JSON Schema; its schemas are plain data, which another copy of zod reads as well.
    if (schema["~standard"].vendor === "zod" && "_zod" in schema) {
      return z.toJSONSchema(schema as unknown as z.ZodType, { io: "output", unrepresentable: "any" });
    }
  } catch {
    // The catalogue then describes the event without its shape; messages are checked by the schema all the same.
  }
  return undefined;
}

type JsonSchemaSpeaker = StandardSchemaV1 & StandardJSONSchemaV1;

function speaksJsonSchema(schema: StandardSchemaV1): schema is JsonSchemaSpeaker {
  const props: object = schema["~standard"];
  return "jsonSchema" in props && isObject(props.jsonSchema) && "output" in props.jsonSchema;
}

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;
