import type { Format } from "../format.ts";
import type { Queryable } from "./database.ts";

export const subscriptionFormats = ["standard", "result", "bare", "cloudevents"] as const satisfies readonly Format[];

/** Whether what failed holds back what comes after it: never, of its own record, or of all. */
export const subscriptionOrders = ["none", "record", "all"] as const;

/** How much a receiver takes at most. */
export interface Limits {
  readonly inFlight?: number;
  readonly perSecond?: number;
}

/** What a subscription wants of its events' payloads, as `subscription/filter.ts` reads it. */
type StoredFilter = Readonly<Record<string, unknown>>;

/**
 * What a subscription matched from a place in the log on, until the next one's place. A change, and a message, that were committed
 * before a subscription was changed belong to it as it was then.
 */
export interface FormerStart {
  readonly revision: bigint;
  /** Empty while it is disabled. */
  readonly events: readonly string[];
  readonly filter: StoredFilter | null;
  /** Null until the stream has passed it, and nothing is sent before. */
  readonly startLsn: bigint | null;
}

export type SubscriptionState = "enabled" | "paused" | "disabled" | "deleted";

/** What is stored of a value that nobody who reads the database may see: `subscription/secret.ts` seals and opens it. */
export interface SealedValue {
  readonly sealed: string;
  /** Which key sealed it, so that a wrong key is told from a damaged row. */
  readonly keyId: string;
}

/** A secret as it is stored. Times are ISO 8601. */
export interface SealedSecret extends SealedValue {
  readonly createdAt: string;
  /** When a rotated secret stops signing; null for the present one. */
  readonly expiresAt: string | null;
}

