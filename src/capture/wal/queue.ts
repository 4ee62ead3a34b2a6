import type { Captured, Commit, Transaction } from "../change.ts";
import { isVisible, type Snapshot } from "../visibility.ts";

/** A transaction as it is being read. Its items leave once it is visible; before it is whole, if it is large. */
export interface Segment {
  readonly transaction: Transaction;
}

interface OpenSegment extends Segment {
  readonly items: Captured[];
  /** What `items` took in the log. */
  bytes: number;
  isVisible: boolean;
  isWhole: boolean;
}

/** What was read and not taken yet, in commit order. */
export interface TransactionQueue {
  /** How much of the log is held. */
  readonly bytes: number;
  /** Whether anything stands at the head: visible or not. */
  readonly hasItems: boolean;
  /** Whether what stands at the head may leave. */
  readonly isVisible: boolean;
  /** A transaction begins; after a reconnection it may be one of which a part is held, or was taken, already. */
  begin(transaction: Transaction): Segment;
  /** Adds to the transaction that is being read. */
  push(item: Exclude<Captured, Commit>, bytes: number): void;
  /** The transaction that is being read is whole. */
  end(endLsn: bigint): void;
  /** Marks the leading transactions that other sessions can see. */
  show(snapshot: Snapshot): void;
  /** What is visible at the head, at most `limit` items. */
  take(limit: number): readonly Captured[];
}

export function createTransactionQueue(): TransactionQueue {
  /** Those before `head` were taken whole: shifting a long array would copy it for each transaction. */
  let segments: OpenSegment[] = [];
  let head = 0;
  let bytes = 0;

  const last = (): OpenSegment => {
    const segment = segments.at(-1);
    if (segment === undefined || head >= segments.length) throw new RangeError("no transaction is being read");
    return segment;
  };
  const drop = (): void => {
    head++;
    if (head < 1024 || head * 2 < segments.length) return;
    segments = segments.slice(head);
    head = 0;
  };

  return {
    get bytes() {
      return bytes;
    },
    get hasItems() {
      return (segments[head]?.items.length ?? 0) > 0;
    },
    get isVisible() {
      return segments[head]?.isVisible === true;
    },
    begin(transaction) {
      const before = head < segments.length ? segments.at(-1) : undefined;
      if (before !== undefined && before.transaction.commitLsn === transaction.commitLsn) return before;
      const segment: OpenSegment = { transaction, items: [], bytes: 0, isVisible: false, isWhole: false };
      segments.push(segment);
      return segment;
    },
    push(item, size) {
      const segment = last();
      segment.items.push(item);
      segment.bytes += size;
      bytes += size;
    },
    end(endLsn) {
      const segment = last();
      segment.isWhole = true;
      segment.items.push({ kind: "commit", transaction: segment.transaction, endLsn });
    },
    show(snapshot) {
      for (let i = head; i < segments.length; i++) {
        const segment = segments[i] as OpenSegment;
        if (!segment.isVisible && !isVisible(segment.transaction.xid, snapshot)) return;
        segment.isVisible = true;
      }
    },
    take(limit) {
      const taken: Captured[] = [];
      for (let segment = segments[head]; segment?.isVisible === true && taken.length < limit; segment = segments[head]) {
        const count = Math.min(limit - taken.length, segment.items.length);
        const share = count === segment.items.length ? segment.bytes : Math.floor((segment.bytes * count) / segment.items.length);
        for (const item of segment.items.splice(0, count)) taken.push(item);
        segment.bytes -= share;
        bytes -= share;
        if (segment.items.length > 0 || !segment.isWhole) break;
        drop();
      }
      return taken;
    },
  };
}
