import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { migrate } from "../../src/create-ancrage.ts";
import { startAncrage, type AncrageProcess } from "../ancrage-process.ts";
import { cloneDatabase, type TestDatabase } from "../database.ts";
import { startReceiver, type ReceivedRequest, type Receiver } from "../receiver.ts";

/** Processes as they are in production, with the lease as it is there: stopped, killed, and Asked to end. */
const library = new URL("../../src/index.ts", import.meta.url).href;
const token = "a-token-of-the-operator";

let database: TestDatabase;
let receiver: Receiver;
let folder: string;
let processes: AncrageProcess[];
beforeEach(async () => {
  processes = [];
  database = await cloneDatabase();
  receiver = await startReceiver();
  await database.client.query("create table item (id integer primary key)");
  folder = await mkdtemp(join(tmpdir(), "ancrage-leadership-"));
  await mkdir(join(folder, "events"));
  await writeFile(
    join(folder, "events", "Made.ts"),
    `import { defineEvent } from ${JSON.stringify(library)};
export default defineEvent({
  table: "item",
  on: "insert",
  payload(item) {
    if (item.id === 666) setTimeout(() => { throw new Error("nobody catches this"); }, 0);
    return { id: item.id };
  },
});\n`,
  );
  await migrate({ database: database.url, events: folder });
});
afterEach(async () => {
  await Promise.all(processes.map((one) => one.end("SIGKILL")));
  await receiver.close();
  await database.remove();
  await rm(folder, { recursive: true, force: true });
});

