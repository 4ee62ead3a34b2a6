import type pg from "pg";
import { formatLsn } from "../lsn.ts";
import type { Queryable } from "./database.ts";

interface PlacedStart {
  readonly id: string;
  readonly revision: bigint;
  readonly lsn: bigint;
}

/** Notes where the log placed a subscription, once, in the batch that passed that place. A later start has a place of its own. */
export async function placeSubscription(client: Pick<pg.ClientBase, "query">, start: PlacedStart): Promise<void> {
  await client.query(`update ancrage.subscriptions set start_lsn = $3 where id = $1 and start_revision = $2 and start_lsn is null`, [
    start.id,
    start.revision.toString(),
    formatLsn(start.lsn),
  ]);
}

/**
 * The same for a start that was changed before the stream came to it.
 *
 * To be run after `placeSubscription`, in a statement of its own: that one waits for whoever is changing the row, and this one then sees
 * what they kept of it.
 */
export async function placeFormerStart(client: Pick<pg.ClientBase, "query">, start: PlacedStart): Promise<void> {
  await client.query(
    `update ancrage.subscription_starts set start_lsn = $3 where subscription_id = $1 and revision = $2 and start_lsn is null`,
    [start.id, start.revision.toString(), formatLsn(start.lsn)],
  );
}

/**
 * Notes of what a subscription matched before that nothing is fanned out from then any more. A process that delivers does not read it from
 * now on, or one that is changed each minute would carry all of its past with it.
 */
export async function passStarts(db: Queryable, id: string): Promise<void> {
  await db.query(
    `update ancrage.subscription_starts passed set passed_at = now()
     from (
       select b.settled_commit_lsn as lsn
       from (select source from ancrage.leaders order by taken_at desc limit 1) leader
       cross join lateral (select settled_commit_lsn from ancrage.batches where source = leader.source order by number desc limit 1) b
     ) settled
     where passed.subscription_id = $1 and passed.passed_at is null
       and exists (
         select from ancrage.subscription_starts later
         where later.subscription_id = passed.subscription_id and later.revision > passed.revision and later.start_lsn < settled.lsn
         union all
         select from ancrage.subscriptions s
         where s.id = passed.subscription_id and s.start_lsn < settled.lsn
       )`,
    [id],
  );
}

/** Forgets them once no rejection from then is kept. */
export async function dropPassedStarts(db: Queryable, days: number): Promise<void> {
  await db.query(`delete from ancrage.subscription_starts where passed_at < now() - make_interval(days => $1)`, [days]);
}

/**
 * Places subscriptions whose own mark is in no log that is read any more: they were made before there was a slot, or in a gap. They
 * begin here. One whose mark is still to come has two then, and the first of them counts.
 */
export async function markUnplacedSubscriptions(client: Pick<pg.ClientBase, "query">): Promise<void> {
  await client.query(`select ancrage.write_mark('ancrage.subscription', convert_to(id || ' ' || start_revision, 'UTF8')) from ancrage.subscriptions
    where start_lsn is null and state <> 'deleted'`);
}
