import { afterEach, beforeEach, expect, test } from "vitest";
import { migrate, type Ancrage, type Internals } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import { startSystem, type System } from "./system.ts";

/** Several processes on one database, as a deployment starts, replaces and ends them; and processes whose clocks are wrong. */
const ItemCreated = defineEvent({ table: "item", on: "insert", payload: (item) => ({ id: item["id"] }) });

let system: System;
/** How far the processes' own clocks are ahead of the database's. */
let aheadMs = 0;
beforeEach(async () => {
  aheadMs = 0;
  system = await startSystem({
    schema: "create table item (id integer generated always as identity primary key)",
    events: { ItemCreated },
    options: { retry: { schedule: [0, 0.2, 70, 70], jitter: 0 } },
    internals: { leaseMs: 1_500, clock: { nowMs: () => Date.now() + aheadMs, monotonicMs: () => performance.now() } },
    isStarted: false,
  });
});
afterEach(() => system.close());

const headers = { authorization: "Bearer a-token-of-the-operator" };
async function roleOf(ancrage: Ancrage): Promise<string> {
  const answer = await ancrage.fetch(new Request("http://ancrage.test/v1/status", { headers }));
  return ((await answer.json()) as { readonly details: { readonly role: string } }).details.role;
}
async function untilLeading(ancrage: Ancrage): Promise<void> {
  while ((await roleOf(ancrage)) !== "leading") await new Promise((resolve) => setTimeout(resolve, 20));
}
const subscribe = (): Promise<unknown> =>
  system.call("POST", "/v1/subscriptions", { event: "ItemCreated", url: system.receiver.url, format: "bare" });
const insert = (): Promise<unknown> => system.rows("insert into item default values");
const received = (): readonly number[] => system.receiver.requests.map(({ body }) => (JSON.parse(body) as { readonly id: number }).id);

async function started(internals?: Internals): Promise<Ancrage> {
  const ancrage = system.another(internals);
  await ancrage.start();
  return ancrage;
}

test("three migrations at once make one of all; two that start at once lead and wait; one that the schema lacks something for does not", async () => {
  await system.rows("select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()");
  const publications = await system.rows<{ pubname: string }>("select pubname from pg_publication");
  for (const { pubname } of publications) await system.rows(`drop publication ${pubname}`);
  await system.rows("drop schema ancrage cascade");
  const ran = (await Promise.all([1, 2, 3].map(() => migrate(system.options)))).flatMap((one) => one.ran);
  expect(ran.filter((step) => step === "journal")).toHaveLength(1);
  expect(ran.filter((step) => step.includes("pg_create_logical_replication_slot"))).toHaveLength(1);
  expect((await migrate(system.options)).ran).toEqual([]);

  const both = [system.ancrage(), system.another()];
  await Promise.all(both.map((one) => one.start()));
  expect((await Promise.all(both.map(roleOf))).toSorted()).toEqual(["leading", "standby"]);
  await subscribe();
  for (let row = 0; row < 20; row++) await insert();
  await system.receiver.until((all) => all.length === 20);

  // A deployment: as if the schema had one migration less than this version knows, and one more.
  await system.rows("update ancrage.migrations set number = number + 1000");
  await expect(started()).rejects.toMatchObject({ code: "ANCRAGE_NOT_MIGRATED" });
  await insert();
  await system.receiver.until((all) => all.length === 21);
  await Promise.all(both.map((one) => one.stop()));
  expect(received().toSorted((a, b) => a - b)).toEqual(Array.from({ length: 21 }, (_, index) => index + 1));
}, 60_000);

test("three processes replaced in turn, then five, then one again, while rows are written: each arrives, and none twice", async () => {
  await system.ancrage().start();
  await subscribe();
  let running = [system.ancrage(), await started(), await started()];
  let written = 0;
  const writer = new AbortController();
  const writing = (async () => {
    for (; !writer.signal.aborted; written++) await insert();
  })();
  for (const old of running) {
    // A deployment starts the new one while the old one ends.
    const [next] = await Promise.all([started(), old.stop()]);
    running = [...running.filter((one) => one !== old), next];
  }
  const five = [...running, await started(), await started()];
  const roles = await Promise.all(five.map(roleOf));
  const last = five[roles.indexOf("standby")] ?? system.ancrage();
  await Promise.all(five.filter((one) => one !== last).map((one) => one.stop()));
  await untilLeading(last);
  writer.abort();
  await writing;
  await system.receiver.until((all) => all.length >= written);
  await last.stop();
  expect(received().toSorted((a, b) => a - b)).toEqual(Array.from({ length: written }, (_, index) => index + 1));
  expect(await system.rows("select state from ancrage.deliveries where state <> 'delivered'")).toEqual([]);
}, 60_000);

const waits = `select round(extract(epoch from next_attempt_at - now())) between 60 and 70 as is_right from ancrage.deliveries
  where state = 'retrying' and attempts = 2`;

test("a clock that is wrong, or jumps, changes no time of a retry and no lead; what is signed says what the process believes", async () => {
  // As with a database whose clock is ten minutes ahead.
  aheadMs = -600_000;
  await system.ancrage().start();
  await subscribe();
  const standby = await started();
  for (const jumpMs of [-600_000, 600_000, 86_400_000, -3_600_000]) {
    aheadMs = jumpMs;
    system.receiver.answer(500);
    const before = system.receiver.requests.length;
    await insert();
    // The second attempt by the monotonic clock, whatever the other one says.
    const [first, second] = (await system.receiver.until((all) => all.length === before + 2)).slice(before);
    expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeLessThan(5_000);
    expect(Math.abs(Number(second?.headers["webhook-timestamp"]) * 1_000 - Date.now() - aheadMs)).toBeLessThan(5_000);
    // The third waits in the journal, by the database's clock.
    await system.until(waits, true);
    await system.rows("update ancrage.deliveries set state = 'canceled', next_attempt_at = null where state = 'retrying'");
  }
  expect(await roleOf(system.ancrage())).toBe("leading");
  expect(await roleOf(standby)).toBe("standby");
  expect(await system.rows("select epoch::integer from ancrage.leaders")).toEqual([{ epoch: 1 }]);
}, 60_000);
