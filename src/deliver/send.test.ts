import type { ServerResponse } from "node:http";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startReceiver, type ReceivedRequest, type Receiver } from "../../test/receiver.ts";
import { startSending, type Sending } from "../../test/sending.ts";

let receiver: Receiver;
let sending: Sending;
/** Answers that the receiver owes, by the message they are for. */
const owed = new Map<string, ServerResponse>();

beforeEach(async () => {
  owed.clear();
  receiver = await startReceiver();
  receiver.answer(({ headers }: ReceivedRequest, response: ServerResponse): void => void owed.set(headers["webhook-id"] ?? "", response));
  sending = startSending({ connectionsPerOrigin: 1 });
});
afterEach(async () => {
  await sending.close();
  await receiver.close();
});

const arrived = (): readonly (string | undefined)[] => receiver.requests.map(({ headers }) => headers["webhook-id"]);
const arrival = (id: string): Promise<unknown> => receiver.until(() => arrived().includes(id));

test("what waits for a connection does not use up its deadline", async () => {
  const first = sending.send(receiver.url, "msg_1");
  await arrival("msg_1");
  sending.aheadMs = 4_000;
  const queued = sending.send(receiver.url, "msg_2");
  sending.aheadMs = 8_000;
  expect(await first).toMatchObject({ kind: "failed", reason: "timeout" });
  // The connection was ended; the next one is for the one that waited, and has its whole time.
  await arrival("msg_2");
  sending.aheadMs = 12_000;
  await new Promise((resolve) => setTimeout(resolve, 600));
  owed.get("msg_2")?.writeHead(200).end();
  expect(await queued).toMatchObject({ kind: "delivered" });
  expect(arrived()).toEqual(["msg_1", "msg_2"]);
});

test("what is no longer wanted when a connection is there is not sent", async () => {
  const first = sending.send(receiver.url, "msg_1");
  await arrival("msg_1");
  let isWanted = true;
  const queued = sending.send(receiver.url, "msg_2", { isWanted: () => isWanted });
  isWanted = false;
  owed.get("msg_1")?.writeHead(200).end();
  expect(await first).toMatchObject({ kind: "delivered" });
  expect(await queued).toEqual({ kind: "unsent", shortage: undefined });
  expect(arrived()).toEqual(["msg_1"]);
  // Its connection is free for the next one.
  const third = sending.send(receiver.url, "msg_3");
  await arrival("msg_3");
  owed.get("msg_3")?.writeHead(200).end();
  expect(await third).toMatchObject({ kind: "delivered" });
});

test("an outcome says what the receiver answered, and keeps the first bytes of a refusal", async () => {
  const refused = sending.send(receiver.url, "msg_1");
  await arrival("msg_1");
  owed.get("msg_1")?.writeHead(503).end("not now");
  expect(await refused).toMatchObject({ kind: "failed", reason: "status", status: 503, response: Buffer.from("not now") });
});

test("a path that no request can hold is a failure and not another request", async () => {
  const outcome = await sending.send(receiver.url, "msg_1", { path: "/ HTTP/1.1\r\nx: y" });
  expect(outcome).toMatchObject({ kind: "failed", reason: "connection" });
  expect(String(outcome.kind === "failed" && outcome.response)).toContain("not sent");
});

test("closing ends what is under way and what waits, and sends nothing any more", async () => {
  const first = sending.send(receiver.url, "msg_1");
  await arrival("msg_1");
  const queued = sending.send(receiver.url, "msg_2");
  await sending.close();
  const late = sending.send(receiver.url, "msg_3");
  expect(await Promise.all([first, queued, late])).toMatchObject([{ kind: "failed" }, { kind: "failed" }, { kind: "failed" }]);
  expect(arrived()).toEqual(["msg_1"]);
});
