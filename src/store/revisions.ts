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
