import fc from "fast-check";
import { expect, test } from "vitest";
import { AnswerParser } from "./answer-parser.ts";

/** What an answer is, read in the given pieces and then, where it says so, ended by the receiver. */
function read(pieces: readonly (string | Buffer)[], isEnded = false): unknown {
  const parser = new AnswerParser();
  for (const piece of pieces) {
    // Overwritten after each call, as a socket's buffer is.
    const chunk = Buffer.from(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece);
    parser.feed(chunk);
    chunk.fill("!");
  }
  if (isEnded) parser.end();
  const { state, fault, isReusable } = parser;
  if (state !== "whole") return { state, ...fault };
  const { status, headers, body } = parser.answer;
  return { state, status, headers: { ...headers }, body: body?.toString("latin1"), isReusable };
}

const whole = (status: number, body?: string, isReusable = true): object => ({ state: "whole", status, body, isReusable });
const failed = (reason: string): object => ({ state: "failed", reason });
const head = (...lines: readonly string[]): string => `${lines.join("\r\n")}\r\n\r\n`;

test.each<[string, string, object]>([
  ["an empty answer", head("HTTP/1.1 200 OK", "Content-Length: 0"), whole(200)],
  ["no reason phrase", head("HTTP/1.1 200", "content-length:0"), whole(200)],
  ["a body by its length", `${head("HTTP/1.1 500 No", "content-length: 3")}abc`, whole(500, "abc")],
  ["a success's body is not kept", `${head("HTTP/1.1 201 Created", "content-length: 3")}abc`, whole(201)],
  [
    "a body in chunks",
    `${head("HTTP/1.1 500 No", "Transfer-Encoding: Chunked")}3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nx: y\r\n\r\n`,
    whole(500, "abc0123456789"),
  ],
  ["no body with 204", head("HTTP/1.1 204 No Content", "content-length: 5"), whole(204)],
  ["no body with 304", head("HTTP/1.1 304 Not Modified", "content-length: 5"), whole(304)],
  ["204 with a body", `${head("HTTP/1.1 204 No Content")}hello`, whole(204, undefined, false)],
  ["more than the length says", `${head("HTTP/1.1 200 OK", "content-length: 1")}abc`, whole(200, undefined, false)],
  ["close", head("HTTP/1.1 200 OK", "content-length: 0", "Connection: foo, Close"), whole(200, undefined, false)],
  ["HTTP/1.0", head("HTTP/1.0 200 OK", "content-length: 0", "connection: keep-alive"), whole(200, undefined, false)],
  [
    "1xx first",
    head("HTTP/1.1 100 Continue") + head("HTTP/1.1 103 Early Hints", "link: x") + head("HTTP/1.1 200 OK", "content-length: 0"),
    whole(200),
  ],
  ["100 KB of headers", head("HTTP/1.1 200 OK", `x: ${"y".repeat(100_000)}`), failed("too-large")],
  ["headers without end", `HTTP/1.1 200 OK\r\n${"x: y\r\n".repeat(20_000)}`, failed("too-large")],
  [
    "1,000 headers",
    head("HTTP/1.1 200 OK", ...Array.from({ length: 1_000 }, (_, index) => `x-${index}: y`), "content-length: 0"),
    whole(200),
  ],
  ["a flood of 1xx", head("HTTP/1.1 100 Continue").repeat(1_000), failed("protocol")],
  ["101", head("HTTP/1.1 101 Switching Protocols", "upgrade: x"), failed("protocol")],
  ["another protocol", "220 smtp.example.com\r\n", failed("protocol")],
  ["HTTP/2", head("HTTP/2 200"), failed("protocol")],
  ["HTTP/1.2", head("HTTP/1.2 200 OK"), failed("protocol")],
  ["HTTP/1.1 in small letters", head("http/1.1 200 OK"), failed("protocol")],
  ["a status of two digits", "HTTP/1.1 20 OK\r\n", failed("protocol")],
  ["a status of zeros", head("HTTP/1.1 000 OK"), failed("protocol")],
  ["an empty line first", `\r\n${head("HTTP/1.1 200 OK", "content-length: 0")}`, failed("protocol")],
  ["lone line feeds", "HTTP/1.1 200 OK\ncontent-length: 0\n\r\n\r\n", failed("protocol")],
  ["a lone carriage return", head("HTTP/1.1 200 OK", "x: a\rb"), failed("protocol")],
  ["NUL in a header", head("HTTP/1.1 200 OK", "x: a\0b"), failed("protocol")],
  ["a folded header", head("HTTP/1.1 200 OK", "x: a", " b"), failed("protocol")],
  ["a space before the colon", head("HTTP/1.1 200 OK", "content-length : 0"), failed("protocol")],
  ["a header without colon", head("HTTP/1.1 200 OK", "content-length"), failed("protocol")],
  ["a length and chunks", head("HTTP/1.1 200 OK", "content-length: 0", "transfer-encoding: chunked"), failed("protocol")],
  ["two lengths", head("HTTP/1.1 200 OK", "content-length: 0", "content-length: 0"), failed("protocol")],
  ["a length of words", head("HTTP/1.1 200 OK", "content-length: +1"), failed("protocol")],
  ["a negative length", head("HTTP/1.1 200 OK", "content-length: -1"), failed("protocol")],
  ["another transfer-encoding", head("HTTP/1.1 200 OK", "transfer-encoding: gzip, chunked"), failed("protocol")],
  ["chunks in HTTP/1.0", head("HTTP/1.0 200 OK", "transfer-encoding: chunked"), failed("protocol")],
  ["a chunk's size of words", `${head("HTTP/1.1 200 OK", "transfer-encoding: chunked")}five\r\n`, failed("protocol")],
  ["a chunk that is longer than it says", `${head("HTTP/1.1 200 OK", "transfer-encoding: chunked")}1\r\nab\r\n`, failed("protocol")],
  ["a chunk's size without end", `${head("HTTP/1.1 200 OK", "transfer-encoding: chunked")}1;${"x".repeat(1_000)}`, failed("protocol")],
  ["an endless body", `${head("HTTP/1.1 200 OK")}${"x".repeat(70_000)}`, whole(200, undefined, false)],
  ["an endless refusal", `${head("HTTP/1.1 500 No")}${"x".repeat(70_000)}`, whole(500, "x".repeat(16_384), false)],
  ["a body of 1 GB", `${head("HTTP/1.1 200 OK", "content-length: 1073741824")}${"x".repeat(70_000)}`, whole(200, undefined, false)],
  ["endless chunks", head("HTTP/1.1 200 OK", "transfer-encoding: chunked") + "1\r\nx\r\n".repeat(20_000), whole(200, undefined, false)],
  [
    "endless trailers",
    `${head("HTTP/1.1 200 OK", "transfer-encoding: chunked")}0\r\n${"x: y\r\n".repeat(20_000)}`,
    whole(200, undefined, false),
  ],
])("%s", (_, text, expected) => {
  expect(read([text])).toMatchObject(expected);
  expect(read(text.slice(0, 70_000).split(""))).toMatchObject(expected);
});

