import { expect, test } from "vitest";
import type { Captured, Change, Row } from "../capture/change.ts";
import { buildCatalogue, type Catalogue } from "../event/catalogue.ts";
import type { Rule } from "../event/define.ts";
import { track } from "../event/track.ts";
import type { TableInfo } from "../store/tables.ts";
import { type Attempted, describeAttempt, describeCaptured } from "./describe-activity.ts";

const column = (name: string): TableInfo["columns"][number] => ({
  name,
  typeOid: 25,
  typeName: "text",
  castType: "text",
  isNullable: false,
  isGenerated: false,
});

const deal: TableInfo = {
  oid: 1,
  schema: "public",
  table: "deal",
  name: "deal",
  columns: [column("id"), column("status"), column("amount")],
  keyColumns: ["id"],
  replicaIdentity: "f",
  isPartitioned: false,
};

function catalogueOf(events: Readonly<Record<string, { on: Rule; where?: (row: Row) => boolean }>>): Catalogue {
  const handler = track("deal", ({ action, trigger }) => {
    if (action === "delete") trigger("Gone", "7");
  });
  return buildCatalogue({
    tables: [deal],
    events: Object.entries({ ...events, Gone: { on: undefined } }).map(([name, { on, ...rest }]) => ({
      name,
      file: `events/${name}.ts`,
      definition: { kind: "event", table: "deal", payload: () => ({}), example: {}, ...(on === undefined ? {} : { on }), ...rest },
    })),
    tracking: [{ file: "tracking/deal.ts", handler }],
  });
}

function change(action: Change["action"], before: Row | undefined, after: Row | undefined): Change {
  const transaction = { xid: 1, commitLsn: 1n, committedAtUs: 0n };
  return {
    kind: "change",
    transaction,
    position: { commitLsn: 1n, changeLsn: 1n, ordinal: 0 },
    table: "deal",
    action,
    key: "42",
    before,
    after,
  };
}

const describe = (catalogue: Catalogue, ...captured: readonly Captured[]): readonly string[] => describeCaptured(captured, catalogue);
const row = (status: string): Row => ({ id: "42", status, amount: "1" });

test("a change is described by the events it made happen, those of a handler with their key", () => {
  const catalogue = catalogueOf({ New: { on: "insert" } });
  expect(describe(catalogue, change("insert", undefined, row("open")))).toEqual(["deal 42 insert → New"]);
  expect(describe(catalogue, change("delete", row("open"), undefined))).toEqual(["deal 42 delete → Gone 7"]);
});

test.each<[string, { on: Rule; where?: (row: Row) => boolean }]>([
  ["E: happens on insert", { on: "insert" }],
  ["E: where is false", { on: "update", where: () => false }],
  ["E: status, amount did not change", { on: { update: ["status", "amount"] } }],
  ["E: where is not other than it was", { on: "enter", where: () => true }],
])("an update that makes nothing happen says why: %s", (reason, event) => {
  const [line] = describe(catalogueOf({ E: event }), change("update", row("open"), row("open")));
  expect(line).toContain(reason);
  expect(line).toMatch(/^deal 42 update → nothing \(/);
});

test("a rule that throws is shown with what it said", () => {
  const catalogue = catalogueOf({
    E: {
      on: "insert",
      where: () => {
        throw new Error("no such luck");
      },
    },
  });
  expect(describe(catalogue, change("insert", undefined, row("open")))).toEqual(["deal 42 insert → E threw: no such luck"]);
});

test("many changes are counted", () => {
  const many = Array.from({ length: 30 }, () => change("insert", undefined, row("open")));
  expect(describe(catalogueOf({ New: { on: "insert" } }), ...many)).toEqual(["30 × deal insert → New"]);
});

const attempt = {
  message: { event: "New", key: "42", id: "msg_1" },
  subscription: { id: "sub_1", origin: "http://127.0.0.1:9", path: "/hook" },
};
const failed = { kind: "failed", status: undefined, response: undefined, durationMs: 7.4 } as const;

test.each<[string, Omit<Attempted, "message" | "subscription">, string]>([
  ["taken", { outcome: { kind: "delivered", status: 200, durationMs: 3.4 }, after: undefined }, "New 42 delivered: 200 in 3 ms (msg_1)"],
  [
    "refused by the receiver",
    { outcome: { ...failed, reason: "status", status: 503, response: Buffer.from("<html>") }, after: retrying(5_000) },
    "New 42 failed: status 503 in 7 ms (msg_1); http://127.0.0.1:9/hook of sub_1; next attempt in 5 s",
  ],
  [
    "not connected",
    { outcome: { ...failed, reason: "connection", response: Buffer.from("connect ECONNREFUSED 127.0.0.1:9") }, after: retrying(600_000) },
    "New 42 failed: connection (connect ECONNREFUSED 127.0.0.1:9) in 7 ms (msg_1); http://127.0.0.1:9/hook of sub_1; next attempt in 10 min",
  ],
  [
    "blocked, for the last time",
    {
      outcome: { ...failed, reason: "blocked", response: Buffer.from("10.0.0.1 is private") },
      after: { state: "exhausted", nextAttemptAtMs: undefined },
    },
    "New 42 failed: blocked (10.0.0.1 is private) in 7 ms (msg_1); http://127.0.0.1:9/hook of sub_1; no attempt is left; --allow-network opens a network",
  ],
])("an attempt that was %s says what came of it, where, and what comes next", (_what, came, line) => {
  expect(describeAttempt({ ...attempt, ...came }, 1_000)).toBe(line);
});

function retrying(inMs: number): Attempted["after"] {
  return { state: "retrying", nextAttemptAtMs: 1_000 + inMs };
}
