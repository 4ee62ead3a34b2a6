import { createHmac, type KeyObject } from "node:crypto";

/**
 * The `webhook-signature` header of Standard Webhooks 1.0.0: HMAC-SHA256 of `{id}.{timestamp}.{body}`, one `v1,` entry a key.
 *
 * @param timestampS whole seconds since the Unix epoch, of this attempt
 */
export function computeSignature(keys: readonly KeyObject[], id: string, timestampS: number, body: Buffer): string {
  const head = `${id}.${timestampS}.`;
  let header = "";
  for (const key of keys) {
    const digest = createHmac("sha256", key).update(head).update(body).digest("base64");
    header += header === "" ? `v1,${digest}` : ` v1,${digest}`;
  }
  return header;
}
