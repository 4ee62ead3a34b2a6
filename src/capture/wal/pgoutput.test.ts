import fc from "fast-check";
import { expect, test } from "vitest";
import { decode, unchanged, type PgOutputMessage, type Tuple } from "./pgoutput.ts";

// The encoder is written from the manual's page "Logical Replication Message Formats", not from the decoder.

const postgresEpochUs = 946_684_800_000_000n;

const int8 = (value: number): Buffer => Buffer.from([value]);
const int16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
};
const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes;
};
const int64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt.asIntN(64, value));
  return bytes;
};
const text = (value: string): Buffer => Buffer.from(`${value}\0`, "utf8");
const time = (us: bigint): Buffer => int64(us - postgresEpochUs);

function encodeTuple(tuple: Tuple): Buffer {
  const columns = tuple.map((value) => {
    if (value === null) return Buffer.from("n");
    if (value === unchanged) return Buffer.from("u");
    const bytes = Buffer.from(value, "utf8");
    return Buffer.concat([Buffer.from("t"), int32(bytes.length), bytes]);
  });
  return Buffer.concat([int16(tuple.length), ...columns]);
}

function encodeOld(oldKey: Tuple | undefined, oldTuple: Tuple | undefined): Buffer {
  if (oldTuple !== undefined) return Buffer.concat([Buffer.from("O"), encodeTuple(oldTuple)]);
  if (oldKey !== undefined) return Buffer.concat([Buffer.from("K"), encodeTuple(oldKey)]);
  return Buffer.alloc(0);
}

function encode(message: PgOutputMessage): Buffer {
  switch (message.kind) {
    case "begin":
      return Buffer.concat([Buffer.from("B"), int64(message.commitLsn), time(message.committedAtUs), int32(message.xid)]);
    case "commit":
      return Buffer.concat([Buffer.from("C"), int8(0), int64(message.commitLsn), int64(message.endLsn), time(message.committedAtUs)]);
    case "relation":
      return Buffer.concat([
        Buffer.from("R"),
        int32(message.oid),
        text(message.schema === "pg_catalog" ? "" : message.schema),
        text(message.table),
        Buffer.from(message.replicaIdentity),
        int16(message.columns.length),
        ...message.columns.flatMap((column) => [
          int8(column.isKey ? 1 : 0),
          text(column.name),
          int32(column.typeOid),
          int32(column.typeModifier),
        ]),
      ]);
    case "insert":
      return Buffer.concat([Buffer.from("I"), int32(message.relationOid), Buffer.from("N"), encodeTuple(message.newTuple)]);
    case "update":
      return Buffer.concat([
        Buffer.from("U"),
        int32(message.relationOid),
        encodeOld(message.oldKey, message.oldTuple),
        Buffer.from("N"),
        encodeTuple(message.newTuple),
      ]);
    case "delete":
      return Buffer.concat([Buffer.from("D"), int32(message.relationOid), encodeOld(message.oldKey, message.oldTuple)]);
    case "truncate":
      return Buffer.concat([
        Buffer.from("T"),
        int32(message.relationOids.length),
        int8((message.cascades ? 1 : 0) | (message.restartsIdentity ? 2 : 0)),
        ...message.relationOids.map(int32),
      ]);
    case "message":
      return Buffer.concat([
        Buffer.from("M"),
        int8(message.isTransactional ? 1 : 0),
        int64(message.lsn),
        text(message.prefix),
        int32(message.content.length),
        message.content,
      ]);
    case "origin":
      return Buffer.concat([Buffer.from("O"), int64(message.lsn), text(message.name)]);
    case "type":
      return Buffer.concat([Buffer.from("Y"), int32(message.oid), text(message.schema), text(message.name)]);
    default:
      return message satisfies never;
  }
}

// What PostgreSQL's texts hold: anything but NUL, in valid UTF-8.
const words = fc.string({ unit: "grapheme", maxLength: 40 }).map((value) => value.replaceAll("\0", ""));
const oid = fc.integer({ min: 0, max: 0xffff_ffff });
const lsn = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
const committedAtUs = fc.bigInt({ min: -(10n ** 15n), max: 4n * 10n ** 15n });
const tuple: fc.Arbitrary<Tuple> = fc.array(fc.oneof(words, fc.constant(null), fc.constant(unchanged)), { maxLength: 12 });
const column = fc.record({
  isKey: fc.boolean(),
  name: words,
  typeOid: oid,
  typeModifier: fc.integer({ min: -1, max: 1_000_000 }),
});
const kind = <Kind extends string>(value: Kind): fc.Arbitrary<Kind> => fc.constant(value);

