/** Deeper than any payload that a person would map by hand; a schema may contain itself. */
const deepest = 8;

const texts: Readonly<Record<string, string>> = {
  "date-time": "2026-01-31T12:00:00Z",
  date: "2026-01-31",
  time: "12:00:00Z",
  duration: "P1D",
  email: "name@example.com",
  uri: "https://example.com/",
  url: "https://example.com/",
  uuid: "00000000-0000-4000-8000-000000000000",
  ipv4: "192.0.2.1",
  ipv6: "2001:db8::1",
  hostname: "example.com",
};

/**
 * A value of the shape that a JSON Schema describes, for whoever maps its fields before there is a record: its own default, example or
 * constant where it has one. It need not satisfy what only a value of the business would (a pattern, a checksum).
 *
 * @example exampleOf({ type: "object", properties: { id: { type: "integer" } } }) // { id: 1 }
 */
export function exampleOf(schema: unknown): unknown {
  return valueOf(schema, schema, 0);
}

function valueOf(schema: unknown, root: unknown, depth: number): unknown {
  if (!isObject(schema) || depth > deepest) return null;
  if ("const" in schema) return schema["const"];
  if ("default" in schema) return schema["default"];
  for (const list of [schema["examples"], schema["enum"]]) if (Array.isArray(list) && list.length > 0) return list[0];
  if (typeof schema["$ref"] === "string") return valueOf(resolve(schema["$ref"], root), root, depth + 1);
  for (const union of [schema["anyOf"], schema["oneOf"]]) {
    // Something says more than nothing: `string | null` is shown as a string.
    if (Array.isArray(union))
      return valueOf(
        union.find((member) => !isObject(member) || member["type"] !== "null"),
        root,
        depth + 1,
      );
  }
  if (Array.isArray(schema["allOf"])) {
    const parts = schema["allOf"].map((part) => valueOf(part, root, depth + 1));
    return parts.every(isObject) ? Object.assign({}, ...parts, objectOf(schema, root, depth)) : parts[0];
  }
  const type: unknown = Array.isArray(schema["type"]) ? schema["type"].find((type) => type !== "null") : schema["type"];
  switch (type) {
    case "object":
      return objectOf(schema, root, depth);
    case "array":
      return isObject(schema["items"]) ? [valueOf(schema["items"], root, depth + 1)] : [];
    case "string":
      return texts[String(schema["format"])] ?? "text";
    case "integer":
    case "number":
      return typeof schema["minimum"] === "number" ? Math.max(1, schema["minimum"]) : 1;
    case "boolean":
      return true;
    default:
      return isObject(schema["properties"]) ? objectOf(schema, root, depth) : null;
  }
}

function objectOf(schema: JsonObject, root: unknown, depth: number): JsonObject {
  const properties = isObject(schema["properties"]) ? schema["properties"] : {};
  return Object.fromEntries(Object.entries(properties).map(([name, property]) => [name, valueOf(property, root, depth + 1)]));
}

/** `#/$defs/Address`, a pointer of RFC 6901 into the same schema. */
function resolve(reference: string, root: unknown): unknown {
  if (!reference.startsWith("#")) return undefined;
  let found = root;
  for (const part of reference.slice(1).split("/").slice(1)) {
    found = isObject(found) ? found[part.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined;
  }
  return found;
}

type JsonObject = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
