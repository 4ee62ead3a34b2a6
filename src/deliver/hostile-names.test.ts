import { afterEach, beforeEach, expect, test } from "vitest";
import { startNameServer, type NameServer } from "../../test/name-server.ts";
import { startRawReceiver, type RawReceiver } from "../../test/raw-receiver.ts";
import { startSending, type Sending } from "../../test/sending.ts";

let names: NameServer;
let receiver: RawReceiver;
let sending: Sending;
beforeEach(async () => {
  names = await startNameServer(["127.0.0.1"]);
  receiver = await startRawReceiver((socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
  sending = startSending({ dnsServers: [names.address], dnsTimeoutMs: 100 });
});
afterEach(async () => {
  await sending.close();
  await receiver.close();
  await names.close();
});

let number = 0;
/** One attempt to a name that was not asked for before: names are remembered. */
const attempt = async (name = `name-${++number}.example`): Promise<{ readonly words: string }> => {
  const outcome = await sending.send(`http://${name}:${receiver.port}`);
  return { ...outcome, words: outcome.kind === "failed" ? String(outcome.response) : "" };
};

test("a name leads to its address, is asked for once, and stands in the request", async () => {
  expect(await attempt("receiver.example")).toMatchObject({ kind: "delivered" });
  expect(await attempt("receiver.example")).toMatchObject({ kind: "delivered" });
  expect(names.questions).toEqual(["receiver.example"]);
  expect(receiver.requests[0]).toContain(`\r\nhost: receiver.example:${receiver.port}\r\n`);
});

test.each([
  ["NXDOMAIN", 3, "does not exist (NXDOMAIN): check the name"],
  ["SERVFAIL", 2, "did not say its address (ESERVFAIL): check its DNS zone"],
  ["REFUSED", 5, "did not say its address (EREFUSED): check its DNS zone"],
  ["no records", [], "has no address (neither A nor AAAA record): check its DNS zone"],
  ["silence", "silence", "did not say its address (ETIMEOUT): check its DNS zone"],
] as const)("%s is a failure of its own kind", async (_, answer, words) => {
  names.answer(answer);
  expect(await attempt()).toMatchObject({ kind: "failed", reason: "dns", words: expect.stringContaining(words) });
  expect(receiver.sockets).toEqual([]);
});

test("no name server at all is this machine's want, and not the receiver's failure", async () => {
  const other = startSending({ dnsServers: ["127.0.0.1:1"], dnsTimeoutMs: 100 });
  const outcome = await other.send("http://receiver.example");
  expect(outcome).toEqual({ kind: "unsent", shortage: expect.stringContaining("no name server of this machine answers") });
  await other.close();
});

test("a failure is remembered for moments only", async () => {
  names.answer(2);
  expect(await attempt("receiver.example")).toMatchObject({ reason: "dns" });
  names.answer(["127.0.0.1"]);
  expect(await attempt("receiver.example")).toMatchObject({ reason: "dns" });
  sending.aheadMs = 6_000;
  expect(await attempt("receiver.example")).toMatchObject({ kind: "delivered" });
});

test.each([
  ["10.0.0.1 is not public (private)", ["10.0.0.1"]],
  ["169.254.169.254 is link-local", ["169.254.169.254"]],
  // Which one a socket would take is chance.
  ["192.168.1.1 is not public (private)", ["127.0.0.1", "192.168.1.1"]],
])("a name that leads to where %s is refused", async (words, addresses) => {
  names.answer(addresses);
  expect(await attempt()).toMatchObject({ kind: "failed", reason: "blocked", words: expect.stringContaining(words) });
  expect(receiver.sockets).toEqual([]);
});

test("a name that rebinds after the check changes nothing, neither in the same attempt nor on a connection that is kept", async () => {
  expect(await attempt("receiver.example")).toMatchObject({ kind: "delivered" });
  // Asked once, checked, and connected to what was checked: the second answer comes too late for that.
  names.answer(["10.0.0.1"]);
  sending.aheadMs = 31_000;
  expect(await attempt("receiver.example")).toMatchObject({ kind: "failed", reason: "blocked" });
  expect(names.questions).toEqual(["receiver.example", "receiver.example"]);
  expect(receiver.sockets).toHaveLength(1);
});

test("of several addresses the next one is tried when nobody listens on the first", async () => {
  // All of 127/8 is loopback; the receiver listens on one of them.
  names.answer(["127.0.0.2", "127.0.0.1"]);
  expect(await attempt()).toMatchObject({ kind: "delivered" });
  names.answer(["127.0.0.2", "127.0.0.3"]);
  expect(await attempt()).toMatchObject({ kind: "failed", reason: "refused", words: expect.stringContaining("nobody listens") });
});
