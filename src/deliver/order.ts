import { comparePositions } from "../capture/change.ts";
import type { Message } from "../message.ts";

/** What of a lane waits for what: the later ones of a record (or of all) for the earlier ones, by position. */
export interface Order {
  readonly kind: "record" | "all";
  /** By key; what is first may be sent, and the others come after it. */
  readonly queues: Map<string, Queue>;
  /** Keys of which something left memory unfinished since the refill under way began: what that brings of them may not be first. */
  readonly released: Set<string>;
}

interface Queue {
  readonly messages: Message[];
  /** The first is in flight. */
  isSending: boolean;
}

export const createOrder = (kind: "record" | "all"): Order => ({ kind, queues: new Map(), released: new Set() });

/** Whatever the event: an application's `deal` 42 is one record in all of them. */
export const orderKeyOf = (kind: "record" | "all", key: string): string => (kind === "all" ? "" : key);

/** A message comes into memory. @returns whether it may be sent now */
export function enter(order: Order, message: Message): boolean {
  const key = orderKeyOf(order.kind, message.key);
  const queue = order.queues.get(key);
  if (queue === undefined) {
    order.queues.set(key, { messages: [message], isSending: false });
    return true;
  }
  const { messages } = queue;
  let at = messages.length;
  // What is in flight stays first, whatever comes.
  const least = queue.isSending ? 1 : 0;
  while (at > least && isBefore(message, messages[at - 1])) at--;
  messages.splice(at, 0, message);
  return at === 0;
}

/** Whether it is the first of its key, and not in flight. */
export function isTurn(order: Order, message: Message): boolean {
  const queue = order.queues.get(orderKeyOf(order.kind, message.key));
  return queue !== undefined && !queue.isSending && queue.messages[0]?.id === message.id;
}

/** Whether it stands first of its key: what is in flight does, unless the order has changed since, or what it held back was let go. */
export const isFirst = (order: Order, message: Message): boolean =>
  order.queues.get(orderKeyOf(order.kind, message.key))?.messages[0]?.id === message.id;

export function markSending(order: Order, message: Message, isSending: boolean): void {
  const queue = order.queues.get(orderKeyOf(order.kind, message.key));
  if (queue?.messages[0]?.id === message.id) queue.isSending = isSending;
}

/** It is over. @returns the message whose turn it is now */
export function leave(order: Order, message: Message): Message | undefined {
  const key = orderKeyOf(order.kind, message.key);
  const queue = order.queues.get(key);
  if (queue === undefined) return undefined;
  const at = queue.messages.findIndex(({ id }) => id === message.id);
  if (at === -1) return undefined;
  queue.messages.splice(at, 1);
  if (at > 0) return undefined;
  queue.isSending = false;
  if (queue.messages.length === 0) order.queues.delete(key);
  return queue.messages[0];
}

/** It leaves memory unfinished, and all that wait for it with it; what is in flight stays. @returns all of them, itself included */
export function release(order: Order, message: Message): readonly Message[] {
  const key = orderKeyOf(order.kind, message.key);
  const queue = order.queues.get(key);
  order.released.add(key);
  if (queue?.isSending === true && queue.messages[0]?.id !== message.id) return [message, ...queue.messages.splice(1)];
  order.queues.delete(key);
  return queue?.messages ?? [message];
}

/** All of it leaves memory but for what is in flight. */
export function releaseAll(order: Order): void {
  for (const [key, queue] of order.queues) {
    order.released.add(key);
    if (queue.isSending) queue.messages.splice(1);
    else order.queues.delete(key);
  }
}

function isBefore(one: Message, other: Message | undefined): boolean {
  if (other === undefined) return false;
  // Two occurrences of one change have their ordinals; the same message has one position.
  return comparePositions(one.position, other.position) < 0;
}

/** A delivery of the journal, as an ordered refill looks at it. */
export interface WaitingRow {
  readonly messageId: string;
  readonly key: string;
  /** Milliseconds until it may be tried; 0: now. */
  readonly dueInMs: number;
}

/** What an ordered refill knows so far. Written by `pickInOrder`. */
export interface Picking {
  /** Keys of which an earlier delivery waits: what comes after it stays in the journal. */
  readonly blocked: Set<string>;
  /** When the first of those that block is due. */
  dueInMs: number;
}

export const createPicking = (): Picking => ({ blocked: new Set(), dueInMs: Number.POSITIVE_INFINITY });

/**
 * Which deliveries of a page may come into memory: those that no earlier one holds back. The page is by position, and the pages
 * before it were looked at.
 *
 * @param whereIs `held`: it is in memory, and what comes after it waits there; `stale`: its row says less than what has happened
 */
export function pickInOrder<Row extends WaitingRow>(
  kind: "record" | "all",
  rows: readonly Row[],
  picking: Picking,
  whereIs: (messageId: string) => "held" | "stale" | undefined,
): readonly Row[] {
  return rows.filter((row) => {
    const key = orderKeyOf(kind, row.key);
    if (picking.blocked.has(key)) return false;
    const where = whereIs(row.messageId);
    if (where === "held") return false;
    if (where === undefined && row.dueInMs <= 0) return true;
    picking.blocked.add(key);
    picking.dueInMs = Math.min(picking.dueInMs, where === "stale" ? 0 : row.dueInMs);
    return false;
  });
}
