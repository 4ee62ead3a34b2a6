import type { Queryable } from "./database.ts";

/** What a key was sent with, and what came of it. */
export interface IdempotencyKey {
  readonly project: string;
  readonly key: string;
  /** SHA-256 of what was asked. */
  readonly requestHash: Buffer;
  /** The id of a subscription, or of a token. */
  readonly madeId: string;
}

/**
 * Takes a key for what this transaction makes. Whoever comes with the same key meanwhile waits for the transaction to end.
 *
 * @returns false where the key was taken before
 */
export async function takeIdempotencyKey(db: Queryable, { project, key, requestHash, madeId }: IdempotencyKey): Promise<boolean> {
  const { rowCount } = await db.query(
    `insert into ancrage.idempotency_keys (project, key, request_hash, made_id) values ($1, $2, $3, $4) on conflict do nothing`,
    [project, key, requestHash, madeId],
  );
  return rowCount === 1;
}

export async function readIdempotencyKey(db: Queryable, project: string, key: string): Promise<IdempotencyKey | undefined> {
  const { rows } = await db.query<{ request_hash: Buffer; made_id: string }>(
    `select request_hash, made_id from ancrage.idempotency_keys where project = $1 and key = $2`,
    [project, key],
  );
  const [row] = rows;
  return row === undefined ? undefined : { project, key, requestHash: row.request_hash, madeId: row.made_id };
}

/** Forgets keys after a day: a client that repeats a request does so within minutes. */
export async function dropIdempotencyKeys(db: Queryable): Promise<void> {
  await db.query(`delete from ancrage.idempotency_keys where created_at < now() - interval '24 hours'`);
}
