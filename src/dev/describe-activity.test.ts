import { expect, test } from "vitest";
import type { Captured, Change, Row } from "../capture/change.ts";
import { buildCatalogue, type Catalogue } from "../event/catalogue.ts";
import type { Rule } from "../event/define.ts";
import { track } from "../event/track.ts";
import type { TableInfo } from "../store/tables.ts";
import { describeAttempt, describeCaptured } from "./describe-activity.ts";

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

test("an attempt says what came of it", () => {
  const message = { event: "New", key: "42", id: "msg_1" };
  expect(describeAttempt(message, { kind: "delivered", status: 200, durationMs: 3.4 })).toBe("New 42 delivered: 200 in 3 ms (msg_1)");
  const failed = { kind: "failed", response: undefined, durationMs: 15_000 } as const;
  expect(describeAttempt(message, { ...failed, reason: "status", status: 503 })).toBe("New 42 failed: status 503 in 15000 ms (msg_1)");
  expect(describeAttempt(message, { ...failed, reason: "timeout", status: undefined })).toBe("New 42 failed: timeout in 15000 ms (msg_1)");
});
