import assert from "node:assert/strict";
import fc from "fast-check";
import { expect, test } from "vitest";
import { AncrageError } from "../errors.ts";
import type { CatalogueEvent } from "../event/catalogue.ts";
import type { Occurrence } from "../match.ts";
import { formatOccurrence, parseOccurrence } from "./occurrence-bytes.ts";

const event: CatalogueEvent = {
  name: "deal.won",
  file: "events/deal/won.ts",
  definition: { kind: "event", payload: () => 1 },
  table: undefined,
  rules: [],
  jsonSchema: undefined,
};
const events = new Map([[event.name, event]]);
const occurrence: Occurrence = {
  event,
  key: "42",
  reason: "change",
  action: "update",
  actor: "integration:zapier",
  causedBy: { messageId: "msg_1", subscriptionId: "sub_1", depth: 2 },
  transaction: { xid: 4_294_967_295, commitLsn: 2n ** 64n - 1n, committedAtUs: 1_795_500_000_000_001n },
  position: { commitLsn: 2n ** 64n - 1n, changeLsn: 1n, ordinal: 3 },
  before: undefined,
  record: undefined,
  data: undefined,
};

test("an occurrence comes back as it was", () => {
  const bytea = fc.uint8Array().map((bytes) => Buffer.from(bytes));
  // What jsonb can hold, marks of ours included; JSON has no -0.
  const json = fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.parse(JSON.stringify(value)) as unknown);
  const value = fc.oneof(
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    json,
    bytea,
    fc.array(fc.oneof(bytea, fc.constant(null)), { minLength: 1 }),
  );
  const row = fc.option(fc.dictionary(fc.string(), value), { nil: undefined });
  fc.assert(
    fc.property(row, row, fc.option(json, { nil: undefined }), (before, record, data) => {
      const original = { ...occurrence, before, record, data };
      const parsed = parseOccurrence(formatOccurrence(original), events);
      assert.deepEqual(parsed, { ...original, before: before && { ...before }, record: record && { ...record } });
    }),
  );
});

test("a column that was not logged throws after a retry as it did before", () => {
  const record = Object.defineProperty({ id: 1 }, "notes", {
    enumerable: true,
    get() {
      throw new AncrageError("ANCRAGE_COLUMN_NOT_LOGGED", "not logged");
    },
  });
  const parsed = parseOccurrence(formatOccurrence({ ...occurrence, record }), events);
  expect(parsed.record?.["id"]).toBe(1);
  expect(() => parsed.record?.["notes"]).toThrow('did not carry column "notes"');
});

test("a value that cannot be read is kept with why: the rejection that says so ended the pipeline", () => {
  const record = Object.defineProperty({ id: 1 }, "closed_at", {
    enumerable: true,
    get() {
      throw new RangeError("an unknown timestamptz: Tue Nov 24");
    },
  });
  const parsed = parseOccurrence(formatOccurrence({ ...occurrence, record }), events);
  expect(parsed.record?.["id"]).toBe(1);
  expect(() => parsed.record?.["closed_at"]).toThrow('column "closed_at"');
  expect(() => parsed.record?.["closed_at"]).toThrow("an unknown timestamptz: Tue Nov 24");
});

test.each([
  ["a cycle", cycle(), "circular"],
  ["a BigInt", { id: 1n }, "BigInt"],
  ["a function", () => 1, "it is a function"],
])("data that is %s is kept as lost, and a retry says so rather than build without it", (_, data, why) => {
  const bytes = formatOccurrence({ ...occurrence, data });
  expect(() => parseOccurrence(bytes, events)).toThrow(/could not be kept/);
  expect(() => parseOccurrence(bytes, events)).toThrow(why);
});

test("an event that no file defines any more is named", () => {
  expect(() => parseOccurrence(formatOccurrence(occurrence), new Map())).toThrow('one of "deal.won", which no file defines any more');
});

function cycle(): object {
  const value: { self?: object } = {};
  value.self = value;
  return value;
}

test("a value that is nested too deeply to be walked is left out, and the rejection kept", () => {
  const deep = JSON.parse(`${"[".repeat(20_000)}${"]".repeat(20_000)}`) as unknown;
  const parsed = JSON.parse(formatOccurrence({ ...occurrence, record: { id: 1, deep } }).toString()) as Record<string, unknown>;
  expect(parsed).toMatchObject({ event: "deal.won", key: "42", dataLost: expect.stringContaining("could not be kept") as string });
});
