import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { afterEach, expect, test } from "vitest";
import { startRawReceiver, type RawReceiver, type Script } from "../../test/raw-receiver.ts";
import { startSending, type Sending } from "../../test/sending.ts";
import type { Outcome, Unsent } from "./outcome.ts";

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

interface World extends Pick<Sending, "close"> {
  readonly receiver: RawReceiver;
  readonly sending: Sending;
  /** One attempt, and what the outcome's `response` says. */
  attempt(id?: string): Promise<(Outcome | Unsent) & { readonly words: string }>;
}

async function start(script: Script, options: Parameters<typeof startSending>[0] = {}): Promise<World> {
  const receiver = await startRawReceiver(script);
  const sending = startSending(options);
  open.push(sending, receiver);
  const attempt = async (id?: string): Promise<(Outcome | Unsent) & { readonly words: string }> => {
    const outcome = await sending.send(receiver.origin, id);
    return { ...outcome, words: outcome.kind === "failed" ? String(outcome.response ?? "") : "" };
  };
  return { receiver, sending, attempt, close: () => sending.close() };
}

const ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const chunkedHead = (status: number): string => `HTTP/1.1 ${status} Words\r\ntransfer-encoding: chunked\r\n\r\n`;

/** Writes for as long as anybody reads. */
function writeForEver(socket: Socket, piece: string): void {
  while (socket.writable && socket.write(piece));
  socket.once("drain", () => writeForEver(socket, piece));
}
const drip = (socket: Socket, text: string): void => {
  let at = 0;
  const timer = setInterval(() => socket.write(text[at++ % text.length]!), 5);
  socket.on("close", () => clearInterval(timer));
};

test.each<[string, Script, number | undefined, string]>([
  ["it accepts and never answers", () => undefined, undefined, "no whole answer"],
  ["its headers drip", (socket) => drip(socket, `HTTP/1.1 200 OK\r\n${"x: y\r\n".repeat(1_000)}`), undefined, "no whole answer"],
  ["its body drips", (socket) => (socket.write("HTTP/1.1 200 OK\r\n\r\n"), drip(socket, "x")), 200, "no whole answer"],
  ["1xx drip", (socket) => drip(socket, "HTTP/1.1 100 Continue\r\n\r\n"), undefined, "no whole answer"],
])("the deadline ends an attempt when %s", async (_, script, status, words) => {
  const { receiver, attempt } = await start(script, { timeoutMs: 200 });
  expect(await attempt()).toMatchObject({ kind: "failed", reason: "timeout", status, words: expect.stringContaining(words) });
  // Nothing is left of it.
  await receiver.quiet();
});

