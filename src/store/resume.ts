import type pg from "pg";
import type { Position } from "../capture/change.ts";
import { formatLsn, parseLsn } from "../lsn.ts";
import type { DeliveryState, LaneId, Message } from "../message.ts";
import { inPoolTransaction, type Queryable } from "./database.ts";

const messageColumns = `m.id, m.project, m.event, m.key, m.commit_lsn::text, m.change_lsn::text, m.ordinal,
  (extract(epoch from m.committed_at) * 1000000)::bigint::text as committed_at_us, m.body, m.actor, m.caused_by, m.depth`;

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
  readonly actor: string | null;
  readonly caused_by: string | null;
  readonly depth: number;
}

function toMessage(row: MessageRow): Message {
  return {
    id: row.id,
    project: row.project,
    event: row.event,
    key: row.key,
    position: { commitLsn: parseLsn(row.commit_lsn), changeLsn: parseLsn(row.change_lsn), ordinal: row.ordinal },
    committedAtUs: BigInt(row.committed_at_us),
    origin:
      row.actor === null && row.caused_by === null && row.depth === 0
        ? undefined
        : { actor: row.actor ?? undefined, causedBy: row.caused_by ?? undefined, depth: row.depth },
    body: row.body,
    envelopes: {},
  };
}

export interface UnsettledMessage {
  readonly message: Message;
  /** The subscriptions that have a row already. */
  readonly delivered: ReadonlySet<string>;
}

export interface UnsettledPage {
  /** The least id of all of them. */
  readonly fromId: string;
  /** The last id of the page before; empty for the first. */
  readonly after: string;
  readonly settled: Position;
  readonly limit: number;
}

