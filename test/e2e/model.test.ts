import { expect, test } from "vitest";
import type { Entry, State } from "./model-log.ts";
import { judge } from "./model.ts";

// The model of `model.pg.test.ts`, on logs of a few lines: it must see what is wrong, and nothing else.

const sub = "sub_A";
const notes = new Map([
  ["msg_1", 1],
  ["msg_2", 2],
]);
const created = (order: "none" | "record" | "all" = "none"): Entry => ({ e: "created", sub, event: "ItemChanged", order });
const committed: Entry = {
  e: "committing",
  changes: [
    { note: 1, event: "ItemChanged", key: "1" },
    { note: 2, event: "ItemChanged", key: "1" },
  ],
};
const more: Entry = { e: "committing", changes: [{ note: 3, event: "ItemChanged", key: "1" }] };
const begin = (message: string, number = 1, atMs = 0): Entry => ({ e: "begin", sub, message, number, atMs });
const finish = (
  message: string,
  state: State["state"],
  attempts = 1,
  more: { readonly status?: number; readonly holdMs?: number; readonly reason?: string; readonly dueAtMs?: number } = {},
): Entry => ({
  e: "finish",
  sub,
  message,
  isSuccess: state === "delivered",
  status: more.status ?? 200,
  reason: more.reason ?? null,
  holdMs: more.holdMs ?? 0,
  after: { state, round: 1, attempts },
  dueAtMs: more.dueAtMs ?? null,
  atMs: 0,
});
const late = (message: string): Entry => ({ ...finish(message, "delivered"), after: null }) as Entry;
const write = (e: "journaling" | "journaled", message: string, state: State["state"], dueAtMs: number | null = null): Entry => ({
  e,
  updates: [{ sub, message, row: { state, round: 1, attempts: 1 }, dueAtMs, from: null }],
});
type OfSub =
  | "pausing"
  | "paused"
  | "resuming"
  | "resumed"
  | "deleting"
  | "deleted"
  | "canceling"
  | "canceled"
  | "not-canceled"
  | "disabled";
const of = (e: OfSub): Entry => ({ e, sub });
const faultsOf = (entries: readonly Entry[]): readonly string[] => judge(entries, { attempts: 3, notes }).faults;

const right: Readonly<Record<string, readonly Entry[]>> = {
  "a success": [created(), committed, begin("msg_1"), finish("msg_1", "delivered")],
  "a retry": [created(), committed, begin("msg_1"), finish("msg_1", "retrying"), begin("msg_1", 2), finish("msg_1", "delivered", 2)],
  "sent again after a kill, as nothing was journaled": [
    created(),
    committed,
    begin("msg_1"),
    finish("msg_1", "delivered"),
    { e: "killed" },
    begin("msg_1"),
  ],
  "sent again after a kill in the middle of the batch": [
    created(),
    committed,
    begin("msg_1"),
    finish("msg_1", "delivered"),
    write("journaling", "msg_1", "delivered"),
    { e: "killed" },
    begin("msg_1"),
  ],
  "sent again after it was resumed": [created(), committed, of("pausing"), of("paused"), of("resuming"), begin("msg_1")],
  "an outcome that comes after its delivery was canceled": [
    created(),
    committed,
    begin("msg_1"),
    of("canceling"),
    late("msg_1"),
    write("journaling", "msg_1", "delivered"),
    of("canceled"),
  ],
  "what is committed once it is disabled, and not sent": [
    created(),
    committed,
    begin("msg_1"),
    finish("msg_1", "retrying", 1, { status: 410 }),
    of("disabled"),
    more,
  ],
  "sent again though it was answered 410, by an attempt of before it was resumed": [
    created(),
    committed,
    begin("msg_1"),
    of("resuming"),
    of("resumed"),
    finish("msg_1", "retrying", 1, { status: 410 }),
    begin("msg_2"),
  ],
  "in order": [created("record"), committed, begin("msg_1"), finish("msg_1", "delivered"), begin("msg_2")],
};
test.each(Object.entries(right))("right: %s", (_, entries) => expect(faultsOf(entries)).toEqual([]));