test("the receiver's end ends an answer that has no other, and cuts off all others", () => {
  expect(read([head("HTTP/1.1 500 No"), "abc"])).toEqual({ state: "more" });
  expect(read([head("HTTP/1.1 500 No"), "abc"], true)).toMatchObject(whole(500, "abc", false));
  expect(read([head("HTTP/1.0 200 OK"), "abc"], true)).toMatchObject(whole(200, undefined, false));
  const lengths = head("HTTP/1.1 200 OK", "content-length: 3");
  expect(read([lengths, "ab"])).toEqual({ state: "more" });
  for (const pieces of [[], ["HTTP/1.1 20"], [head("HTTP/1.1 100 Continue")], [lengths, "ab"]]) {
    expect(read(pieces, true)).toMatchObject(failed("reset"));
  }
  const chunked = head("HTTP/1.1 200 OK", "transfer-encoding: chunked");
  for (const rest of ["", "3", "3\r\n", "3\r\nabc", "3\r\nabc\r\n", "0\r\n", "0\r\nx: y\r\n"]) {
    expect(read([chunked, rest], true)).toMatchObject(failed("reset"));
  }
});

test("only headers that mean something are kept, and how long the connection may idle", () => {
  const text = head(
    "HTTP/1.1 503 No",
    "Retry-After: 7",
    "Webhook-Delivery:disable",
    "x-secret: y",
    "Keep-Alive: timeout=5, max=9",
    "content-length: 0",
  );
  expect(read([text])).toMatchObject({ headers: { "retry-after": "7", "webhook-delivery": "disable" } });
  expect(JSON.stringify(read([text]))).not.toContain("secret");
  const parser = new AnswerParser();
  parser.feed(Buffer.from(text));
  expect(parser.idleLimitS).toBe(5);
});

