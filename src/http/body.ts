import type { Context, MiddlewareHandler } from "hono";
import type { ApiEnv } from "./auth.ts";
import { refusal, unsupportedMediaType } from "./problem.ts";

/** The most that a request's body may hold. Kept no further: parsing a body costs several times its size. */
export const mostBodyBytes = 1024 * 1024;

/** For all of it: whoever sends a byte a minute would hold a connection, and what is read of it, for as long as it likes. */
const mostReadingMs = 30_000;

/** What of a larger body is read and dropped, and for how long, before the answer. */
const mostDroppedBytes = 32 * 1024 * 1024;
const mostDroppingMs = 5_000;

/**
 * Reads the body, and refuses one that is too large, or does not come to its end in time.
 *
 * The rest of that one is read first: a server that closes a connection with bytes unread resets it, and the client, still sending, sees
 * the reset and not the answer. The connection is closed all the same, as the rest may have no end.
 */
export const readBody: MiddlewareHandler<ApiEnv> = async (c, next) => {
  const { body } = c.req.raw;
  if (body === null) return next();
  const reader = body.getReader();
  const bytes = await readInTime(reader);
  if (bytes === "late") {
    throw refusal({
      code: "body-too-slow",
      detail: `expected the body within ${mostReadingMs / 1_000} s, it has not come to its end.`,
      headers: { connection: "close" },
    });
  }
  if (bytes === undefined) {
    await drop(reader);
    throw refusal({
      code: "body-too-large",
      detail: `expected a body of at most ${mostBodyBytes} bytes, got more.`,
      headers: { connection: "close" },
    });
  }
  c.req.raw = new Request(c.req.raw, { method: c.req.method, body: bytes });
  return next();
};

/** How deep arrays and objects may stand in one another: what walks a value, PostgreSQL too, does so on a stack. */
const mostNesting = 100;

/** Refuses a body that is not JSON, before any handler reads it. */
export const requireJson: MiddlewareHandler<ApiEnv> = async (c, next) => {
  if (c.req.raw.body !== null && c.req.method !== "DELETE") {
    const body = await c.req.text();
    const type = c.req.header("content-type");
    if (body !== "" && type !== undefined && !/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type)) throw refusal(unsupportedMediaType(c));
    if (body !== "" || type !== undefined) checkJson(body);
  }
  return next();
};

/** The body of a request that needs one, where the service checks it and no schema of the route. */
export async function readJson(c: Context): Promise<unknown> {
  const body = await c.req.text();
  // What was sent was checked by `requireJson`; nothing at all was not.
  if (body === "") checkJson(body);
  return JSON.parse(body);
}

async function readInTime(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array<ArrayBuffer> | undefined | "late"> {
  const { promise: late, resolve } = Promise.withResolvers<"late">();
  const timer = setTimeout(() => resolve("late"), mostReadingMs);
  const bytes = readUpTo(reader, mostBodyBytes);
  // Not canceled when it is late: that would close the connection before the answer is out. It ends with the connection.
  bytes.catch(() => undefined);
  try {
    return await Promise.race([bytes, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** @returns undefined where there is more */
async function readUpTo(reader: ReadableStreamDefaultReader<Uint8Array>, most: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
  // Not a list of chunks: a million of one byte each would take a hundred times their size.
  let bytes = new Uint8Array(16 * 1024);
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return bytes.subarray(0, size);
    if (size + value.length > most) return undefined;
    if (size + value.length > bytes.length) {
      const larger = new Uint8Array(Math.min(most, Math.max(2 * bytes.length, size + value.length)));
      larger.set(bytes);
      bytes = larger;
    }
    bytes.set(value, size);
    size += value.length;
  }
}

async function drop(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const timer = setTimeout(() => void reader.cancel().catch(() => undefined), mostDroppingMs);
  try {
    for (let size = 0; size < mostDroppedBytes;) {
      const { done, value } = await reader.read();
      if (done) return;
      size += value.length;
    }
  } catch {
    // Whoever sent it has gone.
  } finally {
    clearTimeout(timer);
  }
}

function checkJson(body: string): void {
  if (isDeeperThan(body, mostNesting)) {
    throw refusal({
      code: "invalid-request",
      detail: `expected JSON whose arrays and objects stand at most ${mostNesting} deep in one another, got more.`,
    });
  }
  try {
    JSON.parse(body);
  } catch (error) {
    throw refusal({
      code: "malformed-json",
      detail: body === "" ? "expected JSON, got an empty body." : `expected JSON: ${(error as SyntaxError).message}.`,
    });
  }
}

const [quote, backslash, openArray, closeArray, openObject, closeObject] = [0x22, 0x5c, 0x5b, 0x5d, 0x7b, 0x7d];

/** Whether arrays and objects stand deeper than that in one another, as far as a text is JSON. Asked of the text: parsing it may be what fails. */
export function isDeeperThan(json: string, most: number): boolean {
  let depth = 0;
  let isText = false;
  for (let at = 0; at < json.length; at++) {
    const code = json.charCodeAt(at);
    if (isText) {
      if (code === backslash) at++;
      else if (code === quote) isText = false;
    } else if (code === quote) isText = true;
    else if (code === openArray || code === openObject) {
      if (++depth > most) return true;
    } else if (code === closeArray || code === closeObject) depth--;
  }
  return false;
}
