import { createHash, createHmac, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import type pg from "pg";
import { createId } from "./create-id.ts";
import { readIdempotencyKey, takeIdempotencyKey } from "./store/idempotency-keys.ts";
import { inPoolTransaction } from "./store/database.ts";
import { insertToken, listTokens, readToken, revokeToken, type TokenFilter, type TokenRow } from "./store/tokens.ts";
import type { SecretKey } from "./subscription/secret.ts";

/** What a token is made from. */
export interface TokenInput {
  readonly name: string;
  /** Null: all projects. */
  readonly project: string | null;
  readonly expiresAt: Date | null;
}

/** The bearer tokens of the API beside the operator's. */
export interface TokenService {
  create(input: TokenInput, options: { readonly idempotencyKey: string | undefined }): Promise<TokenMade>;
  list(filter: TokenFilter): Promise<readonly TokenRow[]>;
  get(id: string): Promise<TokenRow | undefined>;
  /** From the next request on it is refused. */
  revoke(id: string): Promise<TokenRow | undefined>;
}

/** What came of a request for a token. */
export type TokenMade =
  /** The token is shown this once. */
  | { readonly kind: "made"; readonly row: TokenRow; readonly token: string }
  /** The key was sent with another request. */
  | { readonly kind: "other-request" }
  /** What the first request with the key made was revoked since, and opens nothing any more. */
  | { readonly kind: "revoked"; readonly row: TokenRow };

export interface TokenServiceOptions {
  readonly db: pg.Pool;
  readonly secretKey: SecretKey;
  readonly nowMs?: () => number;
}

/** Tokens are no project's own, and so are the keys of requests that make them. No project has the empty name. */
const noProject = "";

export function createTokenService({ db, secretKey, nowMs = Date.now }: TokenServiceOptions): TokenService {
  /**
   * A request that is repeated is answered with the same token although nothing but its hash is stored: its bytes are made of the key that
   * the caller repeats. Without `ANCRAGE_SECRET_KEY` nobody can tell them from random ones.
   */
  const bytesOf = (id: string, key: string | undefined): Buffer =>
    key === undefined
      ? randomBytes(32)
      : createHmac("sha256", secretKey.key)
          .update(JSON.stringify(["token", id, key]))
          .digest();

  return {
    async create(input, { idempotencyKey: key }) {
      const id = createId("tok_", nowMs(), randomBytes(10));
      const token = formatToken(bytesOf(id, key));
      const requestHash = createHash("sha256")
        .update(JSON.stringify(["token", input]))
        .digest();
      const row = await inPoolTransaction(db, async (client) => {
        const asked = { project: noProject, key: key ?? "", requestHash, madeId: id };
        if (key !== undefined && !(await takeIdempotencyKey(client, asked))) return undefined;
        return await insertToken(client, { ...input, id, hash: hashToken(token) });
      });
      if (row !== undefined) return { kind: "made", row, token };
      const before = await readIdempotencyKey(db, noProject, key ?? "");
      if (before?.requestHash.equals(requestHash) !== true) return { kind: "other-request" };
      const made = await readToken(db, before.madeId);
      if (made === undefined) throw new Error(`expected what the idempotency key ${key} made, got nothing`);
      return made.revokedAt === null
        ? { kind: "made", row: made, token: formatToken(bytesOf(made.id, key)) }
        : { kind: "revoked", row: made };
    },
    list: (filter) => listTokens(db, filter),
    get: (id) => readToken(db, id),
    revoke: (id) => revokeToken(db, id),
  };
}

/** As tokens are stored: they are random, so nothing slower is needed. */
export function hashToken(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** `anc_`, 32 bytes and their CRC-32 in hexadecimal: so that whoever looks for secrets in a repository knows one when they see it. */
export function formatToken(bytes: Buffer): string {
  return `anc_${bytes.toString("hex")}${crc32(bytes).toString(16).padStart(8, "0")}`;
}
