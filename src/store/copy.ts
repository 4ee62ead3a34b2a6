/** A COPY and its rows, for a `RoundTrip`. */
export interface Copy {
  readonly sql: string;
  readonly count: number;
  /** As they go over the wire: one CopyData message and CopyDone. */
  readonly data: Buffer;
}

/**
 * Rows in PostgreSQL's binary COPY format (manual, "COPY", "Binary Format"): bytes go in as they are, where the text format would
 * double a body.
 */
export interface CopyRows {
  beginRow(columns: number): void;
  text(value: string): void;
  bytes(value: Uint8Array): void;
  int4(value: number): void;
  lsn(value: bigint): void;
  /** @param us microseconds since the Unix epoch */
  timestamp(us: bigint): void;
  empty(): void;
  finish(table: string, columns: readonly string[]): Copy;
}

const header = Buffer.from("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", "latin1");
const copyDone = Buffer.from("c\0\0\0\x04", "latin1");
const postgresEpochUs = 946_684_800_000_000n;

export function createCopyRows(): CopyRows {
  let buffer = Buffer.allocUnsafe(4 * 1024);
  let at = buffer.write("d", 0, "latin1") + 4;
  at += header.copy(buffer, at);
  let count = 0;
  const reserve = (bytes: number): void => {
    if (at + bytes <= buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, at + bytes));
    buffer.copy(larger, 0, 0, at);
    buffer = larger;
  };
  return {
    beginRow(columns) {
      reserve(2);
      at = buffer.writeInt16BE(columns, at);
      count++;
    },
    text(value) {
      // Three bytes a UTF-16 unit is the most that UTF-8 takes.
      reserve(4 + value.length * 3);
      const length = buffer.write(value, at + 4, "utf8");
      buffer.writeInt32BE(length, at);
      at += 4 + length;
    },
    bytes(value) {
      reserve(4 + value.length);
      at = buffer.writeInt32BE(value.length, at);
      buffer.set(value, at);
      at += value.length;
    },
    int4(value) {
      reserve(8);
      at = buffer.writeInt32BE(4, at);
      at = buffer.writeInt32BE(value, at);
    },
    lsn(value) {
      reserve(12);
      at = buffer.writeInt32BE(8, at);
      at = buffer.writeBigUInt64BE(value, at);
    },
    timestamp(us) {
      reserve(12);
      at = buffer.writeInt32BE(8, at);
      at = buffer.writeBigInt64BE(us - postgresEpochUs, at);
    },
    empty() {
      reserve(4);
      at = buffer.writeInt32BE(-1, at);
    },
    finish(table, columns) {
      reserve(2 + copyDone.length);
      at = buffer.writeInt16BE(-1, at);
      // The message's length, without its first byte.
      buffer.writeInt32BE(at - 1, 1);
      at += copyDone.copy(buffer, at);
      return { sql: `copy ${table} (${columns.join(", ")}) from stdin (format binary)`, count, data: buffer.subarray(0, at) };
    },
  };
}

/** Milliseconds of our clock as the microseconds that PostgreSQL keeps. */
export const toUs = (ms: number): bigint => BigInt(Math.round(ms * 1000));
