import { createCipheriv, createDecipheriv, createHash, createSecretKey, randomBytes, type KeyObject } from "node:crypto";
import { AncrageError } from "../errors.ts";
import type { SealedSecret, SealedValue } from "../store/subscriptions.ts";

/** The key that seals secrets: `ANCRAGE_SECRET_KEY`. */
export interface SecretKey {
  /** The first half of its fingerprint: stored beside what it sealed, so that a wrong key is told from a damaged row. */
  readonly id: string;
  readonly key: KeyObject;
}

const keyHint = `Set ANCRAGE_SECRET_KEY to the base64 of 32 random bytes, for instance with "openssl rand -base64 32", and keep it: without it no stored secret can be read.`;

/**
 * Reads `ANCRAGE_SECRET_KEY`: 32 bytes as base64.
 *
 * @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID`; the message never holds the value
 */
export function parseSecretKey(text: string | undefined): SecretKey {
  if (text === undefined || text === "") {
    throw new AncrageError("ANCRAGE_SECRET_KEY_INVALID", "ANCRAGE_SECRET_KEY is not set.", { hint: keyHint });
  }
  const bytes = decodeBase64(text.trim());
  if (bytes === undefined) {
    throw new AncrageError("ANCRAGE_SECRET_KEY_INVALID", "ANCRAGE_SECRET_KEY: expected base64, got other characters.", { hint: keyHint });
  }
  if (bytes.length !== 32) {
    throw new AncrageError("ANCRAGE_SECRET_KEY_INVALID", `ANCRAGE_SECRET_KEY: expected 32 bytes, got ${bytes.length}.`, { hint: keyHint });
  }
  return { id: createHash("sha256").update(bytes).digest("hex").slice(0, 16), key: createSecretKey(bytes) };
}

const prefix = "whsec_";
// Standard Webhooks 1.0.0: a symmetric secret has 24 to 64 random bytes.
const leastBytes = 24;
const mostBytes = 64;

/** New random bytes for signing. 32: as many as SHA-256 has. */
export function createSecret(): Buffer {
  return randomBytes(32);
}

/** As Standard Webhooks writes a symmetric secret: `whsec_` and base64. */
export function formatSecret(secret: Buffer): string {
  return prefix + secret.toString("base64");
}

/** The bytes of `whsec_…`, or what is wrong with it (without its value). */
export function parseSecret(text: string): Buffer | { readonly fault: string } {
  const expected = `expected "${prefix}" and the base64 of ${leastBytes} to ${mostBytes} random bytes`;
  if (!text.startsWith(prefix)) return { fault: `${expected}, got a text that does not begin with "${prefix}"` };
  const bytes = decodeBase64(text.slice(prefix.length));
  if (bytes === undefined) return { fault: `${expected}, got characters that are not base64` };
  if (bytes.length < leastBytes || bytes.length > mostBytes) return { fault: `${expected}, got ${bytes.length} bytes` };
  return bytes;
}

/** Whose secret it is. Bound into the seal: a sealed secret that is copied to another row does not open there. */
export interface SecretOwner {
  readonly project: string;
  readonly id: string;
}

const nonceBytes = 12;
const tagBytes = 16;

/** Seals with AES-256-GCM, bound to whom it belongs: nonce, ciphertext and tag as one base64 text. */
export function seal(key: SecretKey, boundTo: readonly string[], value: Buffer): string {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key.key, nonce, { authTagLength: tagBytes });
  cipher.setAAD(associatedData(boundTo));
  return Buffer.concat([nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]).toString("base64");
}

/** @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID`, which says what it is and how it is mended where it cannot be opened any more */
export function unseal(
  key: SecretKey,
  boundTo: readonly string[],
  value: SealedValue,
  { what, cure }: { readonly what: string; readonly cure: string },
): Buffer {
  if (value.keyId !== key.id) {
    throw new AncrageError(
      "ANCRAGE_SECRET_KEY_INVALID",
      `${what} was sealed with key ${value.keyId}, ANCRAGE_SECRET_KEY is key ${key.id}.`,
      {
        hint: `Start with the key that sealed it. If that key is lost, ${cure}.`,
      },
    );
  }
  const bytes = Buffer.from(value.sealed, "base64");
  try {
    const decipher = createDecipheriv("aes-256-gcm", key.key, bytes.subarray(0, nonceBytes), { authTagLength: tagBytes });
    decipher.setAAD(associatedData(boundTo));
    decipher.setAuthTag(bytes.subarray(-tagBytes));
    return Buffer.concat([decipher.update(bytes.subarray(nonceBytes, -tagBytes)), decipher.final()]);
  } catch (cause) {
    throw new AncrageError(
      "ANCRAGE_SECRET_KEY_INVALID",
      `${what} in project ${JSON.stringify(boundTo[0])} does not open: its row was altered or copied.`,
      { hint: `Restore the row of ancrage.subscriptions from a backup, or ${cure}.`, cause },
    );
  }
}

/** A secret as its row holds it. */
export function sealSecret(key: SecretKey, owner: SecretOwner, secret: Buffer, at: Date): SealedSecret {
  const sealed = seal(key, [owner.project, owner.id], secret);
  return { sealed, keyId: key.id, createdAt: at.toISOString(), expiresAt: null };
}

/**
 * The secrets that sign at `now`, newest first: what a rotation replaced signs too until it expires.
 *
 * @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID` where another key sealed one of them, or the row was altered
 */
export function openSecrets(
  key: SecretKey,
  row: SecretOwner & { readonly secrets: readonly SealedSecret[] },
  now: Date,
): readonly Buffer[] {
  return row.secrets
    .filter((secret) => secret.expiresAt === null || new Date(secret.expiresAt) > now)
    .map((secret) => openSecret(key, row, secret));
}

function openSecret(key: SecretKey, { project, id }: SecretOwner, secret: SealedSecret): Buffer {
  return unseal(key, [project, id], secret, { what: `the secret of subscription ${id}`, cure: "create the subscription again" });
}

/** JSON, so that no project and id read like another pair. */
function associatedData(boundTo: readonly string[]): Buffer {
  return Buffer.from(JSON.stringify(boundTo));
}

/** `Buffer.from` skips what is not base64; here that is a fault. Padding may be left out. */
function decodeBase64(text: string): Buffer | undefined {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return undefined;
  const bytes = Buffer.from(text, "base64");
  return bytes.toString("base64").replaceAll("=", "") === text.replaceAll("=", "") ? bytes : undefined;
}