const anyMessage: fc.Arbitrary<PgOutputMessage> = fc.oneof(
  fc.record({ kind: kind("begin"), commitLsn: lsn, committedAtUs, xid: oid }),
  fc.record({ kind: kind("commit"), commitLsn: lsn, endLsn: lsn, committedAtUs }),
  fc.record({
    kind: kind("relation"),
    oid,
    schema: words.filter((schema) => schema !== ""),
    table: words,
    replicaIdentity: fc.constantFrom("d", "n", "f", "i"),
    columns: fc.array(column, { maxLength: 12 }),
  }),
  fc.record({ kind: kind("insert"), relationOid: oid, newTuple: tuple }),
  fc
    .record({ kind: kind("update"), relationOid: oid, newTuple: tuple, old: fc.oneof(fc.constant(undefined), tuple), isFull: fc.boolean() })
    .map(({ old, isFull, ...update }) => ({ ...update, oldKey: isFull ? undefined : old, oldTuple: isFull ? old : undefined })),
  fc
    .record({ kind: kind("delete"), relationOid: oid, old: tuple, isFull: fc.boolean() })
    .map(({ old, isFull, ...rest }) => ({ ...rest, oldKey: isFull ? undefined : old, oldTuple: isFull ? old : undefined })),
  fc.record({
    kind: kind("truncate"),
    relationOids: fc.array(oid, { maxLength: 5 }),
    cascades: fc.boolean(),
    restartsIdentity: fc.boolean(),
  }),
  fc.record({
    kind: kind("message"),
    isTransactional: fc.boolean(),
    lsn,
    prefix: words,
    content: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  }),
  fc.record({ kind: kind("origin"), lsn, name: words }),
  fc.record({ kind: kind("type"), oid, schema: words, name: words }),
);

test("what PostgreSQL would write is read back, of every kind", () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(anyMessage, (message) => {
      seen.add(message.kind);
      expect(decode(encode(message))).toEqual(message);
    }),
    { numRuns: 1_000 },
  );
  expect(seen.size).toBe(10);
});

test("a message that is cut short anywhere is refused, never read as another", () => {
  fc.assert(
    fc.property(anyMessage, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (message, part) => {
      const bytes = encode(message);
      const cut = bytes.subarray(0, Math.floor(bytes.length * part));
      expect(() => decode(cut)).toThrow(expect.objectContaining({ code: "ANCRAGE_PROTOCOL" }));
    }),
    { numRuns: 1_000 },
  );
});

test("a tag that version 1 of the protocol does not have is refused by name", () => {
  const known = new Set("BCRIUDTMOY");
  for (let tag = 0; tag < 256; tag++) {
    if (known.has(String.fromCharCode(tag))) continue;
    expect(() => decode(Buffer.from([tag, 0, 0, 0, 0, 0]))).toThrow(`unknown tag ${tag}`);
  }
});

test("a column in the binary format is refused: nobody asked for it", () => {
  const bytes = Buffer.concat([Buffer.from("I"), int32(1), Buffer.from("N"), int16(1), Buffer.from("b"), int32(1), int8(7)]);
  expect(() => decode(bytes)).toThrow(expect.objectContaining({ code: "ANCRAGE_PROTOCOL" }));
});

test("an update or delete whose parts are tagged otherwise than N, K or O is refused", () => {
  const encoded = encode({ kind: "delete", relationOid: 1, oldKey: ["1"], oldTuple: undefined });
  encoded[5] = 0x5a;
  expect(() => decode(encoded)).toThrow(expect.objectContaining({ code: "ANCRAGE_PROTOCOL" }));
  const update = encode({ kind: "update", relationOid: 1, oldKey: ["1"], oldTuple: undefined, newTuple: ["2"] });
  update[5] = 0x5a;
  expect(() => decode(update)).toThrow(expect.objectContaining({ code: "ANCRAGE_PROTOCOL" }));
});