test("a 200 after the deadline is nobody's answer", async () => {
  let late: Socket | undefined;
  const { receiver, attempt } = await start((socket) => (late = socket), { timeoutMs: 100 });
  expect(await attempt("msg_1")).toMatchObject({ kind: "failed", reason: "timeout" });
  receiver.script((socket) => {
    late?.write(ok);
    socket.write("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
  });
  expect(await attempt("msg_2")).toMatchObject({ kind: "failed", status: 500 });
  expect(receiver.sockets).toHaveLength(2);
});

test.each<[string, Script, object]>([
  [
    "an endless body",
    (socket) => (socket.write("HTTP/1.1 200 OK\r\n\r\n"), writeForEver(socket, "x".repeat(32_768))),
    { kind: "delivered", status: 200 },
  ],
  [
    "1 GB",
    (socket) => (socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${2 ** 30}\r\n\r\n`), writeForEver(socket, "x".repeat(32_768))),
    { kind: "delivered" },
  ],
  ["endless chunks", (socket) => (socket.write(chunkedHead(200)), writeForEver(socket, "1\r\nx\r\n".repeat(5_000))), { kind: "delivered" }],
  [
    "an endless refusal",
    (socket) => (socket.write("HTTP/1.1 500 No\r\n\r\n"), writeForEver(socket, "x".repeat(32_768))),
    { status: 500, words: "x".repeat(16_384) },
  ],
  [
    "100 KB of headers",
    (socket) => socket.write(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(100_000)}\r\n\r\n`),
    { kind: "failed", reason: "too-large" },
  ],
  [
    "endless headers",
    (socket) => (socket.write("HTTP/1.1 200 OK\r\n"), writeForEver(socket, "x: y\r\n".repeat(5_000))),
    { kind: "failed", reason: "too-large" },
  ],
  [
    "a flood of 1xx",
    (socket) => writeForEver(socket, "HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000)),
    { kind: "failed", reason: "protocol" },
  ],
])("%s is read to a bound and no further", async (_, script, outcome) => {
  const { receiver, attempt } = await start(script);
  expect(await attempt()).toMatchObject(outcome);
  await receiver.quiet();
  // What its kernel and ours took, and not what it had to say.
  expect(receiver.sockets[0]!.bytesWritten).toBeLessThan(64 * 2 ** 20);
});

test.each<[string, string | Buffer, object]>([
  [
    "1,000 headers",
    `HTTP/1.1 200 OK\r\n${Array.from({ length: 1_000 }, (_, index) => `x${index}: y\r\n`).join("")}content-length: 0\r\n\r\n`,
    { kind: "delivered" },
  ],
  ["100 Continue that nobody asked for", `HTTP/1.1 100 Continue\r\n\r\n${ok}`, { kind: "delivered", status: 200 }],
  ["101", "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n", { reason: "protocol" }],
  ["another protocol", "220 smtp.example.com\r\n", { reason: "protocol", words: expect.stringContaining("does not begin with HTTP/1") }],
  ["HTTP/2", "\0\0\u0012\u0004\0\0\0\0\0", { reason: "protocol" }],
  ["every byte value", Buffer.from(Array.from({ length: 256 }, (_, value) => value)), { reason: "protocol" }],
  [
    "every byte value as a body",
    Buffer.concat([
      Buffer.from("HTTP/1.1 500 No\r\ncontent-length: 256\r\n\r\n"),
      Buffer.from(Array.from({ length: 256 }, (_, value) => value)),
    ]),
    { reason: "status", status: 500 },
  ],
  ["random bytes", Buffer.concat([Buffer.from([0]), randomBytes(1_000)]), { reason: "protocol" }],
  ["a length and chunks", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", { reason: "protocol" }],
])("%s", async (_, answer, outcome) => {
  const { attempt } = await start((socket) => socket.write(answer));
  expect(await attempt()).toMatchObject(outcome);
});

test.each<[string, string]>([
  ["HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"],
  ["204 with a body", "HTTP/1.1 204 No Content\r\n\r\nhello"],
  ["a body that is longer than its length", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nhello"],
  ["two answers to one request", `${ok}${ok}`],
  ["connection: close", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"],
  ["an idle time that is over at once", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: timeout=1\r\n\r\n"],
])("after %s the connection is not used again", async (_, answer) => {
  const { receiver, attempt } = await start((socket, { number }) =>
    socket.write(number === 1 ? answer : "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"),
  );
  expect(await attempt()).toMatchObject({ kind: "delivered" });
  expect(await attempt()).toMatchObject({ status: 500 });
  expect(receiver.sockets).toHaveLength(2);
});

test.each<[string, Script, number | undefined]>([
  ["without a word", (socket) => socket.end(), undefined],
  ["in its headers", (socket) => socket.end("HTTP/1.1 200 OK\r\ncont"), undefined],
  ["in its body", (socket) => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"), 200],
  ["between its chunks", (socket) => socket.end(`${chunkedHead(200)}5\r\nhello\r\n`), 200],
  ["by a reset, without a word", (socket) => socket.resetAndDestroy(), undefined],
  [
    "by a reset, after a 200 that is not whole",
    (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", () => setTimeout(() => socket.resetAndDestroy(), 20)),
    200,
  ],
])("it ends %s: a failure", async (_, script, status) => {
  const { attempt } = await start(script);
  expect(await attempt()).toMatchObject({ kind: "failed", reason: "reset", status, words: expect.stringContaining("check the server") });
});

test("a whole 200 and then a reset is a success; a body that only the end ends is whole", async () => {
  const { receiver, attempt } = await start((socket) => socket.write(ok, () => setTimeout(() => socket.resetAndDestroy(), 20)));
  expect(await attempt()).toMatchObject({ kind: "delivered" });
  await receiver.quiet();
  receiver.script((socket) => socket.end("HTTP/1.1 500 No\r\n\r\nhello"));
  expect(await attempt()).toMatchObject({ kind: "failed", reason: "status", status: 500, words: "hello" });
});

test("a gzip bomb stays what it is", async () => {
  const bomb = gzipSync(Buffer.alloc(20 * 2 ** 20));
  expect(bomb.length).toBeGreaterThan(16_384);
  const head = `HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: ${bomb.length}\r\n\r\n`;
  const { receiver, attempt } = await start((socket) => socket.write(Buffer.concat([Buffer.from(head), bomb])));
  expect(await attempt()).toMatchObject({ response: bomb.subarray(0, 16_384) });
  expect(receiver.requests[0]).toContain("\r\naccept-encoding: identity\r\n");
});

test("no redirect is followed, neither to itself nor to where clouds keep their credentials", async () => {
  const { receiver, attempt } = await start(() => undefined);
  for (const [status, location] of [
    [301, `${receiver.origin}/`],
    [302, "http://169.254.169.254/latest/meta-data/"],
    [307, "/other"],
    [308, "https://receiver.example/"],
  ] as const) {
    receiver.script((socket) => socket.write(`HTTP/1.1 ${status} Moved\r\nlocation: ${location}\r\ncontent-length: 0\r\n\r\n`));
    expect(await attempt()).toMatchObject({
      reason: "status",
      status,
      words: `a redirect to ${location} is a failure: give the final URL`,
    });
  }
  expect(receiver.requests).toHaveLength(4);
});

test("a receiver's wishes reach the outcome", async () => {
  const { receiver, attempt } = await start((socket) => socket.write("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n"));
  expect(await attempt()).toMatchObject({ retryAfterMs: 7_000 });
  receiver.script((socket) => socket.write("HTTP/1.1 200 OK\r\nWebhook-Delivery: Disable\r\ncontent-length: 0\r\n\r\n"));
  expect(await attempt()).toMatchObject({ kind: "delivered", directive: "disable" });
});

test("a connection is used again, and given up after a minute", async () => {
  const { receiver, sending, attempt } = await start((socket) => socket.write(ok));
  for (let number = 0; number < 5; number++) await attempt();
  expect(receiver.sockets).toHaveLength(1);
  sending.aheadMs = 29_000;
  await attempt();
  sending.aheadMs = 58_000;
  await attempt();
  expect(receiver.sockets).toHaveLength(1);
  sending.aheadMs = 61_000;
  await attempt();
  expect(receiver.sockets).toHaveLength(2);
});

test("an answer that comes unasked is not taken for the next one", async () => {
  const { receiver, attempt } = await start((socket) => socket.write(ok));
  await attempt();
  receiver.sockets[0]!.write(ok);
  await receiver.quiet();
  receiver.script((socket) => socket.write("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"));
  expect(await attempt()).toMatchObject({ status: 500 });
});

test("a connection that was reset while idle costs no attempt: nothing of the request had left", async () => {
  const { receiver, attempt } = await start((socket) => socket.write(ok));
  await attempt("msg_1");
  // Within one turn of the loop: the sender cannot have seen it.
  receiver.sockets[0]!.resetAndDestroy();
  expect(await attempt("msg_2")).toMatchObject({ kind: "delivered" });
  expect(receiver.requests).toHaveLength(2);
  expect(receiver.sockets).toHaveLength(2);
});

test("a connection that ends as the request is written is an attempt: the receiver may have it", async () => {
  const { receiver, attempt } = await start((socket) => socket.write(ok));
  await attempt("msg_1");
  receiver.sockets[0]!.end();
  expect(await attempt("msg_2")).toMatchObject({ kind: "failed", reason: "reset" });
  receiver.script((socket) => socket.resetAndDestroy());
  expect(await attempt("msg_3")).toMatchObject({ kind: "failed", reason: "reset" });
  receiver.script((socket) => socket.write(ok));
  expect(await attempt("msg_4")).toMatchObject({ kind: "delivered" });
});

test("an early answer is the answer, and its connection is not used again while the request is not all written", async () => {
  const { receiver, sending } = await start(() => undefined);
  receiver.server.on("connection", (socket: Socket) => {
    socket.pause();
    socket.write("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n");
  });
  // More than the kernel takes from us and keeps for the receiver.
  const body = Buffer.alloc(32 * 2 ** 20, "x");
  for (const id of ["msg_1", "msg_2"]) expect(await sending.send(receiver.origin, id, { body })).toMatchObject({ status: 413 });
  expect(receiver.sockets).toHaveLength(2);
});
