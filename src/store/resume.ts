import type pg from "pg";
import type { Position } from "../capture/change.ts";
import { formatLsn, parseLsn } from "../lsn.ts";
import type { DeliveryState, Message } from "../message.ts";

type Queryable = Pick<pg.ClientBase, "query">;

const messageColumns = `m.id, m.project, m.event, m.key, m.commit_lsn::text, m.change_lsn::text, m.ordinal,
  (extract(epoch from m.committed_at) * 1000000)::bigint::text as committed_at_us, m.body`;

interface MessageRow {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly commit_lsn: string;
  readonly change_lsn: string;
  readonly ordinal: number;
  readonly committed_at_us: string;
  readonly body: Buffer;
}

function toMessage(row: MessageRow): Message {
  return {
    id: row.id,
    project: row.project,
    event: row.event,
    key: row.key,
    position: { commitLsn: parseLsn(row.commit_lsn), changeLsn: parseLsn(row.change_lsn), ordinal: row.ordinal },
    committedAtUs: BigInt(row.committed_at_us),
    body: row.body,
    envelopes: {},
  };
}

export interface UnsettledMessage {
  readonly message: Message;
  /** The subscriptions that have a row already. */
  readonly delivered: ReadonlySet<string>;
}

/** Messages whose deliveries an earlier process had not all written, by id, a page at a time. */
export async function readUnsettled(
  db: Queryable,
  page: { readonly fromId: string; readonly after: string; readonly settled: Position; readonly limit: number },
): Promise<readonly UnsettledMessage[]> {
  const { rows } = await db.query<MessageRow & { delivered: string[] }>({
    text: `select ${messageColumns},
       array(select d.subscription_id from ancrage.deliveries d where d.message_id = m.id) as delivered
     from ancrage.messages m
     where m.id >= $1 and m.id > $2 and (m.commit_lsn, m.change_lsn, m.ordinal) > ($3::pg_lsn, $4::pg_lsn, $5::integer)
     order by m.id limit $6`,
    values: [
      page.fromId,
      page.after,
      formatLsn(page.settled.commitLsn),
      formatLsn(page.settled.changeLsn),
      page.settled.ordinal,
      page.limit,
    ],
  });
  return rows.map((row) => ({ message: toMessage(row), delivered: new Set(row.delivered) }));
}

/** Subscriptions with deliveries that are pending, or whose next attempt is due. */
export async function readDueSubscriptions(db: Queryable): Promise<readonly string[]> {
  const { rows } = await db.query<{ subscription_id: string }>(
    `select distinct subscription_id from ancrage.deliveries
     where state in ('pending', 'retrying') and (next_attempt_at is null or next_attempt_at <= now())`,
  );
  return rows.map((row) => row.subscription_id);
}

export interface DueDelivery {
  readonly message: Message;
  readonly subscriptionId: string;
  readonly state: DeliveryState;
  readonly round: number;
  readonly attempts: number;
}

/** Deliveries of one subscription that are due, oldest first. */
export async function readDueDeliveries(db: Queryable, subscriptionId: string, limit: number): Promise<readonly DueDelivery[]> {
  const { rows } = await db.query<MessageRow & { state: DeliveryState; round: number; attempts: number }>(
    `select ${messageColumns}, d.state, d.round, d.attempts
     from ancrage.deliveries d join ancrage.messages m on m.id = d.message_id
     where d.subscription_id = $1 and d.state in ('pending', 'retrying') and (d.next_attempt_at is null or d.next_attempt_at <= now())
     order by d.message_id limit $2`,
    [subscriptionId, limit],
  );
  return rows.map((row) => ({ message: toMessage(row), subscriptionId, state: row.state, round: row.round, attempts: row.attempts }));
}

/** A deleted subscription's deliveries end; those in memory are canceled by the dispatcher. */
export async function cancelDeliveries(db: Queryable, subscriptionId: string): Promise<void> {
  await db.query(
    `update ancrage.deliveries set state = 'canceled', next_attempt_at = null, updated_at = now()
     where subscription_id = $1 and state in ('pending', 'retrying')`,
    [subscriptionId],
  );
}
