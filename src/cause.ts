import { createHmac, timingSafeEqual, type KeyObject } from "node:crypto";

/** Which delivery made an application write: the header `ancrage-cause`, which comes back through `ancrage.caused_by`. */
export interface Cause {
  readonly messageId: string;
  readonly subscriptionId: string;
  /** Deliveries that led here, this one included: 1 for one of a change that no delivery had caused. */
  readonly depth: number;
}

/** A chain of deliveries that cause each other ends here: what a delivery of this depth made somebody write is sent to nobody. */
export const mostDepth = 5;

/** `<message>.<subscription>.<depth>.<signature>`: whoever gets it can pass it on, and not make it say that another one was the cause. */
export function formatCause(key: KeyObject, { messageId, subscriptionId, depth }: Cause): string {
  const text = `${messageId}.${subscriptionId}.${depth}`;
  return `${text}.${sign(key, text)}`;
}

const shape = /^(msg_[0-9A-Z]{1,60})\.(sub_[0-9A-Z]{1,60})\.([1-9]\d?)\.([\w-]{22})$/;

/** Whether a header can be a cause of ours; who has no key cannot tell more. */
export const isShapedAsCause = (text: string): boolean => shape.test(text);

/** @returns undefined for what is none of ours */
export function parseCause(key: KeyObject, text: string): Cause | undefined {
  const match = shape.exec(text);
  if (match === null) return undefined;
  const [, messageId = "", subscriptionId = "", depth = "", signature = ""] = match;
  const expected = sign(key, `${messageId}.${subscriptionId}.${depth}`);
  if (!timingSafeEqual(Buffer.from(expected), Buffer.from(signature))) return undefined;
  return { messageId, subscriptionId, depth: Number(depth) };
}

/** 128 bits of HMAC-SHA256. The text before it tells it from what the same key signs elsewhere: a logical message is JSON. */
const sign = (key: KeyObject, text: string): string => createHmac("sha256", key).update(text).digest("base64url").slice(0, 22);
