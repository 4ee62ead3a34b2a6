import type { Queryable } from "./database.ts";

export interface TokenRow {
  readonly id: string;
  /** Null: all projects. */
  readonly project: string | null;
  readonly name: string;
}

/** Looks a token up by its SHA-256, unless it has expired. */
export async function findToken(db: Queryable, hash: Buffer): Promise<TokenRow | undefined> {
  const { rows } = await db.query<TokenRow>(
    `select id, project, name from ancrage.tokens where hash = $1 and (expires_at is null or expires_at > now())`,
    [hash],
  );
  return rows[0];
}
