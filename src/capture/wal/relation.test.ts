import { expect, test } from "vitest";
import type { TableInfo } from "../../store/tables.ts";
import type { ValueTypes } from "../../store/types.ts";
import type { Row } from "../change.ts";
import { unchanged, type RelationMessage } from "./pgoutput.ts";
import { compileRelation } from "./relation.ts";

const types: ValueTypes = {
  parser: (oid) => (oid === 23 ? Number : oid === 114 ? (text) => JSON.parse(text) as unknown : undefined),
  tsType: () => "string",
  has: () => true,
  pgTypes: () => ({ getTypeParser: () => String }),
};

function relation(columns: Readonly<Record<string, number>>, identity: readonly string[], replicaIdentity = "d"): RelationMessage {
  return {
    kind: "relation",
    oid: 1,
    schema: "sales",
    table: "deal",
    replicaIdentity,
    columns: Object.entries(columns).map(([name, typeOid]) => ({ name, typeOid, typeModifier: -1, isKey: identity.includes(name) })),
  };
}

function tableOf(columns: readonly string[], keyColumns: readonly string[], generated: readonly string[] = []): TableInfo {
  return {
    oid: 1,
    schema: "sales",
    table: "deal",
    name: "sales.deal",
    keyColumns,
    replicaIdentity: "d",
    isPartitioned: false,
    columns: columns.map((name) => ({
      name,
      typeOid: 25,
      typeName: "text",
      castType: "pg_catalog.text",
      isNullable: true,
      isGenerated: generated.includes(name),
    })),
  };
}

const columns = { label: 25, id: 23, note: 25 };

test("a row has its values by name; what neither tuple carries throws when it is read, and is no null", () => {
  const deal = compileRelation(relation(columns, ["id"]), tableOf(["label", "id", "note"], ["id"]), types);
  expect(deal.table).toBe("sales.deal");
  expect(deal.toRow(["Été", "7", null], undefined)).toEqual({ label: "Été", id: 7, note: null });
  expect(deal.toRow(["b", "7", unchanged], ["a", "7", "long"])).toEqual({ label: "b", id: 7, note: "long" });
  const row = deal.toRow(["b", "7", unchanged], undefined);
  expect(Object.keys(row)).toEqual(["label", "id", "note"]);
  expect(() => row["note"]).toThrow(expect.objectContaining({ code: "ANCRAGE_COLUMN_NOT_LOGGED" }));
  // JSON would drop an undefined in silence.
  expect(() => JSON.stringify(row)).toThrow(`column "note" of "sales.deal"`);
});

test("a column of the table that the log has not is neither absent nor null", () => {
  const deal = compileRelation(relation(columns, ["id"]), tableOf(["label", "id", "note", "slug"], ["id"], ["slug"]), types);
  const row = deal.toRow(["a", "7", null], undefined);
  expect(Object.keys(row)).toEqual(["label", "id", "note", "slug"]);
  expect(() => row["slug"]).toThrow(expect.objectContaining({ code: "ANCRAGE_COLUMN_NOT_LOGGED" }));
});

test("a delete under the default identity has its key, and throws for all else", () => {
  const deal = compileRelation(relation(columns, ["id"]), tableOf(["label", "id", "note"], ["id"]), types);
  const row = deal.toKeyRow([null, "7", null]);
  expect(row["id"]).toBe(7);
  expect(() => row["label"]).toThrow(`column "label" of "sales.deal"`);
});

test("a delete under an index's identity has that index's columns", () => {
  const deal = compileRelation(relation(columns, ["label", "id"], "i"), tableOf(["label", "id", "note"], ["id"]), types);
  const row = deal.toKeyRow(["a", "7", null]);
  expect([row["label"], row["id"]]).toEqual(["a", 7]);
  expect(() => row["note"]).toThrow(`column "note"`);
});

test("a key is the primary key's text in the key's order, wherever its columns stand", () => {
  const single = compileRelation(relation(columns, ["id"]), tableOf(["label", "id", "note"], ["id"]), types);
  expect(single.toKey(["a", "7", null], undefined)).toBe("7");
  const several = compileRelation(relation(columns, ["label", "id"]), tableOf(["label", "id", "note"], ["id", "label"]), types);
  expect(several.toKey(["a", "7", null], undefined)).toBe('["7","a"]');
  const none = compileRelation(relation(columns, [], "f"), tableOf(["label", "id", "note"], []), types);
  expect(none.toKey(["a", "7", null], undefined)).toBe("");
});

test("a key so large that an update does not carry it again is taken from the old one", () => {
  const deal = compileRelation(relation(columns, ["label"]), tableOf(["label", "id", "note"], ["label"]), types);
  expect(deal.toKey([unchanged, "7", null], ["a very long label", null, null])).toBe("a very long label");
});

test("a key column that was renamed since the tables were read keeps its place, generated columns aside", () => {
  const renamed = relation({ label: 25, deal_id: 23, note: 25 }, ["label", "deal_id", "note"], "f");
  const deal = compileRelation(renamed, tableOf(["label", "total", "id", "note"], ["id"], ["total"]), types);
  expect(deal.toKey(["a", "7", null], undefined)).toBe("7");
});

test("a value that cannot be read is an error of whatever reads it, and no end of capture", () => {
  const deal = compileRelation(relation({ id: 23, doc: 114 }, ["id"]), tableOf(["id", "doc"], ["id"]), types);
  const row = deal.toRow(["7", "{broken"], undefined);
  expect(row["id"]).toBe(7);
  expect(() => row["doc"]).toThrow(SyntaxError);
});

test("nothing can be written into a row: every event of its change, and a batch that is built again, has the same one", () => {
  const deal = compileRelation(relation({ id: 23, doc: 114 }, ["id"]), tableOf(["id", "doc"], ["id"]), types);
  const write = (row: Row, into: (row: { id: number; doc: { list: { a: number }[] } }) => void) => () => into(row as never);
  const row = deal.toRow(["7", '{"list":[{"a":1}]}'], undefined);
  expect(write(row, (one) => (one.id = 8))).toThrow(TypeError);
  expect(write(row, (one) => one.doc.list.push({ a: 2 }))).toThrow(TypeError);
  expect(write(row, ({ doc }) => doc.list.forEach((item) => (item.a = 2)))).toThrow(TypeError);
  expect(write(deal.toKeyRow(["7", null]), (one) => (one.id = 8))).toThrow(TypeError);
  expect(row).toEqual({ id: 7, doc: { list: [{ a: 1 }] } });
});

test("a document may be nested deeper than the stack", () => {
  const deal = compileRelation(relation({ id: 23, doc: 114 }, ["id"]), tableOf(["id", "doc"], ["id"]), types);
  const depth = 5_000;
  let inner = deal.toRow(["7", "[".repeat(depth) + "]".repeat(depth)], undefined)["doc"] as unknown[];
  while (inner.length > 0) inner = inner[0] as unknown[];
  expect(Object.isFrozen(inner)).toBe(true);
});
