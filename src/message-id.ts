import type { Position, Transaction } from "./capture/change.ts";

/**
 * Message ids: `msg_` and 56 digits of Crockford's base 32: commit time in ms (10), commit LSN (13), change LSN (13), ordinal (7),
 * and a hash of source, event and key (13).
 *
 * A position read twice gives the same id, two occurrences never share one. They prune partitions (the day is their beginning) and
 * sort nearly in commit order: commit times go backwards now and then, so whatever promises order sorts by position.
 */
export function computeMessageId(input: {
  readonly sourceId: string;
  readonly transaction: Transaction;
  readonly position: Position;
  readonly event: string;
  readonly key: string;
}): string {
  const { transaction, position } = input;
  return `msg_${transactionDigits(transaction)}${lsnDigits(position.changeLsn)}${digits(position.ordinal, 7)}${hashDigits(`${input.sourceId}\0${input.event}\0${input.key}`)}`;
}

const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const msPerDay = 86_400_000;
const valueOfDigit = Uint8Array.from({ length: 128 }, (_, code) => Math.max(0, alphabet.indexOf(String.fromCharCode(code))));

/** The digits that all messages of a transaction begin with; computed once for each. */
const transactionDigitsOf = new WeakMap<Transaction, string>();

function transactionDigits(transaction: Transaction): string {
  let found = transactionDigitsOf.get(transaction);
  if (found === undefined) {
    found = digits(Number(transaction.committedAtUs / 1000n), 10) + lsnDigits(transaction.commitLsn);
    transactionDigitsOf.set(transaction, found);
  }
  return found;
}

/** The day of a message, as days since the Unix epoch: the partition that it and its deliveries stand in. */
export function dayOfMessage(id: string): number {
  let ms = 0;
  for (let i = 4; i < 14; i++) ms = ms * 32 + (valueOfDigit[id.charCodeAt(i)] ?? 0);
  return Math.floor(ms / msPerDay);
}

/** `2026-11-24` → as `ensure_partitions` takes it. */
export function formatDay(day: number): string {
  return new Date(day * msPerDay).toISOString().slice(0, 10);
}

/** Where a message stands among all, whenever its transaction committed: ids from here on sort as positions do. */
export const placeOfMessage = (id: string): string => id.slice(14);

/** The first in the order of ids; undefined of none. */
export function leastIdOf(messages: readonly { readonly id: string }[]): string | undefined {
  let least: string | undefined;
  for (const { id } of messages) if (least === undefined || id < least) least = id;
  return least;
}

/**
 * By how much commit times may go backwards in the order of the log. They are taken a moment before the place in it: microseconds, but
 * for a stall.
 */
export const disorderMs = 2_000;

/** Rejections share the digits of the message that they would have been, so that a retry journals it under its first id. */
export const rejectionIdOf = (messageId: string): string => `rej_${messageId.slice(4)}`;

function digits(value: number, count: number): string {
  let text = "";
  let rest = value;
  for (let i = 0; i < count; i++) {
    text = alphabet.charAt(rest % 32) + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}

/** 64 bits are 13 digits; in two numbers, since arithmetic on bigint costs a microsecond here. */
function lsnDigits(lsn: bigint): string {
  return wordDigits(Number(lsn >> 32n), Number(lsn & 0xffff_ffffn));
}

function wordDigits(high: number, low: number): string {
  // 13 digits are 65 bits: the low 30 bits fill six, two more bits of it and the high word the other seven.
  return digits(high * 4 + (low >>> 30), 7) + digits(low & 0x3fff_ffff, 6);
}

/** 64 bits in two independent rounds (cyrb53's mixing): enough to tell the events of one change apart; no defence is needed. */
function hashDigits(text: string): string {
  let h1 = 0xdead_beef;
  let h2 = 0x41c6_ce57;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    h1 = Math.imul(h1 ^ unit, 2_654_435_761);
    h2 = Math.imul(h2 ^ unit, 1_597_334_677);
  }
  h1 = Math.imul(h1 ^ (h1 >>> 16), 2_246_822_507) ^ Math.imul(h2 ^ (h2 >>> 13), 3_266_489_909);
  h2 = Math.imul(h2 ^ (h2 >>> 16), 2_246_822_507) ^ Math.imul(h1 ^ (h1 >>> 13), 3_266_489_909);
  return wordDigits(h1 >>> 0, h2 >>> 0);
}
