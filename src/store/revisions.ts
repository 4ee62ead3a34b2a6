import type { Queryable } from "./database.ts";

/** The last revision that was given out, committed or not. */
export async function readLastRevision(db: Queryable): Promise<bigint> {
  const { rows } = await db.query<{ revision: string }>(`select last_value::text as revision from ancrage.revision`);
  return BigInt(rows[0]?.revision ?? 0);
}

/** One that is higher than all that were given out before. */
export async function drawRevision(db: Queryable): Promise<bigint> {
  const { rows } = await db.query<{ revision: string }>(`select nextval('ancrage.revision')::text as revision`);
  return BigInt(rows[0]?.revision ?? 0);
}

/** That a subscription was changed, and whether it was deleted. */
export interface SubscriptionChange {
  readonly id: string;
  readonly revision: bigint;
  readonly isDeleted: boolean;
}

/** Subscriptions that were changed after a revision, the deleted included. */
export async function readChangedSince(db: Queryable, revision: bigint): Promise<readonly SubscriptionChange[]> {
  const { rows } = await db.query<{ id: string; revision: string; is_deleted: boolean }>(
    `select id, revision::text, state = 'deleted' as is_deleted from ancrage.subscriptions where revision > $1 order by revision`,
    [revision.toString()],
  );
  return rows.map((row) => ({ id: row.id, revision: BigInt(row.revision), isDeleted: row.is_deleted }));
}

/** Says that changes up to a revision are heeded, unless another process leads meanwhile. */
export async function acknowledgeRevision(
  db: Queryable,
  { source, epoch, revision }: { readonly source: string; readonly epoch: bigint; readonly revision: bigint },
): Promise<void> {
  await db.query(`update ancrage.leaders set acknowledged_revision = $3 where source = $1 and epoch = $2`, [
    source,
    epoch.toString(),
    revision.toString(),
  ]);
}

/** What whoever leads has acknowledged; undefined where nobody leads, and so nobody sends. */
export async function readAcknowledgedRevision(db: Queryable): Promise<bigint | undefined> {
  const { rows } = await db.query<{ revision: string }>(
    // Both halves of the key of the lock that `tryLeadershipLock` takes.
    `select l.acknowledged_revision::text as revision from ancrage.leaders l
     join pg_locks k on ((k.classid::bigint << 32) | k.objid::bigint) = hashtextextended('ancrage:' || l.source, 0)
     where k.locktype = 'advisory' and k.objsubid = 1 and k.granted
       and k.database = (select oid from pg_database where datname = current_database())`,
  );
  return rows[0] === undefined ? undefined : BigInt(rows[0].revision);
}
