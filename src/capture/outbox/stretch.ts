import type { OutboxTransaction } from "../../store/outbox.ts";
import type { Transaction } from "../change.ts";
import { commitLsnOf, type PollPoint } from "./cursor.ts";

/** What became visible between two looks, while it is handed over. */
export interface Stretch {
  readonly from: PollPoint;
  readonly to: PollPoint;
  /** A page of its transactions, in order. */
  readonly transactions: readonly OutboxTransaction[];
  /** How many stand before that page. */
  readonly offset: number;
  /** Whether none come after the page. */
  readonly isListed: boolean;
  /** In the page: the next to be read. */
  readonly next: number;
  /** The last row that was read of it; "0" before the first. */
  readonly after: string;
  /** That transaction, once something of it was read. */
  readonly open: Transaction | undefined;
}

/**
 * - `list`: the page is through, and more transactions come.
 * - `over`: all was read.
 * - `page`: a part of one transaction that has more rows than are read at once.
 * - `whole`: some transactions.
 */
export type NextRead =
  | { readonly kind: "list"; readonly skip: number }
  | { readonly kind: "over" }
  | { readonly kind: "page"; readonly xid: string; readonly after: string }
  | { readonly kind: "whole"; readonly xids: readonly string[] };

export function planRead({ transactions, offset, isListed, next, after }: Stretch, limit: number): NextRead {
  const first = transactions[next];
  if (first === undefined) return isListed ? { kind: "over" } : { kind: "list", skip: offset + next };
  if (after !== "0" || first.rows > limit) return { kind: "page", xid: first.xid, after };
  const xids: string[] = [];
  let rows = 0;
  for (let at = next; at < transactions.length; at++) {
    const one = transactions[at] as OutboxTransaction;
    rows += one.rows;
    if (xids.length > 0 && rows > limit) break;
    xids.push(one.xid);
  }
  return { kind: "whole", xids };
}

/** The commit position of the next transaction to be read. */
export const nextLsn = ({ from, offset, next }: Stretch): bigint => commitLsnOf(from, offset + next);

/** That of the last one; undefined while not all are listed. */
export function lastLsnOf({ from, offset, transactions, isListed }: Stretch): bigint | undefined {
  return isListed ? commitLsnOf(from, offset + transactions.length - 1) : undefined;
}

/** Where the stretch ends, past each position in it. */
export function endOf(stretch: Stretch): PollPoint {
  const behind = (lastLsnOf(stretch) ?? 0n) + 1n;
  return stretch.to.endLsn >= behind ? stretch.to : { ...stretch.to, endLsn: behind };
}
