import { createHmac, createSecretKey, timingSafeEqual } from "node:crypto";
import { parseCause } from "../cause.ts";
import { freezeValue } from "./freeze.ts";
import type { Origin, Position, SubscriptionMark, Transaction, TriggerMark } from "./change.ts";

/**
 * The logical messages of ours that travel in the log, in the transaction that wrote them.
 *
 * Any role may call `pg_logical_emit_message` with any prefix, so what `ancrage.emit` writes is signed and bound to its transaction;
 * what is unsigned, forged or not transactional is counted and ignored.
 */
export const triggerPrefix = "ancrage.trigger";
export const originPrefix = "ancrage.origin";
export const switchPrefix = "ancrage.switch";
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

/** What a transaction says of the changes that follow in it. It is no item of the log's own: it goes with those changes. */
export interface OriginMark {
  readonly kind: "origin";
  readonly origin: Origin;
}

/** What comes after this transaction is written elsewhere: docs/decisions/0010. It is for the sources alone. */
export interface SwitchMark {
  readonly kind: "switch";
  readonly to: "wal" | "outbox";
}

/** @returns the mark; `"ignored"` for one of ours that cannot be trusted; `undefined` for other people's messages */
export function readMark(input: MarkInput): TriggerMark | SubscriptionMark | OriginMark | SwitchMark | "ignored" | undefined {
  const { prefix, content, transaction, position, triggerKey } = input;
  if (!prefix.startsWith("ancrage.")) return undefined;
  if (!input.isTransactional || transaction === undefined) return "ignored";
  switch (prefix) {
    case triggerPrefix: {
      const signed = readSigned(content, triggerKey, transaction);
      return signed === undefined ? "ignored" : toTrigger(signed as TriggerContent, transaction, position);
    }
    case originPrefix: {
      const signed = readSigned(content, triggerKey, transaction);
      return signed === undefined ? "ignored" : (toOrigin(signed as OriginContent, triggerKey) ?? "ignored");
    }
    case switchPrefix: {
      const signed = readSigned(content, triggerKey, transaction);
      return signed === undefined ? "ignored" : { kind: "switch", to: (signed as { readonly to: SwitchMark["to"] }).to };
    }
    case subscriptionPrefix:
      return readSubscription(content, transaction, position) ?? "ignored";
    default:
      return undefined;
  }
}

/** 32 bytes of HMAC-SHA256, then JSON with the `xid` of its transaction. */
function readSigned(content: Buffer, key: Buffer, { xid }: Transaction): unknown {
  const signed = content.subarray(32);
  const expected = createHmac("sha256", key).update(signed).digest();
  if (content.length < 34 || !timingSafeEqual(expected, content.subarray(0, 32))) return undefined;
  const said = JSON.parse(signed.toString("utf8")) as { readonly xid: string };
  // The log has the lower 32 bits of the transaction's id.
  return Number(BigInt(said.xid) & 0xffff_ffffn) === xid ? said : undefined;
}

interface TriggerContent {
  readonly id: string;
  readonly event: string;
  readonly key: string;
  readonly data: unknown;
}

const toTrigger = ({ id, event, key, data }: TriggerContent, transaction: Transaction, position: Position): TriggerMark => ({
  kind: "trigger",
  transaction,
  position,
  id,
  event,
  key,
  data: freezeValue(data ?? undefined),
});

interface OriginContent {
  readonly actor?: string;
  readonly cause?: string;
  readonly mute?: boolean;
}

/** @returns undefined for a cause that we did not write: a receiver may have made it up, and the application passed it on */
function toOrigin({ actor, cause, mute }: OriginContent, triggerKey: Buffer): OriginMark | undefined {
  if (actor !== undefined) return { kind: "origin", origin: { actor } };
  if (mute === true) return { kind: "origin", origin: { isMuted: true } };
  const parsed = cause === undefined ? undefined : parseCause(createSecretKey(triggerKey), cause);
  return parsed === undefined ? undefined : { kind: "origin", origin: { cause: parsed } };
}

/** `<id> <revision>`. Forging one moves nothing: the row itself is read, and only a revision it has is placed. */
function readSubscription(content: Buffer, transaction: Transaction, position: Position): SubscriptionMark | undefined {
  const match = /^(sub_[0-9A-Z]+) (\d{1,19})$/i.exec(content.toString("utf8"));
  if (match === null) return undefined;
  const [, subscriptionId = "", revision = ""] = match;
  return { kind: "subscription", transaction, position, subscriptionId, revision: BigInt(revision) };
}
