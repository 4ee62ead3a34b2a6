import type { Format } from "../format.ts";
import type { Queryable } from "./database.ts";

/** A session or a pool: whatever answers a statement. */
export const subscriptionFormats = ["standard", "result", "bare", "cloudevents"] as const satisfies readonly Format[];

type SubscriptionState = "enabled" | "paused" | "disabled" | "deleted";

/** A secret as it is stored: `subscription/secret.ts` seals and opens it. Times are ISO 8601. */
export interface SealedSecret {
  readonly sealed: string;
  /** Which key sealed it, so that a wrong key is told from a damaged row. */
  readonly keyId: string;
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
  readonly filter: unknown;
  readonly headers: Readonly<Record<string, string>>;
  readonly order: "none" | "record" | "all";
  readonly limits: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Newest first. */
  readonly secrets: readonly SealedSecret[];
  readonly state: SubscriptionState;
  readonly stateReason: string | null;
  /** Raised at each change; whoever keeps a copy takes only higher ones. */
  readonly revision: bigint;
  /** Where the log placed this revision; null until the stream has passed it, and nothing is sent before. */
  readonly startLsn: bigint | null;
  readonly expiresAt: Date | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

// `pg_lsn - '0/0'` is the position as a number: node-postgres hands both it and int8 over as text.
const columns = `
  id, project, events, url, description, format, filter, headers, delivery_order, limits, metadata, secrets, state, state_reason,
  revision, (start_lsn - '0/0'::pg_lsn)::text as start_lsn, expires_at, created_at, updated_at`;

interface StoredRow {
  readonly id: string;
  readonly project: string;
  readonly events: string[];
  readonly url: string;
  readonly description: string;
  readonly format: Format;
  readonly filter: unknown;
  readonly headers: Record<string, string>;
  readonly delivery_order: SubscriptionRow["order"];
  readonly limits: Record<string, unknown>;
  readonly metadata: Record<string, unknown>;
  readonly secrets: SealedSecret[];
  readonly state: SubscriptionState;
  readonly state_reason: string | null;
  readonly revision: string;
  readonly start_lsn: string | null;
  readonly expires_at: Date | null;
  readonly created_at: Date;
  readonly updated_at: Date;
}

export interface NewSubscriptionRow {
  readonly id: string;
  readonly project: string;
  readonly events: readonly string[];
  readonly url: string;
  readonly description: string;
  readonly format: Format;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly secrets: readonly SealedSecret[];
}

export async function insertSubscription(db: Queryable, row: NewSubscriptionRow): Promise<SubscriptionRow> {
  const { rows } = await db.query<StoredRow>(
    `insert into ancrage.subscriptions (id, project, events, url, description, format, metadata, secrets)
     values ($1, $2, $3, $4, $5, $6, $7, $8)
     returning ${columns}`,
    // node-postgres writes a JavaScript array as a PostgreSQL array: jsonb must be handed over as text.
    [row.id, row.project, row.events, row.url, row.description, row.format, JSON.stringify(row.metadata), JSON.stringify(row.secrets)],
  );
  return onlyRow(rows);
}

/**
 * Places this revision in the log, in the transaction that made it: capture reads the mark, and what was committed before it is not
 * sent. Text: the id, a space, the revision.
 */
export async function emitSubscriptionMark(db: Queryable, row: SubscriptionRow): Promise<void> {
  await db.query(`select pg_logical_emit_message(true, 'ancrage.subscription', $1)`, [`${row.id} ${row.revision}`]);
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

/** All that are not deleted, of any project: what the registry begins with. */
export async function readLiveSubscriptions(db: Queryable): Promise<readonly SubscriptionRow[]> {
  const { rows } = await db.query<StoredRow>(`select ${columns} from ancrage.subscriptions where state <> 'deleted' order by revision`);
  return rows.map(fromStored);
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
    metadata: row.metadata,
    secrets: row.secrets,
    state: row.state,
    stateReason: row.state_reason,
    revision: BigInt(row.revision),
    startLsn: row.start_lsn === null ? null : BigInt(row.start_lsn),
    expiresAt: row.expires_at,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