const wrong: Readonly<Record<string, readonly [fault: RegExp, entries: readonly Entry[]]>> = {
  "sent twice": [
    /attempt 1 begins, but it is delivered/,
    [created(), committed, begin("msg_1"), finish("msg_1", "delivered"), begin("msg_1")],
  ],
  "sent again although it was journaled before the kill": [
    /attempt 1 begins, but it is delivered/,
    [
      created(),
      committed,
      begin("msg_1"),
      finish("msg_1", "delivered"),
      write("journaling", "msg_1", "delivered"),
      write("journaled", "msg_1", "delivered"),
      { e: "killed" },
      begin("msg_1"),
    ],
  ],
  "two at once": [/two attempts at once/, [created(), committed, begin("msg_1"), begin("msg_1")]],
  "never committed": [/never committed/, [created(), committed, begin("msg_3")]],
  "from before the subscription": [/is not for sub_A/, [committed, created(), begin("msg_1")]],
  "while it is paused": [/begins although it is paused/, [created(), committed, of("pausing"), of("paused"), begin("msg_1")]],
  "after its deletion": [/begins although it is deleted/, [created(), committed, of("deleting"), of("deleted"), begin("msg_1")]],
  "after 410": [
    /begins although it is gone/,
    [created(), committed, begin("msg_1"), finish("msg_1", "retrying", 1, { status: 410 }), begin("msg_2")],
  ],
  "after 410, of an attempt that began after it was resumed": [
    /begins although it is gone/,
    [created(), committed, of("resuming"), of("resumed"), begin("msg_1"), finish("msg_1", "retrying", 1, { status: 410 }), begin("msg_2")],
  ],
  "after it was canceled": [/but it is canceled/, [created(), committed, of("canceling"), of("canceled"), begin("msg_1")]],
  "before Retry-After is over": [
    /before Retry-After/,
    [created(), committed, begin("msg_1"), finish("msg_1", "retrying", 1, { status: 429, holdMs: 1_000 }), begin("msg_1", 2, 500)],
  ],
  "out of order": [/2 for sub_A begins before 1 is over/, [created("record"), committed, begin("msg_2")]],
  "more attempts than the schedule has": [
    /became retrying/,
    [
      created(),
      committed,
      begin("msg_1"),
      finish("msg_1", "retrying"),
      begin("msg_1", 2),
      finish("msg_1", "retrying", 2),
      begin("msg_1", 3),
      finish("msg_1", "retrying", 3),
    ],
  ],
  "what was not": [/is journaled, but it is pending/, [created(), committed, write("journaling", "msg_1", "delivered")]],
  "late, though nothing was done to it": [/nobody touched it/, [created(), committed, begin("msg_1"), late("msg_1")]],
  "late in another attempt than the one that was canceled": [
    /nobody touched it/,
    [created(), committed, of("canceling"), of("not-canceled"), begin("msg_1"), late("msg_1")],
  ],
  "a row of a canceled delivery that never was": [
    /retrying 1\/1 is journaled/,
    [created(), committed, of("canceling"), of("canceled"), write("journaling", "msg_1", "retrying")],
  ],
  "sent after it was disabled, and a kill": [
    /begins although it is disabled/,
    [created(), committed, of("disabled"), { e: "killed" }, begin("msg_1")],
  ],
  "committed after it was disabled": [/is not for sub_A/, [created(), of("disabled"), committed, of("resuming"), begin("msg_1")]],
  "before it is due": [
    /500 ms before it is due/,
    [created(), committed, begin("msg_1"), finish("msg_1", "retrying", 1, { dueAtMs: 1_000 }), begin("msg_1", 2, 500)],
  ],
  "before it is due by its row, after a kill": [
    /500 ms before it is due/,
    [
      created(),
      committed,
      begin("msg_1"),
      finish("msg_1", "retrying", 1, { dueAtMs: 1_000 }),
      write("journaling", "msg_1", "retrying", 1_000),
      write("journaled", "msg_1", "retrying", 1_000),
      { e: "killed" },
      begin("msg_1", 2, 500),
    ],
  ],
  "a 200 that counts as a failure": [
    /200 counts as a failure/,
    [created(), committed, begin("msg_1"), finish("msg_1", "retrying", 1, { reason: "status" })],
  ],
  "a 404 that counts as a success": [
    /404 counts as a success/,
    [created(), committed, begin("msg_1"), finish("msg_1", "delivered", 1, { status: 404 })],
  ],
  "in flight at an end in order": [/in flight at the end/, [created(), committed, begin("msg_1"), { e: "ended" }]],
  "an end that loses an outcome": [
    /its row says pending/,
    [created(), committed, begin("msg_1"), finish("msg_1", "delivered"), { e: "ended" }],
  ],
};
test.each(Object.entries(wrong))("wrong: %s", (_, [fault, entries]) => {
  expect(faultsOf(entries)).toEqual([expect.stringMatching(fault)]);
});
