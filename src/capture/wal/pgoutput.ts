import { AncrageError } from "../../errors.ts";

/**
 * Decoder of `pgoutput`, protocol version 1: bytes in, a value out, nothing else.
 *
 * Source: PostgreSQL manual, "Logical Replication Message Formats" (chapter 55.9). OIDs and xids are unsigned; LSNs are `bigint`.
 */

/** A large value that an update did not touch: the log does not carry it. Never leaves `capture/`. */
export const unchanged: unique symbol = Symbol("unchanged");

/** The text of each column, in the relation's order. */
export type Tuple = readonly (string | null | typeof unchanged)[];

export interface RelationColumn {
  /** Part of the replica identity; under `replica identity full` every column is. */
  readonly isKey: boolean;
  readonly name: string;
  readonly typeOid: number;
  readonly typeModifier: number;
}

export interface RelationMessage {
  readonly kind: "relation";
  readonly oid: number;
  readonly schema: string;
  readonly table: string;
  readonly replicaIdentity: string;
  readonly columns: readonly RelationColumn[];
}

export type PgOutputMessage =
  | { readonly kind: "begin"; readonly commitLsn: bigint; readonly committedAtUs: bigint; readonly xid: number }
  | { readonly kind: "commit"; readonly commitLsn: bigint; readonly endLsn: bigint; readonly committedAtUs: bigint }
  | RelationMessage
  | { readonly kind: "insert"; readonly relationOid: number; readonly newTuple: Tuple }
  | {
      readonly kind: "update";
      readonly relationOid: number;
      /** Key columns only (the rest null), under the default identity and only where the key changed. */
      readonly oldKey: Tuple | undefined;
      /** The whole old row, under `replica identity full`. */
      readonly oldTuple: Tuple | undefined;
      readonly newTuple: Tuple;
    }
  | { readonly kind: "delete"; readonly relationOid: number; readonly oldKey: Tuple | undefined; readonly oldTuple: Tuple | undefined }
  | { readonly kind: "truncate"; readonly relationOids: readonly number[]; readonly cascades: boolean; readonly restartsIdentity: boolean }
  | { readonly kind: "message"; readonly isTransactional: boolean; readonly lsn: bigint; readonly prefix: string; readonly content: Buffer }
  | { readonly kind: "origin"; readonly lsn: bigint; readonly name: string }
  | { readonly kind: "type"; readonly oid: number; readonly schema: string; readonly name: string };

/** Between PostgreSQL's epoch, 2000-01-01, and Unix's: 946,684,800 s. */
const postgresEpochUs = 946_684_800_000_000n;

/** @throws AncrageError `ANCRAGE_PROTOCOL` for what is cut short or of an unknown kind */
export function decode(bytes: Buffer): PgOutputMessage {
  try {
    return decodeMessage(bytes);
  } catch (cause) {
    if (cause instanceof AncrageError) throw cause;
    throw new AncrageError("ANCRAGE_PROTOCOL", `a pgoutput message of ${bytes.length} bytes and tag ${bytes[0]} is cut short.`, { cause });
  }
}

function decodeMessage(bytes: Buffer): PgOutputMessage {
  switch (bytes.readUInt8(0)) {
    case 0x49: // I
      if (bytes.readUInt8(5) !== 0x4e) throw unknownPart(bytes, 5);
      return { kind: "insert", relationOid: bytes.readUInt32BE(1), newTuple: readTuple(bytes, 6).tuple };
    case 0x55: // U
      return decodeUpdate(bytes);
    case 0x44: {
      // D
      const { oldKey, oldTuple } = readOld(bytes);
      return { kind: "delete", relationOid: bytes.readUInt32BE(1), oldKey, oldTuple };
    }
    case 0x42: // B
      return {
        kind: "begin",
        commitLsn: bytes.readBigUInt64BE(1),
        committedAtUs: bytes.readBigInt64BE(9) + postgresEpochUs,
        xid: bytes.readUInt32BE(17),
      };
    case 0x43: // C
      return {
        kind: "commit",
        commitLsn: bytes.readBigUInt64BE(2),
        endLsn: bytes.readBigUInt64BE(10),
        committedAtUs: bytes.readBigInt64BE(18) + postgresEpochUs,
      };
    case 0x52: // R
      return decodeRelation(bytes);
    case 0x4d: {
      // M
      const prefix = readText(bytes, 10);
      const length = bytes.readUInt32BE(prefix.next);
      const start = prefix.next + 4;
      if (start + length > bytes.length) throw new RangeError("message content");
      return {
        kind: "message",
        isTransactional: (bytes.readUInt8(1) & 1) === 1,
        lsn: bytes.readBigUInt64BE(2),
        prefix: prefix.text,
        content: bytes.subarray(start, start + length),
      };
    }
    case 0x54: {
      // T
      const count = bytes.readUInt32BE(1);
      const flags = bytes.readUInt8(5);
      const relationOids: number[] = [];
      for (let i = 0; i < count; i++) relationOids.push(bytes.readUInt32BE(6 + 4 * i));
      return { kind: "truncate", relationOids, cascades: (flags & 1) !== 0, restartsIdentity: (flags & 2) !== 0 };
    }
    case 0x4f: // O
      return { kind: "origin", lsn: bytes.readBigUInt64BE(1), name: readText(bytes, 9).text };
    case 0x59: {
      // Y
      const schema = readText(bytes, 5);
      return { kind: "type", oid: bytes.readUInt32BE(1), schema: schema.text, name: readText(bytes, schema.next).text };
    }
    default:
      throw new AncrageError("ANCRAGE_PROTOCOL", `a pgoutput message has the unknown tag ${bytes[0]} (${bytes.length} bytes).`, {
        hint: "Ancrage reads protocol version 1 of PostgreSQL 15 to 18; check what answers on the replication URL.",
      });
  }
}

