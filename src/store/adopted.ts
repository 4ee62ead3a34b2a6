import type { Queryable } from "./database.ts";

/** Their places were in the log of the first database: in this one they begin where the log comes to their marks. */
export async function restartSubscriptions(db: Queryable): Promise<void> {
  await db.query(
    `update ancrage.subscriptions set start_lsn = null, revision = nextval('ancrage.revision'), updated_at = now() where state <> 'deleted'`,
  );
}

/**
 * Who led the first database does not lead this one. Left as it was, its row would have each change of a subscription wait for it; and
 * under a new epoch a process that comes back finds that it leads no more.
 */
export async function endLeads(db: Queryable): Promise<void> {
  await db.query(`update ancrage.leaders set is_given_back = true, epoch = epoch + 1`);
}

export async function pauseSubscriptions(db: Queryable): Promise<number> {
  const { rowCount } = await db.query(
    `update ancrage.subscriptions set state = 'paused', state_reason = 'adopted', revision = nextval('ancrage.revision'), updated_at = now()
     where state = 'enabled'`,
  );
  return rowCount ?? 0;
}

/** What the first database makes messages of, or sends again, by hand, it does itself. */
export async function cancelUnfinishedJobs(db: Queryable): Promise<number> {
  const { rowCount } = await db.query(
    `update ancrage.jobs set state = 'canceled', error = 'adopted', ended_at = now(), updated_at = now() where state in ('waiting', 'running')`,
  );
  return rowCount ?? 0;
}

/** What the first database was about to send, it sends itself. */
export async function cancelUnfinishedDeliveries(db: Queryable): Promise<number> {
  const { rowCount } = await db.query(
    `update ancrage.deliveries set state = 'canceled', next_attempt_at = null, last_reason = 'adopted', updated_at = now()
     where state in ('pending', 'retrying')`,
  );
  return rowCount ?? 0;
}
