import { afterEach, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import type { ReceivedRequest } from "../receiver.ts";
import { createRandom } from "./random.ts";
import { startSystem, type System } from "./system.ts";

const ItemChanged = defineEvent({
  table: "item",
  on: ["insert", "update"],
  payload: (item) => ({ id: item["id"], step: item["step"], note: item["note"] }),
});

let system: System;
afterEach(() => system.close());

interface Seen {
  readonly id: number;
  readonly step: number;
  readonly note: number;
  readonly isTaken: boolean;
}

const records = 5;
const notes = 30;

/** A receiver that refuses many attempts; what it has seen, in the order in which it came. */
function startRefusing(seed: number): Seen[] {
  const random = createRandom(seed);
  const seen: Seen[] = [];
  system.receiver.answer(({ body }: ReceivedRequest) => {
    const isTaken = !random.chance(0.4);
    seen.push({ ...(JSON.parse(body) as Omit<Seen, "isTaken">), isTaken });
    return isTaken ? 200 : 500;
  });
  return seen;
}

/** Each step of each record, one transaction a step, so that the steps of all records are mixed in the log. */
async function change(from: number, to: number): Promise<void> {
  for (let note = from; note <= to; note++) {
    await system.rows(`update item set step = step + 1, note = $1 where id = $2`, [note, (note % records) + 1]);
  }
}

/** What breaks the promise: something was sent although something before it was not taken yet, or was left out. */
function faultsOf(seen: readonly Seen[], place: (one: Seen) => { readonly queue: number; readonly at: number }): readonly string[] {
  const taken = new Map<number, number>();
  const faults: string[] = [];
  for (const one of seen) {
    const { queue, at } = place(one);
    const last = taken.get(queue) ?? 0;
    // What was taken last may come once more after a restart: at least once is the promise.
    if (at !== last + 1 && at !== last) faults.push(`${at} of ${queue} after ${last}`);
    if (one.isTaken) taken.set(queue, Math.max(last, at));
  }
  return faults;
}

test.each(["record", "all"] as const)(
  "order %s: by position, past failures and restarts, of what had a row and of what had none",
  { timeout: 60_000 },
  async (order) => {
    system = await startSystem({
      schema: "create table item (id integer primary key, step integer not null default 0, note integer not null default 0)",
      events: { ItemChanged },
      // Long enough that a restart finds some that are not due: these must hold back what comes after them.
      options: { retry: { schedule: [0, ...Array.from({ length: 40 }, () => 0.15)], jitter: 0.2 }, shutdown: { graceS: 1 } },
    });
    await system.rows(`insert into item (id) select from_id from generate_series(1, ${records}) as from_id`);
    const { body } = await system.call("POST", "/v1/subscriptions", {
      event: "ItemChanged",
      url: system.receiver.url,
      format: "bare",
      order,
    });
    expect(body.order).toBe(order);
    const seen = startRefusing(order === "all" ? 3 : 4);
    await change(1, notes / 3);
    await system.receiver.until((all) => all.length > 5);
    await change(notes / 3 + 1, (2 * notes) / 3);
    // Some of these are in the middle of it, some wait in memory without a row, and some were given one.
    await system.restart();
    await change((2 * notes) / 3 + 1, notes);
    await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", notes);
    expect(seen.some(({ isTaken }) => !isTaken)).toBe(true);
    expect(new Set(seen.filter(({ isTaken }) => isTaken).map(({ note }) => note)).size).toBe(notes);
    expect(faultsOf(seen, ({ id, step, note }) => (order === "all" ? { queue: 0, at: note } : { queue: id, at: step }))).toEqual([]);
  },
);