function decodeUpdate(bytes: Buffer): PgOutputMessage {
  const relationOid = bytes.readUInt32BE(1);
  const isBare = bytes[5] === 0x4e;
  const { oldKey, oldTuple, next } = isBare ? { oldKey: undefined, oldTuple: undefined, next: 5 } : readOld(bytes);
  if (bytes.readUInt8(next) !== 0x4e) throw unknownPart(bytes, next);
  return { kind: "update", relationOid, oldKey, oldTuple, newTuple: readTuple(bytes, next + 1).tuple };
}

/** What an update or a delete carries of the old row: 'K', its key, or 'O', all of it. */
function readOld(bytes: Buffer): { readonly oldKey: Tuple | undefined; readonly oldTuple: Tuple | undefined; readonly next: number } {
  const tag = bytes.readUInt8(5);
  if (tag !== 0x4b && tag !== 0x4f) throw unknownPart(bytes, 5);
  const { tuple, next } = readTuple(bytes, 6);
  return tag === 0x4f ? { oldKey: undefined, oldTuple: tuple, next } : { oldKey: tuple, oldTuple: undefined, next };
}

function unknownPart(bytes: Buffer, at: number): AncrageError {
  return new AncrageError(
    "ANCRAGE_PROTOCOL",
    `a change of ${bytes.length} bytes has the unknown part ${bytes[at]} at ${at}; expected N, K or O.`,
  );
}

function decodeRelation(bytes: Buffer): RelationMessage {
  const schema = readText(bytes, 5);
  const table = readText(bytes, schema.next);
  let at = table.next;
  const replicaIdentity = String.fromCharCode(bytes.readUInt8(at));
  const count = bytes.readUInt16BE(at + 1);
  at += 3;
  const columns: RelationColumn[] = [];
  for (let i = 0; i < count; i++) {
    const flags = bytes.readUInt8(at);
    const name = readText(bytes, at + 1);
    columns.push({
      isKey: (flags & 1) === 1,
      name: name.text,
      typeOid: bytes.readUInt32BE(name.next),
      typeModifier: bytes.readInt32BE(name.next + 4),
    });
    at = name.next + 8;
  }
  return {
    kind: "relation",
    oid: bytes.readUInt32BE(1),
    // An empty name stands for pg_catalog.
    schema: schema.text === "" ? "pg_catalog" : schema.text,
    table: table.text,
    replicaIdentity,
    columns,
  };
}

function readTuple(bytes: Buffer, start: number): { readonly tuple: Tuple; readonly next: number } {
  const count = bytes.readUInt16BE(start);
  const tuple: (string | null | typeof unchanged)[] = [];
  let at = start + 2;
  for (let i = 0; i < count; i++) {
    const tag = bytes[at++];
    if (tag === 0x74) {
      const length = bytes.readUInt32BE(at);
      const end = at + 4 + length;
      if (end > bytes.length) throw new RangeError("column");
      tuple.push(bytes.toString("utf8", at + 4, end));
      at = end;
    } else if (tag === 0x6e) tuple.push(null);
    else if (tag === 0x75) tuple.push(unchanged);
    else
      throw new AncrageError(
        "ANCRAGE_PROTOCOL",
        `a column has the unknown kind ${String(tag)}; only text, null and unchanged are asked for.`,
      );
  }
  return { tuple, next: at };
}

function readText(bytes: Buffer, start: number): { readonly text: string; readonly next: number } {
  const end = bytes.indexOf(0, start);
  if (end === -1) throw new RangeError("text");
  return { text: bytes.toString("utf8", start, end), next: end + 1 };
}