/** Messages whose deliveries an earlier process had not all written, by id, a page at a time. */
export async function readUnsettled(db: Queryable, page: UnsettledPage): Promise<readonly UnsettledMessage[]> {
  const { rows } = await db.query<MessageRow & { delivered: string[] }>({
    name: "ancrage unsettled",
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

// Over the partitions of ninety days a page is planned for 40 ms and read in 4: hence statements with names, which PostgreSQL plans once a
// session.

const isUnfinished = `state in ('pending', 'retrying')`;
const isDue = `(next_attempt_at is null or next_attempt_at <= now())`;
/** As the index `deliveries_unfinished` has them: lanes, and in them the deliveries by position. */
const jobOf = `coalesce(d.job_id, '')`;
const placeOf = `substr(d.message_id, 15)`;

/**
 * Lanes with deliveries that are pending, or whose next attempt is due.
 *
 * It steps from one lane to the next by the index `deliveries_unfinished`: a `distinct` would read all of a backlog. The limit keeps
 * the planner from joining instead, which reads it too.
 */
export async function readDueLanes(db: Queryable): Promise<readonly LaneId[]> {
  const { rows } = await db.query<{ subscription_id: string; job_id: string }>({
    name: "ancrage due lanes",
    text: `with recursive unfinished (subscription_id, job_id) as (
       (select d.subscription_id, ${jobOf} from ancrage.deliveries d where ${isUnfinished} order by d.subscription_id, ${jobOf} limit 1)
       union all
       select next.subscription_id, next.job_id from unfinished u
       cross join lateral (
         select d.subscription_id, ${jobOf} as job_id from ancrage.deliveries d
         where ${isUnfinished} and (d.subscription_id, ${jobOf}) > (u.subscription_id, u.job_id)
         order by d.subscription_id, ${jobOf} limit 1
       ) as next
     )
     select u.subscription_id, u.job_id from unfinished u
     cross join lateral (
       select from ancrage.deliveries d
       where d.subscription_id = u.subscription_id and ${jobOf} = u.job_id and ${isUnfinished} and ${isDue} limit 1
     ) as due`,
  });
  return rows.map((row) => ({ subscriptionId: row.subscription_id, jobId: row.job_id === "" ? undefined : row.job_id }));
}

/** The messages of a lane's deliveries that are due, and have been for a while, by position. */
export async function readDueIds(
  db: Queryable,
  lane: LaneId,
  page: { readonly limit: number; readonly overdueS: number },
): Promise<readonly string[]> {
  const { rows } = await db.query<{ message_id: string }>({
    name: "ancrage due ids",
    text: `select d.message_id from ancrage.deliveries d
     where d.subscription_id = $1 and ${jobOf} = $2 and ${isUnfinished} and ${isDue}
       and ($4 = 0 or coalesce(d.next_attempt_at, d.updated_at) <= now() - $4::double precision * interval '1 s')
     order by ${placeOf} limit $3`,
    values: [lane.subscriptionId, lane.jobId ?? "", page.limit, page.overdueS],
  });
  return rows.map((row) => row.message_id);
}

/** A delivery that is due. */
export interface DueDelivery {
  readonly message: Message;
  readonly state: DeliveryState;
  readonly round: number;
  readonly attempts: number;
}

export interface DuePage {
  readonly due: readonly DueDelivery[];
  /** Messages that are no longer kept: nothing can be sent of them. */
  readonly bodiless: readonly string[];
  /** Undefined where there was none. */
  readonly lastPlace: string | undefined;
  readonly isCut: boolean;
}

/**
 * Deliveries of a lane that are due, by position.
 *
 * @returns as many as are within `maxBytes` of bodies (the first one whatever it has), where the last of them stands, and whether the
 * page had more; those whose message is gone apart
 */
export async function readDueDeliveries(
  db: Queryable,
  lane: LaneId,
  page: { readonly after: string; readonly limit: number; readonly maxBytes: number },
): Promise<DuePage> {
  const { rows } = await db.query<
    Omit<MessageRow, "id"> & {
      id: string | null;
      message_id: string;
      place: string;
      state: DeliveryState;
      round: number;
      attempts: number;
      is_within: boolean;
    }
  >({
    name: "ancrage due",
    text:
      // First the page, then its messages: joined in one, the planner may join the whole backlog and sort that. The length of a body is
      // known without reading it, and a body that is not taken is not read.
      `with d as materialized (
       select d.message_id, d.state, d.round, d.attempts, ${placeOf} as place from ancrage.deliveries d
       where d.subscription_id = $1 and ${jobOf} = $2 and ${isUnfinished} and ${isDue} and ${placeOf} > $3
       order by ${placeOf} limit $4
     )
     select ${messageColumns.replace("m.body", "case when m.is_within then m.body end as body")}, m.message_id, m.place, m.state, m.round, m.attempts, m.is_within
     from (
       select m.*, d.message_id, d.state, d.round, d.attempts, d.place,
         coalesce(sum(length(m.body)) over (order by d.place), 0) <= $5 or row_number() over (order by d.place) = 1 as is_within
       from d left join ancrage.messages m on m.id = d.message_id
     ) as m
     order by m.place`,
    values: [lane.subscriptionId, lane.jobId ?? "", page.after, page.limit, page.maxBytes],
  });
  const within = rows.filter((row) => row.is_within);
  return {
    due: within.flatMap(({ id, state, round, attempts, ...row }) =>
      id === null ? [] : [{ message: toMessage({ ...row, id }), state, round, attempts }],
    ),
    bodiless: within.flatMap((row) => (row.id === null ? [row.message_id] : [])),
    lastPlace: within.at(-1)?.place,
    isCut: within.length < rows.length || rows.length === page.limit,
  };
}

/** An unfinished delivery of a lane with an order, due or not. */
export interface WaitingDelivery {
  readonly messageId: string;
  readonly state: DeliveryState;
  readonly round: number;
  readonly attempts: number;
  /** Of its message's body. */
  readonly bytes: number;
  /** Null where the message is no longer kept: nothing can be sent of it. */
  readonly key: string | null;
  /** Where it stands in its lane. */
  readonly place: string;
  /** Milliseconds until its next attempt; 0 or less: it is due. */
  readonly dueInMs: number;
}

/** Unfinished deliveries of a lane, by position, a page at a time. */
export async function readWaitingDeliveries(
  db: Queryable,
  lane: LaneId,
  page: { readonly after: string; readonly limit: number },
): Promise<readonly WaitingDelivery[]> {
  const { rows } = await db.query<{
    message_id: string;
    state: DeliveryState;
    round: number;
    attempts: number;
    place: string;
    due_in_ms: number;
    key: string | null;
    bytes: number | null;
  }>({
    name: "ancrage waiting",
    text: `with d as materialized (
       select d.message_id, d.state, d.round, d.attempts, ${placeOf} as place,
         coalesce(extract(epoch from d.next_attempt_at - now()) * 1000, 0)::double precision as due_in_ms
       from ancrage.deliveries d
       where d.subscription_id = $1 and ${jobOf} = $2 and ${isUnfinished} and ${placeOf} > $3
       order by ${placeOf} limit $4
     )
     select d.*, m.key, length(m.body) as bytes from d left join ancrage.messages m on m.id = d.message_id order by d.place`,
    values: [lane.subscriptionId, lane.jobId ?? "", page.after, page.limit],
  });
  return rows.map(({ message_id: messageId, due_in_ms: dueInMs, bytes, ...row }) => ({
    ...row,
    messageId,
    dueInMs,
    bytes: bytes ?? 0,
  }));
}

/** Messages by their ids, oldest first. */
export async function readMessages(db: Queryable, ids: readonly string[]): Promise<readonly Message[]> {
  const { rows } = await db.query<MessageRow>({
    name: "ancrage messages",
    text: `select ${messageColumns} from ancrage.messages m where m.id = any($1) order by m.id`,
    values: [ids],
  });
  return rows.map(toMessage);
}

/** How many bytes the bodies of messages have, oldest first. */
export async function readMessageSizes(
  db: Queryable,
  ids: readonly string[],
): Promise<readonly { readonly messageId: string; readonly bytes: number }[]> {
  const { rows } = await db.query<{ messageId: string; bytes: number }>(
    `select m.id as "messageId", length(m.body) as bytes from ancrage.messages m where m.id = any($1) order by m.id`,
    [ids],
  );
  return rows;
}

/** Where a page of unfinished deliveries of a subscription ended; `firstOfLanes` is before all of them. */
export interface LanePlace {
  readonly jobId: string;
  readonly place: string;
}

export const firstOfLanes: LanePlace = { jobId: "", place: "" };

/**
 * Ends at most `limit` unfinished deliveries of a subscription, of those that come after a place in its lanes.
 *
 * Rows that somebody else has are passed over: a page that waited for the journal would hold what the journal then waits for.
 *
 * @returns the last place that was come to; undefined where there was none
 */
export async function cancelDeliveries(
  pool: pg.Pool,
  page: { readonly subscriptionId: string; readonly after: LanePlace; readonly limit: number },
): Promise<LanePlace | undefined> {
  return await inPoolTransaction(pool, async (client) => {
    const { rows } = await client.query<{ message_id: string; job_id: string; place: string }>(
      `select d.message_id, ${jobOf} as job_id, ${placeOf} as place
       from ancrage.deliveries d where d.subscription_id = $1 and ${isUnfinished} and (${jobOf}, ${placeOf}) > ($2, $3)
       order by ${jobOf}, ${placeOf} limit $4 for update skip locked`,
      [page.subscriptionId, page.after.jobId, page.after.place, page.limit],
    );
    const last = rows.at(-1);
    if (last === undefined) return undefined;
    // By the ids themselves: joined to the page, it might scan every partition.
    await client.query(
      `update ancrage.deliveries set state = 'canceled', next_attempt_at = null, updated_at = now()
       where subscription_id = $1 and message_id = any($2)`,
      [page.subscriptionId, rows.map((row) => row.message_id)],
    );
    return { jobId: last.job_id, place: last.place };
  });
}
