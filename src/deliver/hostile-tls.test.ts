import { readFileSync } from "node:fs";
import type { SecureContextOptions, Server as TlsServer, TLSSocket } from "node:tls";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startNameServer, type NameServer } from "../../test/name-server.ts";
import { startRawReceiver, type RawReceiver, type Script } from "../../test/raw-receiver.ts";
import { startSending, type Sending } from "../../test/sending.ts";

const pem = (name: string): string => readFileSync(new URL(`../../test/certificates/${name}.pem`, import.meta.url), "utf8");
const identity = (name: string): SecureContextOptions => ({ key: pem(name), cert: pem(name) });
const answerOk: Script = (socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

let names: NameServer;
let sending: Sending;
let receiver: RawReceiver | undefined;
beforeEach(async () => {
  names = await startNameServer(["127.0.0.1"]);
  sending = startSending({ dnsServers: [names.address], certificateAuthorities: pem("authority") });
});
afterEach(async () => {
  await sending.close();
  await receiver?.close();
  receiver = undefined;
  await names.close();
});
const originOf = ({ port }: RawReceiver): string => `https://receiver.example:${port}`;

test("a certificate of a trusted authority for this name is taken, and its session is taken up again", async () => {
  const resumed: boolean[] = [];
  receiver = await startRawReceiver((socket, request) => {
    resumed.push((socket as TLSSocket).isSessionReused());
    answerOk(socket, request);
  }, identity("valid"));
  for (const aheadMs of [0, 0, 61_000]) {
    sending.aheadMs = aheadMs;
    expect(await sending.send(originOf(receiver))).toMatchObject({ kind: "delivered" });
  }
  expect(receiver.sockets).toHaveLength(2);
  expect(resumed).toEqual([false, false, true]);
  expect(receiver.sockets.map((socket) => (socket as TLSSocket).servername)).toEqual(["receiver.example", "receiver.example"]);
});

test.each([
  ["expired", "the certificate of HOST expired on 2001-01-01: renew it"],
  ["other-name", "the certificate of HOST is for other names (DNS:other.example): install one for the name in the URL"],
  ["self-signed", "the certificate of HOST is self-signed: install one of a public authority"],
])("a certificate that is %s is refused, whatever the environment says", async (name, words) => {
  const before = process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
  process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
  try {
    receiver = await startRawReceiver(answerOk, identity(name));
    const outcome = await sending.send(originOf(receiver));
    expect(outcome).toMatchObject({ kind: "failed", reason: "tls", status: undefined });
    expect(String(outcome.kind === "failed" && outcome.response)).toBe(words.replace("HOST", `receiver.example:${receiver.port}`));
    expect(receiver.requests).toEqual([]);
  } finally {
    if (before === undefined) delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
    else process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = before;
  }
});

test("an authority that nobody trusts is refused", async () => {
  receiver = await startRawReceiver(answerOk, identity("valid"));
  const strict = startSending({ dnsServers: [names.address] });
  expect(await strict.send(originOf(receiver))).toMatchObject({ kind: "failed", reason: "tls" });
  await strict.close();
});

test("a protocol older than TLS 1.2 is refused, and so is no TLS at all", async () => {
  const old = { ...identity("valid"), minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" } as const;
  receiver = await startRawReceiver(answerOk, old);
  const outcome = await sending.send(originOf(receiver));
  expect(outcome).toMatchObject({ kind: "failed", reason: "tls" });
  expect(String(outcome.kind === "failed" && outcome.response)).toContain("TLS 1.2 or newer");
  await receiver.close();
  receiver = await startRawReceiver(answerOk);
  receiver.server.on("connection", (socket) => socket.write("HTTP/1.1 400 Bad\r\n\r\n"));
  expect(await sending.send(originOf(receiver))).toMatchObject({ kind: "failed", reason: "tls" });
});

test("a certificate that changes while the process runs is looked at anew", async () => {
  receiver = await startRawReceiver(answerOk, identity("valid"));
  expect(await sending.send(originOf(receiver))).toMatchObject({ kind: "delivered" });
  (receiver.server as TlsServer).setSecureContext(identity("expired"));
  // The connection is there, and trusted, until it is too old.
  expect(await sending.send(originOf(receiver))).toMatchObject({ kind: "delivered" });
  sending.aheadMs = 61_000;
  expect(await sending.send(originOf(receiver))).toMatchObject({ kind: "failed", reason: "tls" });
});

test("a receiver that ends the handshake is reset, one that is silent in it runs to the deadline", async () => {
  receiver = await startRawReceiver(answerOk);
  receiver.server.on("connection", (socket) => socket.end());
  expect(await sending.send(originOf(receiver))).toMatchObject({ kind: "failed", reason: "reset" });
  await receiver.close();
  receiver = await startRawReceiver(answerOk);
  const hasty = startSending({ dnsServers: [names.address], timeoutMs: 100 });
  const outcome = await hasty.send(originOf(receiver));
  expect(outcome).toMatchObject({ kind: "failed", reason: "timeout" });
  expect(String(outcome.kind === "failed" && outcome.response)).toContain("no connection to receiver.example");
  await receiver.quiet();
  await hasty.close();
});
