import { invalid } from "./route.ts";

/** A structured field's string (`"…"`, as the IETF's draft has it), or the bare text that most clients send. */
export function parseIdempotencyKey(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  const key = /^"?([\x21\x23-\x5b\x5d-\x7e]{1,255})"?$/.exec(header.trim())?.[1];
  if (key !== undefined) return key;
  const detail = `expected 1 to 255 printable ASCII characters without spaces, quotes and backslashes, got ${JSON.stringify(header.slice(0, 300))}`;
  throw invalid([{ pointer: "idempotency-key", detail }]);
}