const line = fc.stringMatching(/^[!-~]{0,12}$/);
const bodyOf = fc.string({ maxLength: 300 }).map((text) => Buffer.from(text).toString("latin1"));
const statusOf = fc.constantFrom(200, 204, 301, 304, 400, 410, 429, 500, 503);
const chunked = (body: string, sizes: readonly number[]): string => {
  let text = "";
  let at = 0;
  for (const size of sizes) {
    const part = body.slice(at, at + size);
    if (part === "") break;
    text += `${part.length.toString(16)}\r\n${part}\r\n`;
    at += part.length;
  }
  const rest = body.slice(at);
  return `${text}${rest === "" ? "" : `${rest.length.toString(16)};a=b\r\n${rest}\r\n`}0\r\n\r\n`;
};
/** Mostly well-formed, by length, chunks or until the end; sometimes with rubbish in it. */
const anyAnswer = fc
  .record({
    status: statusOf,
    interim: fc.nat(3),
    headers: fc.array(fc.tuple(fc.stringMatching(/^[a-z-]{1,10}$/), line), { maxLength: 5 }),
    framing: fc.constantFrom("length", "chunks", "close", "both", "wrong"),
    body: bodyOf,
    sizes: fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 10 }),
    rubbish: fc.option(fc.tuple(fc.nat(), fc.string({ maxLength: 5 }))),
  })
  .map(({ status, interim, headers, framing, body, sizes, rubbish }) => {
    const lines = [`HTTP/1.1 ${status} Words`, ...headers.map(([name, value]) => `x-${name}: ${value}`)];
    if (framing === "length" || framing === "both") lines.push(`Content-Length: ${body.length}`);
    if (framing === "wrong") lines.push(`content-length: ${body.length + 2}`);
    if (framing === "chunks" || framing === "both") lines.push("transfer-encoding: chunked");
    const text = head("HTTP/1.1 100 Continue").repeat(interim) + head(...lines) + (framing === "chunks" ? chunked(body, sizes) : body);
    if (rubbish === null) return text;
    const at = rubbish[0] % text.length;
    return text.slice(0, at) + rubbish[1] + text.slice(at);
  });
const cut = (bytes: Buffer, cuts: readonly number[]): Buffer[] => {
  const places = [...new Set(cuts.map((place) => place % (bytes.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...places].map((place, index) => bytes.subarray(place, places[index] ?? bytes.length));
};

test("the pieces in which an answer comes do not change what it is", () => {
  fc.assert(
    fc.property(anyAnswer, fc.array(fc.nat(), { maxLength: 8 }), fc.boolean(), (text, cuts, isEnded) => {
      const bytes = Buffer.from(text, "latin1");
      const atOnce = read([bytes], isEnded);
      expect(read(cut(bytes, cuts), isEnded)).toEqual(atOnce);
      expect(
        read(
          [...bytes].map((byte) => Buffer.from([byte])),
          isEnded,
        ),
      ).toEqual(atOnce);
    }),
    { numRuns: 500 },
  );
});

test("random bytes never throw, and every answer is over once the receiver ends it", () => {
  const begun = fc
    .uint8Array({ maxLength: 400 })
    .map((bytes) => Buffer.concat([Buffer.from("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), bytes]));
  const any = fc.oneof(
    fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
    begun,
  );
  fc.assert(
    fc.property(any, fc.array(fc.nat(), { maxLength: 5 }), (bytes, cuts) => {
      expect(read(cut(bytes, cuts), true)).toMatchObject({ state: expect.stringMatching(/^(?:whole|failed)$/) });
    }),
    { numRuns: 500 },
  );
});
