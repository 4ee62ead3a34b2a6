import type { Queryable } from "./database.ts";

/** A bearer token of the API. Of itself only the hash is stored. */
export interface TokenRow {
  readonly id: string;
  /** Null: all projects. */
  readonly project: string | null;
  readonly name: string;
  readonly createdAt: Date;
  /** Null: never. */
  readonly expiresAt: Date | null;
  /** To the hour; null before its first request. */
  readonly lastUsedAt: Date | null;
  readonly revokedAt: Date | null;
}

interface StoredToken {
  readonly id: string;
  readonly project: string | null;
  readonly name: string;
  readonly created_at: Date;
  readonly expires_at: Date | null;
  readonly last_used_at: Date | null;
  readonly revoked_at: Date | null;
}

const columns = "id, project, name, created_at, expires_at, last_used_at, revoked_at";

/** Looks a token up by its SHA-256, unless it has expired or was revoked. */
export async function findToken(db: Queryable, hash: Buffer): Promise<TokenRow | undefined> {
  const { rows } = await db.query<StoredToken>(
    `select ${columns} from ancrage.tokens where hash = $1 and revoked_at is null and (expires_at is null or expires_at > now())`,
    [hash],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** Notes that it was used, once an hour: a write for each request would cost more than most requests. */
export async function noteTokenUse(db: Queryable, id: string): Promise<void> {
  await db.query(
    `update ancrage.tokens set last_used_at = now() where id = $1 and (last_used_at is null or last_used_at < now() - interval '1 hour')`,
    [id],
  );
}

export interface NewToken extends Pick<TokenRow, "id" | "project" | "name" | "expiresAt"> {
  /** SHA-256. */
  readonly hash: Buffer;
}

export async function insertToken(db: Queryable, { id, project, name, hash, expiresAt }: NewToken): Promise<TokenRow> {
  const { rows } = await db.query<StoredToken>(
    `insert into ancrage.tokens (id, project, name, hash, expires_at) values ($1, $2, $3, $4, $5) returning ${columns}`,
    [id, project, name, hash, expiresAt],
  );
  const [row] = rows;
  if (row === undefined) throw new Error("expected the statement to return the token that it wrote, got no row");
  return fromStored(row);
}

export interface TokenFilter {
  /** Undefined: of all projects, and of each. */
  readonly project: string | undefined;
  /** The id that the last page ended with. */
  readonly after: string | undefined;
  readonly limit: number;
}

/** Newest first, without those that were revoked. */
export async function listTokens(db: Queryable, { project, after, limit }: TokenFilter): Promise<readonly TokenRow[]> {
  const { rows } = await db.query<StoredToken>(
    `select ${columns} from ancrage.tokens
     where revoked_at is null and ($1::text is null or project = $1) and ($2::text is null or id < $2)
     order by id desc
     limit $3`,
    [project, after, limit],
  );
  return rows.map(fromStored);
}

/** In any state. */
export async function readToken(db: Queryable, id: string): Promise<TokenRow | undefined> {
  const { rows } = await db.query<StoredToken>(`select ${columns} from ancrage.tokens where id = $1`, [id]);
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** Ends a token. One that was ended before stays as it is. */
export async function revokeToken(db: Queryable, id: string): Promise<TokenRow | undefined> {
  const { rows } = await db.query<StoredToken>(
    `update ancrage.tokens set revoked_at = coalesce(revoked_at, now()) where id = $1 returning ${columns}`,
    [id],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

function fromStored(row: StoredToken): TokenRow {
  return {
    id: row.id,
    project: row.project,
    name: row.name,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    revokedAt: row.revoked_at,
  };
}