/** Events bound to a URL, as the row has it. */
export interface SubscriptionRow {
  readonly id: string;
  readonly project: string;
  readonly events: readonly string[];
  readonly url: string;
  readonly description: string;
  readonly format: Format;
  readonly filter: StoredFilter | null;
  /** `subscription/sealed-headers.ts` opens them. */
  readonly headers: Readonly<Record<string, SealedValue>>;
  readonly order: (typeof subscriptionOrders)[number];
  readonly limits: Limits;
  /** Changes that they made, as `ancrage.actor` says, are not sent to it. */
  readonly ignoredActors: readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Newest first. */
  readonly secrets: readonly SealedSecret[];
  readonly state: SubscriptionState;
  readonly stateReason: string | null;
  /** Raised at each change; whoever keeps a copy takes only higher ones. */
  readonly revision: bigint;
  /** The revision that it has matched since: of its creation, or of the last change of events, filter, or between enabled and disabled. */
  readonly startRevision: bigint;
  /** Where the log placed `startRevision`; null until the stream has passed it, and nothing is sent before. */
  readonly startLsn: bigint | null;
  /** What it matched before `startRevision`, newest first, for as long as messages from then may be fanned out. */
  readonly former: readonly FormerStart[];
  readonly expiresAt: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

// `pg_lsn - '0/0'` is the position as a number: node-postgres hands both it and int8 over as text.
const columnsWith = (starts: string): string => `
  id, project, events, url, description, format, filter, headers, delivery_order, limits, ignored_actors, metadata, secrets, state,
  state_reason,
  revision, start_revision, (start_lsn - '0/0'::pg_lsn)::text as start_lsn, expires_at, created_at, updated_at,
  (select jsonb_agg(jsonb_build_object(
      'revision', s.revision::text, 'events', s.events, 'filter', s.filter, 'start_lsn', (s.start_lsn - '0/0'::pg_lsn)::text
    ) order by s.revision desc)
   from ancrage.subscription_starts s where s.subscription_id = subscriptions.id and ${starts}) as former`;

const columns = columnsWith("s.passed_at is null");

interface StoredRow {
  readonly id: string;
  readonly project: string;
  readonly events: string[];
  readonly url: string;
  readonly description: string;
  readonly format: Format;
  readonly filter: StoredFilter | null;
  readonly headers: Record<string, SealedValue>;
  readonly delivery_order: SubscriptionRow["order"];
  readonly limits: Limits;
  readonly ignored_actors: string[];
  readonly metadata: Record<string, unknown>;
  readonly secrets: SealedSecret[];
  readonly state: SubscriptionState;
  readonly state_reason: string | null;
  readonly revision: string;
  readonly start_revision: string;
  readonly start_lsn: string | null;
  readonly former: readonly StoredStart[] | null;
  readonly expires_at: Date | null;
  readonly created_at: Date;
  readonly updated_at: Date;
}

interface StoredStart {
  readonly revision: string;
  readonly events: readonly string[];
  readonly filter: StoredFilter | null;
  readonly start_lsn: string | null;
}

/** What a caller may set, and set anew. */
export type SubscriptionFields = Pick<
  SubscriptionRow,
  "events" | "url" | "description" | "format" | "filter" | "headers" | "order" | "limits" | "ignoredActors" | "metadata" | "expiresAt"
>;

export interface NewSubscriptionRow extends SubscriptionFields {
  readonly id: string;
  readonly project: string;
  readonly secrets: readonly SealedSecret[];
}

export async function insertSubscription(db: Queryable, row: NewSubscriptionRow): Promise<SubscriptionRow> {
  const { rows } = await db.query<StoredRow>(
    `insert into ancrage.subscriptions
       (id, project, secrets, events, url, description, format, filter, headers, delivery_order, limits, metadata, expires_at, ignored_actors)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
     returning ${columns}`,
    [row.id, row.project, JSON.stringify(row.secrets), ...valuesOf(row)],
  );
  return onlyRow(rows);
}

/** Keeps what it has matched so far, before `updateSubscription` or `setSubscriptionState` begin anew. */
export async function keepFormerStart(db: Queryable, id: string): Promise<void> {
  await db.query(
    `insert into ancrage.subscription_starts (subscription_id, revision, events, filter, start_lsn)
     select id, start_revision, case when state = 'disabled' then '{}' else events end, filter, start_lsn
     from ancrage.subscriptions where id = $1`,
    [id],
  );
}

/** @param startsAnew whether it matches something else from this revision on: the log then places it again */
export async function updateSubscription(
  db: Queryable,
  { id, fields, startsAnew }: { readonly id: string; readonly fields: SubscriptionFields; readonly startsAnew: boolean },
): Promise<SubscriptionRow> {
  const { rows } = await db.query<StoredRow>(
    `update ancrage.subscriptions
     set events = $3, url = $4, description = $5, format = $6, filter = $7, headers = $8, delivery_order = $9, limits = $10,
         metadata = $11, expires_at = $12, ignored_actors = $13, revision = next.number, updated_at = now(),
         start_revision = case when $2 then next.number else start_revision end,
         start_lsn = case when $2 then null else start_lsn end
     from (select nextval('ancrage.revision') as number) as next
     where id = $1
     returning ${columns}`,
    [id, startsAnew, ...valuesOf(fields)],
  );
  return onlyRow(rows);
}

/** @param startsAnew whether it matches something else from this revision on: the log then places it again */
export async function setSubscriptionState(
  db: Queryable,
  change: { readonly id: string; readonly state: SubscriptionState; readonly reason: string | null; readonly startsAnew: boolean },
): Promise<SubscriptionRow> {
  const { rows } = await db.query<StoredRow>(
    `update ancrage.subscriptions
     set state = $2, state_reason = $3, revision = next.number, updated_at = now(),
         start_revision = case when $4 then next.number else start_revision end,
         start_lsn = case when $4 then null else start_lsn end
     from (select nextval('ancrage.revision') as number) as next
     where id = $1
     returning ${columns}`,
    [change.id, change.state, change.reason, change.startsAnew],
  );
  return onlyRow(rows);
}

export async function setSubscriptionSecrets(db: Queryable, id: string, secrets: readonly SealedSecret[]): Promise<SubscriptionRow> {
  const { rows } = await db.query<StoredRow>(
    `update ancrage.subscriptions
     set secrets = $2, revision = nextval('ancrage.revision'), updated_at = now()
     where id = $1
     returning ${columns}`,
    [id, JSON.stringify(secrets)],
  );
  return onlyRow(rows);
}

/** In the order in which the statements name them. node-postgres writes an array as a PostgreSQL array: jsonb is handed over as text. */
function valuesOf(fields: SubscriptionFields): readonly unknown[] {
  return [
    fields.events,
    fields.url,
    fields.description,
    fields.format,
    fields.filter === null ? null : JSON.stringify(fields.filter),
    JSON.stringify(fields.headers),
    fields.order,
    JSON.stringify(fields.limits),
    JSON.stringify(fields.metadata),
    fields.expiresAt,
    fields.ignoredActors,
  ];
}

/**
 * Places this revision in the log, in the transaction that made it: capture reads the mark, and what was committed before it is not
 * sent. Text: the id, a space, the revision.
 */
export async function emitSubscriptionMark(db: Queryable, row: SubscriptionRow): Promise<void> {
  await db.query(`select ancrage.write_mark('ancrage.subscription', convert_to($1, 'UTF8'))`, [`${row.id} ${row.revision}`]);
}

/** Reads a subscription of any project and in any state, the deleted included. */
export async function readSubscription(db: Queryable, id: string): Promise<SubscriptionRow | undefined> {
  const { rows } = await db.query<StoredRow>(`select ${columns} from ancrage.subscriptions where id = $1`, [id]);
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** Reads one of `project`, or of any where that is undefined, in any state, the deleted included. */
export async function readSubscriptionOf(db: Queryable, id: string, project: string | undefined): Promise<SubscriptionRow | undefined> {
  const { rows } = await db.query<StoredRow>(
    `select ${columns} from ancrage.subscriptions where id = $1 and ($2::text is null or project = $2)`,
    [id, project],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** As `readSubscriptionOf`; others who would change the row wait until this transaction ends. */
export async function lockSubscription(db: Queryable, id: string, project: string | undefined): Promise<SubscriptionRow | undefined> {
  const { rows } = await db.query<StoredRow>(
    `select ${columns} from ancrage.subscriptions where id = $1 and ($2::text is null or project = $2) for update`,
    [id, project],
  );
  return rows[0] === undefined ? undefined : fromStored(rows[0]);
}

/** Marks it as deleted, one revision up. The row stays: a late unsubscribe must still find it. */
export async function deleteSubscription(db: Queryable, id: string): Promise<SubscriptionRow> {
  const { rows } = await db.query<StoredRow>(
    `update ancrage.subscriptions
     set state = 'deleted', state_reason = null, revision = nextval('ancrage.revision'), updated_at = now()
     where id = $1
     returning ${columns}`,
    [id],
  );
  return onlyRow(rows);
}

/**
 * Those that are not deleted, of any project, by revision: what the registry begins with.
 *
 * What is changed between two pages gets a higher revision, and comes (again) with a later one.
 *
 * @param page default: all of them
 */
export async function readLiveSubscriptions(
  db: Queryable,
  page: { readonly after: bigint; readonly limit: number | null } = { after: -1n, limit: null },
): Promise<readonly SubscriptionRow[]> {
  const { rows } = await db.query<StoredRow>(
    `select ${columns} from ancrage.subscriptions where state <> 'deleted' and revision > $1 order by revision limit $2`,
    [page.after, page.limit],
  );
  return rows.map(fromStored);
}

/** Those whose time is over, and that nobody has disabled yet. */
export async function readExpiredSubscriptions(
  db: Queryable,
  now: Date,
): Promise<readonly { readonly id: string; readonly revision: bigint }[]> {
  const { rows } = await db.query<{ id: string; revision: string }>(
    `select id, revision::text from ancrage.subscriptions where expires_at <= $1 and state in ('enabled', 'paused') order by expires_at limit 1000`,
    [now],
  );
  return rows.map(({ id, revision }) => ({ id, revision: BigInt(revision) }));
}

/** Projects in which somebody has subscribed to an event. */
export async function readProjectsOfEvent(db: Queryable, event: string): Promise<readonly string[]> {
  const { rows } = await db.query<{ project: string }>(
    `select distinct project from ancrage.subscriptions where $1 = any (events) and state in ('enabled', 'paused') order by project`,
    [event],
  );
  return rows.map(({ project }) => project);
}

export interface SubscriptionFilter {
  /** Undefined: of all projects. */
  readonly project: string | undefined;
  readonly event?: string | undefined;
  readonly url?: string | undefined;
  /** The id that the last page ended with. */
  readonly after?: string | undefined;
  readonly limit: number;
}

/** Those that are not deleted, newest first. */
export async function listSubscriptions(db: Queryable, filter: SubscriptionFilter): Promise<readonly SubscriptionRow[]> {
  const { rows } = await db.query<StoredRow>(
    `select ${columns} from ancrage.subscriptions
     where state <> 'deleted'
       and ($1::text is null or project = $1)
       and ($2::text is null or $2 = any (events))
       and ($3::text is null or url = $3)
       and ($4::text is null or id < $4)
     order by id desc
     limit $5`,
    [filter.project, filter.event, filter.url, filter.after, filter.limit],
  );
  return rows.map(fromStored);
}

/** Those of a project that have an event, or had it, with all that is kept of what they matched before. */
export async function listSubscriptionsEver(
  db: Queryable,
  { project, event }: { readonly project: string; readonly event: string },
): Promise<readonly SubscriptionRow[]> {
  const { rows } = await db.query<StoredRow>(
    `select ${columnsWith("true")} from ancrage.subscriptions
     where state <> 'deleted' and project = $1
       and ($2 = any (events)
         or exists (select from ancrage.subscription_starts s where s.subscription_id = subscriptions.id and $2 = any (s.events)))
     order by id`,
    [project, event],
  );
  return rows.map(fromStored);
}

function onlyRow(rows: readonly StoredRow[]): SubscriptionRow {
  const [row] = rows;
  if (row === undefined) throw new Error("expected the statement to return the subscription that it wrote, got no row");
  return fromStored(row);
}

function fromStored(row: StoredRow): SubscriptionRow {
  return {
    id: row.id,
    project: row.project,
    events: row.events,
    url: row.url,
    description: row.description,
    format: row.format,
    filter: row.filter,
    headers: row.headers,
    order: row.delivery_order,
    limits: row.limits,
    ignoredActors: row.ignored_actors,
    metadata: row.metadata,
    secrets: row.secrets,
    state: row.state,
    stateReason: row.state_reason,
    revision: BigInt(row.revision),
    startRevision: BigInt(row.start_revision),
    startLsn: row.start_lsn === null ? null : BigInt(row.start_lsn),
    former: (row.former ?? []).map(({ revision, events, filter, start_lsn }) => ({
      revision: BigInt(revision),
      events,
      filter,
      startLsn: start_lsn === null ? null : BigInt(start_lsn),
    })),
    expiresAt: row.expires_at,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
