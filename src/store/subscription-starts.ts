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

/** Subscriptions that were made before there was a slot begin where it does. */
export async function placeUnplacedSubscriptions(client: Pick<pg.ClientBase, "query">, lsn: bigint): Promise<void> {
  await client.query(`update ancrage.subscriptions set start_lsn = $1 where start_lsn is null`, [formatLsn(lsn)]);
}
