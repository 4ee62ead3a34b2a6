import type pg from "pg";
import { formatLsn } from "../lsn.ts";

/** Notes where the log placed a subscription, once, in the batch that passed that place. A later revision has a place of its own. */
export async function placeSubscription(
  client: Pick<pg.ClientBase, "query">,
  start: { readonly id: string; readonly revision: bigint; readonly lsn: bigint },
): Promise<void> {
  await client.query(`update ancrage.subscriptions set start_lsn = $3 where id = $1 and revision = $2 and start_lsn is null`, [
    start.id,
    start.revision.toString(),
    formatLsn(start.lsn),
  ]);
}

/**
 * Places subscriptions whose own mark is in no log that is read any more: they were made before there was a slot, or in a gap. They
 * begin here. One whose mark is still to come has two then, and the first of them counts.
 */
export async function markUnplacedSubscriptions(client: Pick<pg.ClientBase, "query">): Promise<void> {
  await client.query(`select pg_logical_emit_message(true, 'ancrage.subscription', id || ' ' || revision) from ancrage.subscriptions
    where start_lsn is null and state <> 'deleted'`);
}
