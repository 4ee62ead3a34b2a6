import type { KeyObject } from "node:crypto";
import { formatCause } from "../cause.ts";
import { contentTypeOf, formatMessage, type Format } from "../format.ts";
import type { Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";
import { computeSignature } from "./sign.ts";

export interface Attempt {
  readonly message: Message;
  readonly subscription: Subscription;
  /** 1 for the first of the round. */
  readonly number: number;
  /** Asked once more when a connection was granted: the subscription may have been deleted while the request waited for one. */
  readonly isWanted: () => boolean;
}

export interface RequestOptions {
  readonly version: string;
  /** Signs the header `ancrage-cause`. */
  readonly causeKey: KeyObject;
}

/**
 * The whole request of an attempt, head and body, in one piece: one write, one packet where it fits.
 *
 * @param nowMs wall clock: when it is signed, which is when it is sent
 */
export function buildRequest({ message, subscription, number }: Attempt, options: RequestOptions, nowMs: number): Buffer {
  const body = bodyOf(message, subscription.format);
  const timestampS = Math.floor(nowMs / 1000);
  const head =
    `${headOf(subscription, options.version)}webhook-id: ${message.id}\r\nwebhook-timestamp: ${timestampS}\r\n` +
    `webhook-signature: ${computeSignature(subscription.keys, message.id, timestampS, body)}\r\n` +
    `ancrage-event: ${message.event}\r\nancrage-attempt: ${number}\r\n` +
    `ancrage-cause: ${causeOf(options.causeKey, message, subscription)}\r\ncontent-length: ${body.length}\r\n\r\n`;
  const bytes = Buffer.allocUnsafe(head.length + body.length);
  bytes.write(head, "latin1");
  body.copy(bytes, head.length);
  return bytes;
}

const causeOf = (key: KeyObject, { id, origin }: Message, subscription: Subscription): string =>
  formatCause(key, { messageId: id, subscriptionId: subscription.id, depth: (origin?.depth ?? 0) + 1 });

function bodyOf(message: Message, format: Format): Buffer {
  return (message.envelopes[format] ??= formatMessage(format, message));
}

/** What is the same in all requests of a subscription; it is replaced as a whole at each revision. */
const heads = new WeakMap<Subscription, string>();

function headOf(subscription: Subscription, version: string): string {
  const known = heads.get(subscription);
  if (known !== undefined) return known;
  const { origin, path, format, id, headers = [] } = subscription;
  const lines = [
    `POST ${path} HTTP/1.1`,
    `host: ${origin.slice(origin.indexOf("//") + 2)}`,
    `content-type: ${contentTypeOf[format]}`,
    `user-agent: Ancrage/${version}`,
    "accept-encoding: identity",
    `ancrage-subscription: ${id}`,
  ];
  for (let index = 0; index < headers.length; index += 2) lines.push(`${headers[index]}: ${headers[index + 1]}`);
  // URLs and headers are checked before they are stored. Should one get past that: a line more in a request is another request.
  if (!lines.every((line) => /^[\x20-\x7e]+$/.test(line))) throw new Error(`URL or headers of ${id} hold characters that no request can`);
  const head = `${lines.join("\r\n")}\r\n`;
  heads.set(subscription, head);
  return head;
}
