import { createHmac, timingSafeEqual } from "node:crypto";
import { freezeValue } from "./freeze.ts";
import type { Position, SubscriptionMark, Transaction, TriggerMark } from "./change.ts";

/**
 * The logical messages of ours that travel in the log, in the transaction that wrote them.
 *
 * Any role may call `pg_logical_emit_message` with any prefix, so an explicit trigger is signed by `ancrage.trigger` and bound to
 * its transaction; what is unsigned, forged or not transactional is counted and ignored.
 */
export const triggerPrefix = "ancrage.trigger";
export const subscriptionPrefix = "ancrage.subscription";

export interface MarkInput {
  readonly prefix: string;
  readonly content: Buffer;
  readonly isTransactional: boolean;
  readonly transaction: Transaction | undefined;
  readonly position: Position;
  /** `ancrage.settings.trigger_key`: 64 bytes. */
  readonly triggerKey: Buffer;
}

/** @returns the mark; `"ignored"` for one of ours that cannot be trusted; `undefined` for other people's messages */
export function readMark(input: MarkInput): TriggerMark | SubscriptionMark | "ignored" | undefined {
  const { prefix, content, transaction, position } = input;
  if (!prefix.startsWith("ancrage.")) return undefined;
  if (!input.isTransactional || transaction === undefined) return "ignored";
  if (prefix === triggerPrefix) return readTrigger(content, input.triggerKey, transaction, position) ?? "ignored";
  if (prefix === subscriptionPrefix) return readSubscription(content, transaction, position) ?? "ignored";
  return undefined;
}

/** 32 bytes of HMAC-SHA256, then JSON `{id, event, key, data, xid}`. */
function readTrigger(content: Buffer, key: Buffer, transaction: Transaction, position: Position): TriggerMark | undefined {
  const signed = content.subarray(32);
  const expected = createHmac("sha256", key).update(signed).digest();
  if (content.length < 34 || !timingSafeEqual(expected, content.subarray(0, 32))) return undefined;
  const { id, event, key: record, data, xid } = JSON.parse(signed.toString("utf8")) as TriggerContent;
  // The log has the lower 32 bits of the transaction's id.
  if (Number(BigInt(xid) & 0xffff_ffffn) !== transaction.xid) return undefined;
  return { kind: "trigger", transaction, position, id, event, key: record, data: freezeValue(data ?? undefined) };
}

interface TriggerContent {
  readonly id: string;
  readonly event: string;
  readonly key: string;
  readonly data: unknown;
  readonly xid: string;
}

/** `<id> <revision>`. Forging one moves nothing: the row itself is read, and only a revision it has is placed. */
function readSubscription(content: Buffer, transaction: Transaction, position: Position): SubscriptionMark | undefined {
  const match = /^(sub_[0-9A-Z]+) (\d{1,19})$/i.exec(content.toString("utf8"));
  if (match === null) return undefined;
  const [, subscriptionId = "", revision = ""] = match;
  return { kind: "subscription", transaction, position, subscriptionId, revision: BigInt(revision) };
}
