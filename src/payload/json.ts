/**
 * A payload as JSON. Bytes (`bytea`) are written as base64, which receivers expect and `JSON.stringify` does not do: it makes
 * `{"type":"Buffer","data":[…]}` of them, a number a byte.
 *
 * @throws what `JSON.stringify` throws, for a bigint or a circle
 */
export function stringifyPayload(output: unknown): string | undefined {
  // A replacer costs several times the plain way, and hardly any payload holds bytes; a text cannot look like this, its quotes are escaped.
  const json = JSON.stringify(output) as string | undefined;
  return json?.includes('{"type":"Buffer","data":[') === true ? JSON.stringify(output, bytesAsBase64) : json;
}

/** The value that it is given has become an object already; the one it was is still in its holder. */
function bytesAsBase64(this: unknown, name: string, value: unknown): unknown {
  const original: unknown = typeof this === "object" && this !== null ? Reflect.get(this, name) : undefined;
  return Buffer.isBuffer(original) ? original.toString("base64") : value;
}

/** Which field of a payload is a bigint, and what to write; undefined where none is. V8 names neither. */
export function describeBigInt(output: unknown): string | undefined {
  let path: string | undefined;
  try {
    path = pathOfBigInt(output, "", new Set());
  } catch {
    // What is not JSON for a column that throws when it is read: the record itself was returned.
    return undefined;
  }
  if (path === undefined) return undefined;
  return `${path === "" ? "it" : path} is a bigint, which JSON does not have; write String(…), or Number(…) below 2 ** 53`;
}

function pathOfBigInt(value: unknown, path: string, above: Set<object>): string | undefined {
  if (typeof value === "bigint") return path;
  // A circle is the other fault; what has toJSON is written as that says.
  if (typeof value !== "object" || value === null || above.has(value) || "toJSON" in value) return undefined;
  above.add(value);
  for (const [name, inner] of Object.entries(value)) {
    const found = pathOfBigInt(inner, Array.isArray(value) ? `${path}[${name}]` : `${path}${path === "" ? "" : "."}${name}`, above);
    if (found !== undefined) return found;
  }
  return undefined;
}
