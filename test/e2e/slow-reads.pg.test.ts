import { afterAll, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { startSystem, type System } from "./system.ts";

/** An event whose query never ends in time, beside one that is well. */
const Slow = defineEvent({
  table: "item",
  on: "insert",
  where: (item) => item["label"] !== "fine",
  project: (item) => String(item["company"]),
  payload: async (item, { sql }) => ({
    slow: item["id"],
    rows: (await sql`select read_slowly(${item["label"]}) as rows`.catch(() => []))[0],
  }),
});
const Fine = defineEvent({
  table: "item",
  on: "insert",
  project: (item) => String(item["company"]),
  payload: (item) => ({ fine: item["id"] }),
});

/** As a statement ends whose time is up, and at once. */
const readSlowly = (condition: string): string => `create or replace function read_slowly(label text) returns integer language plpgsql as $$
  begin if ${condition} then raise exception 'canceling statement due to statement timeout' using errcode = '57014'; end if; return 1; end $$`;

const patienceMs = 2_500;
let system: System;
beforeAll(async () => {
  system = await startSystem({
    schema: `create table item (id integer generated always as identity primary key, label text not null, company text not null default 'acme'); ${readSlowly("label like 'slow%'")}`,
    events: { Slow, Fine },
    internals: { readPatienceMs: patienceMs },
  });
  const { body } = await system.call("POST", "/v1/subscriptions", {
    events: ["Slow", "Fine"],
    url: system.receiver.url,
    format: "bare",
    project: "acme",
  });
  await system.until(`select start_lsn is not null from ancrage.subscriptions where id = '${body.id}'`, true);
});
afterAll(() => system.close());

const bodies = (): readonly string[] => system.receiver.requests.map(({ body }) => body);
const arrived = (...all: readonly string[]): Promise<unknown> => system.receiver.until(() => all.every((one) => bodies().includes(one)));
const problems = async () =>
  (await system.call("GET", "/v1/status")).body.problems as readonly { code: string; message: string; hint: string }[];

test("reads that run out of time hold all up, and are named; after a while they alone are rejected, and nothing is lost", async () => {
  await system.rows("insert into item (label) values ('slow 1'), ('other'), ('fine'), ('slow 2'), ('slow 3'), ('slow 4'), ('slow 5')");
  await expect.poll(problems, { timeout: 10_000 }).toMatchObject([
    {
      code: "payload-held",
      message: expect.stringMatching(
        /^the payload of Slow cannot be built since 20.*, and what .* waits: canceling statement due to statement timeout$/,
      ),
      hint: expect.stringContaining("Nothing is lost."),
    },
  ]);
  expect(await system.call("GET", "/readyz")).toMatchObject({ status: 503, body: { problems: ["payload-held"] } });
  expect(bodies()).toEqual([]);

  await system.receiver.until((all) => all.length === 8);
  expect(bodies().filter((body) => body.includes("slow"))).toEqual(['{"slow":2,"rows":{"rows":1}}']);
  const { body: list } = await system.call("GET", "/v1/rejections?project=acme");
  expect(list.data.map(({ key, reason }: Readonly<Record<string, string>>) => [key, reason])).toEqual(
    ["7", "6", "5", "4", "1"].map((key) => [key, "read-timeout"]),
  );
  // The fourth in a row is not waited for.
  expect(list.data.at(0).error).toContain("not asked");
});

test("from then on it holds nobody up: its next ones are rejected at once, until one of them is built", async () => {
  await system.rows("insert into item (label) values ('slow 6')");
  await arrived('{"fine":8}');
  await system.until("select count(*) from ancrage.rejections", 6);
  expect(await problems()).toMatchObject([
    { code: "event-slow", message: expect.stringContaining("reads of Slow have run out of time since") },
  ]);
  expect((await system.call("GET", "/readyz")).status).toBe(200);

  expect((await system.call("GET", "/v1/events/Slow/explain?key=8&project=acme")).body).toMatchObject({
    fires: false,
    rejection: { reason: "read-timeout", error: expect.stringContaining("statement timeout") },
  });
  const { body: list } = await system.call("GET", "/v1/rejections");
  const again = await system.call("POST", `/v1/rejections/${list.data[0].id}/retry`);
  expect(again).toMatchObject({ status: 200, body: { outcome: "rejected", reason: "read-timeout" } });
  await system.rows(readSlowly("false"));
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "retry" });
  await arrived(...[1, 4, 5, 6, 7, 8].map((id) => `{"slow":${id},"rows":{"rows":1}}`));
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  expect(await system.rows("select 1 from ancrage.rejections")).toEqual([]);
  await system.rows("insert into item (label) values ('slow 7')");
  await arrived('{"fine":9}', '{"slow":9,"rows":{"rows":1}}');
  expect(await problems()).toEqual([]);
  expect(new Set(bodies()).size).toBe(bodies().length);
});

test("a job whose reads run out of time comes to its end", async () => {
  await system.rows(readSlowly("label like 'slow%'"));
  const { body } = await system.call("POST", "/v1/subscriptions", { event: "Slow", url: `${system.receiver.url}/filled`, project: "acme" });
  const { body: job } = await system.call("POST", "/v1/jobs", { kind: "backfill", event: "Slow", subscriptionId: body.id });
  await system.until(`select state from ancrage.jobs where id = '${job.id}'`, "done");
  expect((await system.call("GET", `/v1/jobs/${job.id}`)).body).toMatchObject({ done: 9, failed: 7 });
  expect(await system.rows("select distinct reason from ancrage.rejections")).toEqual([{ reason: "read-timeout" }]);
});
