import { expect, test } from "vitest";
import { createDevReceiver, type DevReceiver } from "./receiver.ts";

const start = Date.UTC(2026, 10, 24, 4, 20);
const base = "http://127.0.0.1:8787/_dev/receiver";

function create(options: Partial<Parameters<typeof createDevReceiver>[0]> = {}): DevReceiver {
  return createDevReceiver({ nowMs: () => start, ...options });
}

const post = (path: string, body: string): Request =>
  new Request(base + path, { method: "POST", body, headers: { "webhook-id": "msg_1" } });

async function shown(receiver: DevReceiver, path: string): Promise<unknown> {
  return (await receiver.handle(new Request(base + path)))?.json();
}

test("what is posted is shown, newest first, with its headers", async () => {
  const seen: string[] = [];
  const receiver = create({ onReceived: (name, { number }) => seen.push(`${name} ${number}`) });
  expect((await receiver.handle(post("/demo", '{"a":1}')))?.status).toBe(200);
  await receiver.handle(post("/demo", "no json"));
  expect(await shown(receiver, "/demo")).toEqual({
    data: [
      {
        number: 2,
        at: "2026-11-24T04:20:00.000Z",
        status: 200,
        body: "no json",
        headers: expect.objectContaining({ "webhook-id": "msg_1" }),
      },
      {
        number: 1,
        at: "2026-11-24T04:20:00.000Z",
        status: 200,
        body: { a: 1 },
        headers: expect.objectContaining({ "webhook-id": "msg_1" }),
      },
    ],
    next: null,
  });
  expect(await shown(receiver, "")).toEqual({ data: ["demo"], next: null });
  expect(await shown(receiver, "/other")).toEqual({ data: [], next: null });
  expect(seen).toEqual(["demo 1", "demo 2"]);
});

test("it answers with the status that is asked for, and keeps the request", async () => {
  const receiver = create();
  expect((await receiver.handle(post("/demo?status=503", "{}")))?.status).toBe(503);
  expect((await receiver.handle(post("/demo?status=204", "{}")))?.status).toBe(204);
  expect(await shown(receiver, "/demo")).toMatchObject({ data: [{ status: 204 }, { status: 503 }] });
  expect((await receiver.handle(post("/demo?status=99", "{}")))?.status).toBe(400);
});

test("only the last 50 of a name are kept, and their numbers go on", async () => {
  const receiver = create();
  for (let turn = 0; turn < 60; turn++) await receiver.handle(post("/demo", "{}"));
  const { data } = (await shown(receiver, "/demo")) as { data: readonly { number: number }[] };
  expect(data.map(({ number }) => number)).toEqual(Array.from({ length: 50 }, (_, index) => 60 - index));
});

test("of more than 100 names the one that was silent longest goes", async () => {
  const receiver = create();
  for (let turn = 0; turn < 100; turn++) await receiver.handle(post(`/n${turn}`, "{}"));
  await receiver.handle(post("/n0", "{}"));
  await receiver.handle(post("/new", "{}"));
  expect(Object.keys(receiver.received())).toHaveLength(100);
  expect(receiver.received()).not.toHaveProperty("n1");
  expect(receiver.received()).toHaveProperty("n0");
});

test("the next pipeline of a dev goes on where the last one stopped", async () => {
  const first = create();
  await first.handle(post("/demo", "1"));
  const second = create({ received: first.received() });
  await second.handle(post("/demo", "2"));
  expect(await shown(second, "/demo")).toMatchObject({
    data: [
      { number: 2, body: 2 },
      { number: 1, body: 1 },
    ],
  });
});

test("DELETE forgets", async () => {
  const receiver = create();
  await receiver.handle(post("/demo", "1"));
  expect(await (await receiver.handle(new Request(`${base}/demo`, { method: "DELETE" })))?.json()).toEqual({ forgotten: true });
  expect(await shown(receiver, "/demo")).toEqual({ data: [], next: null });
});

test("other paths are not its own; other methods and names are refused", async () => {
  const receiver = create();
  expect(await receiver.handle(new Request("http://127.0.0.1:8787/v1/status"))).toBeUndefined();
  expect(await receiver.handle(new Request("http://127.0.0.1:8787/_dev/receivers/a"))).toBeUndefined();
  expect((await receiver.handle(new Request(`${base}/demo`, { method: "PUT" })))?.status).toBe(405);
  expect((await receiver.handle(post("/a%20b", "{}")))?.status).toBe(404);
  expect((await receiver.handle(post("/a%", "{}")))?.status).toBe(404);
  expect((await receiver.handle(post("", "{}")))?.status).toBe(404);
  expect((await receiver.handle(post("/demo", "x".repeat(1024 * 1024 + 1))))?.status).toBe(413);
});