async function start(role: "leading" | "standby", more: Readonly<Record<string, string>> = {}): Promise<AncrageProcess & { url: string }> {
  const started = startAncrage(["start", folder, "--port", "0", "--json", "--allow-http", "--allow-network", "127.0.0.0/8"], {
    DATABASE_URL: database.url,
    ANCRAGE_TOKEN: token,
    ANCRAGE_SECRET_KEY: Buffer.alloc(32, 7).toString("base64"),
    ...more,
  });
  processes.push(started);
  const ready = JSON.parse(await started.line(/^\{"ready":true/)) as { readonly url: string; readonly role: string };
  expect(ready.role).toBe(role);
  return Object.assign(started, { url: ready.url });
}

async function call<Body>(url: string, method: string, body?: object): Promise<Body> {
  const answer = await fetch(url, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return (await answer.json()) as Body;
}
const subscribe = ({ url }: { readonly url: string }): Promise<unknown> =>
  call(`${url}/v1/subscriptions`, "POST", { event: "Made", url: receiver.url, format: "bare" });
const insert = (id: number): Promise<unknown> => database.client.query("insert into item values ($1)", [id]);
const received = (id: number): number => receiver.requests.filter(({ body }) => body === `{"id":${id}}`).length;
const arrived = (id: number): Promise<unknown> => receiver.until(() => received(id) > 0);
async function rows(sql: string): Promise<readonly unknown[]> {
  return (await database.client.query({ text: sql, rowMode: "array" })).rows;
}
const finished = async (count: number): Promise<void> => {
  while (Number(((await rows("select count(*) from ancrage.deliveries where state = 'delivered'")) as number[][])[0]?.[0]) < count);
};

test("a leader that is stopped is replaced; continued, it neither sends, nor commits, nor moves the position, says why, and ends", async () => {
  const first = await start("leading");
  await subscribe(first);
  const held: ServerResponse[] = [];
  receiver.answer((request: ReceivedRequest, response: ServerResponse): void => {
    if (request.body === '{"id":2}' && held.length === 0) held.push(response);
    else response.writeHead(200).end();
  });
  await insert(1);
  await arrived(1);
  const second = await start("standby");
  await insert(2);
  await receiver.until(() => held.length === 1);
  first.send("SIGSTOP");
  await insert(3);
  await arrived(3);
  // What was in flight at the stop is in flight again, with the same id.
  await receiver.until(() => received(2) === 2);
  await finished(3);
  const batches = "select max(number) filter (where epoch = 1), min(number) filter (where epoch = 2) from ancrage.batches";
  const [before] = await rows(batches);
  // Its outcome of back then, and something to capture.
  held[0]?.writeHead(500).end();
  await insert(4);
  first.send("SIGCONT");
  // It would be of no more use. Whoever watches it starts it anew, as the standby.
  expect(await first.ended).toBe(1);
  expect(JSON.parse(first.err.at(-1) ?? "")).toMatchObject({
    error: { code: "ANCRAGE_SUPERSEDED", hint: expect.stringContaining("Started anew, this process is its standby.") },
  });
  await start("standby");
  await insert(5);
  await arrived(5);
  await finished(5);
  expect([1, 2, 3, 4, 5].map(received)).toEqual([1, 2, 1, 1, 1]);
  expect(new Set(receiver.requests.filter(({ body }) => body === '{"id":2}').map(({ headers }) => headers["webhook-id"])).size).toBe(1);
  expect(await rows(batches)).toEqual([before]);
  expect(await rows("select state, attempts from ancrage.deliveries group by 1, 2")).toEqual([["delivered", 1]]);
  expect(await rows("select count(*) from ancrage.attempts")).toEqual([["0"]]);
  expect(await second.end("SIGTERM")).toBe(0);
}, 120_000);

test("a standby takes over within 5 s of a death", async () => {
  const first = await start("leading");
  await subscribe(first);
  await insert(1);
  await arrived(1);
  await start("standby");
  const killedAtMs = performance.now();
  await first.end("SIGKILL");
  await insert(2);
  await arrived(2);
  const tookMs = performance.now() - killedAtMs;
  console.log(`took over ${Math.round(tookMs)} ms after the kill`);
  // 5 s on a machine with time to spare.
  expect(tookMs).toBeLessThan(8_000);
}, 120_000);

test("asked to end, it waits for what is in flight, and leaves what has no answer to the next one; asked twice, it goes at once", async () => {
  const held: ServerResponse[] = [];
  receiver.answer((request: ReceivedRequest, response: ServerResponse): void => {
    if (request.body === '{"id":1}') setTimeout(() => response.writeHead(200).end(), 500);
    else held.push(response);
  });
  const patient = await start("leading");
  await subscribe(patient);
  await insert(1);
  await arrived(1);
  expect(await patient.end("SIGTERM")).toBe(0);
  expect(await rows("select state from ancrage.deliveries")).toEqual([["delivered"]]);

  const brief = await start("leading", { ANCRAGE_SHUTDOWN_GRACE_S: "1" });
  await insert(2);
  await arrived(2);
  expect(await brief.end("SIGTERM")).toBe(0);
  // Given back: the next one leads without a wait, and sends again what had no answer.
  for (const [signal, code] of [
    ["SIGTERM", 143],
    ["SIGINT", 130],
  ] as const) {
    const sent = received(2);
    const hasty = await start("leading", { ANCRAGE_SHUTDOWN_GRACE_S: "600" });
    await receiver.until(() => received(2) > sent);
    hasty.send(signal);
    await hasty.line(/Asked to end/);
    expect(await hasty.end(signal)).toBe(code);
  }
  expect(new Set(receiver.requests.filter(({ body }) => body === '{"id":2}').map(({ headers }) => headers["webhook-id"])).size).toBe(1);
  expect(received(1)).toBe(1);
}, 120_000);

test("an error that nobody catches ends it with the name of the event's file", async () => {
  const started = await start("leading");
  await insert(666);
  expect(await started.ended).toBe(1);
  expect(started.err.slice(-2).join("\n")).toMatch(
    /^ANCRAGE_COMMAND_FAILED: an error that no code caught .*: nobody catches this, at \S*\/events\/Made\.ts:\d+:\d+\.\nMend that file/,
  );
});
