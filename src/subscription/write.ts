import type pg from "pg";
import { inPoolTransaction } from "../store/database.ts";
import { passStarts } from "../store/subscription-starts.ts";
import { emitSubscriptionMark, keepFormerStart, lockSubscription, type SubscriptionRow } from "../store/subscriptions.ts";

/** Runs `work` in one transaction that is on disk once this resolves, whatever the database's default is. */
export async function writeSubscription<Result>(db: pg.Pool, work: (client: pg.ClientBase) => Promise<Result>): Promise<Result> {
  return await inPoolTransaction(db, async (client) => {
    await client.query("set local synchronous_commit = on");
    return work(client);
  });
}

/** What is to become of a subscription: a function that writes it, one revision up, or undefined where nothing is. */
export type Decide = (row: SubscriptionRow, client: pg.ClientBase) => Promise<SubscriptionRow | undefined> | undefined;

/**
 * Changes one subscription that nobody else changes meanwhile, with its mark in the log.
 *
 * @returns the row as it is now; undefined where there is none in `project`
 */
export async function changeSubscription(
  db: pg.Pool,
  { id, project }: { readonly id: string; readonly project: string | undefined },
  decide: Decide,
): Promise<SubscriptionRow | undefined> {
  return await writeSubscription(db, async (client) => {
    const found = await lockSubscription(client, id, project);
    if (found === undefined) return undefined;
    const changed = await decide(found, client);
    if (changed === undefined) return found;
    await emitSubscriptionMark(client, changed);
    return changed;
  });
}

/** To be called before a change of what a subscription matches. */
export async function startAnew(client: pg.ClientBase, id: string): Promise<void> {
  await passStarts(client, id);
  await keepFormerStart(client, id);
}
