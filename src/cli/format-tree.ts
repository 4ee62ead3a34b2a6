/**
 * JSON as a person reads it: a line a value, indented, without quotes and brackets.
 *
 * @example formatTree({ state: "ready", lag: { bytes: 0 } }) // "state: ready\nlag:\n  bytes: 0"
 */
export function formatTree(value: unknown, indent = ""): string {
  if (typeof value !== "object" || value === null) return `${indent}${formatLeaf(value)}`;
  const entries = Object.entries(value);
  const isList = Array.isArray(value);
  return entries.map(([key, inner]: [string, unknown]) => formatEntry(isList ? "-" : `${key}:`, inner, indent)).join("\n");
}

function formatEntry(head: string, value: unknown, indent: string): string {
  if (typeof value !== "object" || value === null) return `${indent}${head} ${formatLeaf(value)}`;
  if (Object.keys(value).length === 0) return `${indent}${head} none`;
  const inner = formatTree(value, `${indent}  `);
  // The first member of a list's object stands behind the dash.
  return head === "-" ? `${indent}- ${inner.trimStart()}` : `${indent}${head}\n${inner}`;
}

function formatLeaf(value: unknown): string {
  if (value === null || value === undefined) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}
