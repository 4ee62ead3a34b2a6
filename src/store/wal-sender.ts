import type { Queryable } from "./database.ts";

/**
 * Whether a walsender is at work, and not waiting: for more of the log, or for whoever it writes to.
 *
 * Another role's sessions are shown without what they do; such a one counts as waiting.
 */
export async function isWalSenderBusy(db: Queryable, pid: number): Promise<boolean> {
  const { rows } = await db.query<{ busy: boolean }>(
    `select backend_type = 'walsender' and coalesce(wait_event_type, '') not in ('Activity', 'Client') as busy
     from pg_stat_activity where pid = $1`,
    [pid],
  );
  return rows[0]?.busy === true;
}
