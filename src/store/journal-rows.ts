import pg from "pg";
import type { AttemptRow, DeliveryRow, DeliveryUpdate, Message, Rejection } from "../message.ts";
import { copyInto, createCopyRows } from "./copy.ts";

/** The writes of a batch, one function a statement. All of them run on the journal's session, inside the batch's transaction. */

/** In the order in which a row has them, by COPY here and as literals in `small-batch.ts`. */
export const messageColumns = [
  "id",
  "project",
  "event",
  "key",
  "commit_lsn",
  "change_lsn",
  "ordinal",
  "committed_at",
  "body",
  "actor",
  "caused_by",
  "depth",
];

export async function insertMessages(client: pg.ClientBase, messages: readonly Message[]): Promise<void> {
  const rows = createCopyRows();
  for (const message of messages) {
    const { actor, causedBy, depth = 0 } = message.origin ?? {};
    rows.beginRow(12);
    rows.text(message.id);
    rows.text(message.project);
    rows.text(message.event);
    rows.text(message.key);
    rows.lsn(message.position.commitLsn);
    rows.lsn(message.position.changeLsn);
    rows.int4(message.position.ordinal);
    rows.timestamp(message.committedAtUs);
    rows.bytes(message.body);
    if (actor === undefined) rows.empty();
    else rows.text(actor);
    if (causedBy === undefined) rows.empty();
    else rows.text(causedBy);
    rows.int4(depth);
  }
  await copyInto(client, "ancrage.messages", messageColumns, rows);
}

export async function insertRejections(client: pg.ClientBase, rejections: readonly Rejection[]): Promise<void> {
  const rows = createCopyRows();
  for (const rejection of rejections) {
    rows.beginRow(11);
    rows.text(rejection.id);
    // It may be for a NUL in one of them that the message was refused.
    rows.text(withoutNul(rejection.project));
    rows.text(withoutNul(rejection.event));
    rows.text(withoutNul(rejection.key));
    rows.lsn(rejection.position.commitLsn);
    rows.lsn(rejection.position.changeLsn);
    rows.int4(rejection.position.ordinal);
    rows.timestamp(rejection.committedAtUs);
    rows.text(rejection.reason);
    rows.bytes(Buffer.from(rejection.error, "utf8"));
    rows.bytes(rejection.occurrence);
  }
  const columns = ["id", "project", "event", "key", "commit_lsn", "change_lsn", "ordinal", "committed_at", "reason", "error", "occurrence"];
  await copyInto(client, "ancrage.rejections", columns, rows);
}

const withoutNul = (text: string): string => text.replaceAll("\0", "\uFFFD");

/** The first row of deliveries: most are delivered already, and cost this one row and no update. */
export async function insertDeliveries(client: pg.ClientBase, deliveries: readonly DeliveryRow[]): Promise<void> {
  const rows = createCopyRows();
  for (const delivery of deliveries) {
    rows.beginRow(12);
    rows.text(delivery.messageId);
    rows.text(delivery.subscriptionId);
    rows.text(delivery.project);
    rows.text(delivery.state);
    rows.int4(delivery.round);
    rows.int4(delivery.attempts);
    if (delivery.nextAttemptAtMs === undefined) rows.empty();
    else rows.timestamp(toUs(delivery.nextAttemptAtMs));
    if (delivery.lastStatus === undefined) rows.empty();
    else rows.int4(delivery.lastStatus);
    if (delivery.lastReason === undefined) rows.empty();
    else rows.text(delivery.lastReason);
    if (delivery.durationMs === undefined) rows.empty();
    else rows.int4(delivery.durationMs);
    rows.timestamp(toUs(delivery.updatedAtMs));
    if (delivery.jobId === undefined) rows.empty();
    else rows.text(delivery.jobId);
  }
  await copyInto(client, "ancrage.deliveries", deliveryColumns, rows);
}

/** As `messageColumns`. */
export const deliveryColumns = [
  "message_id",
  "subscription_id",
  "project",
  "state",
  "round",
  "attempts",
  "next_attempt_at",
  "last_status",
  "last_reason",
  "duration_ms",
  "updated_at",
  "job_id",
];

/**
 * First rows of deliveries that nothing has come of yet, in a transaction of its own. One that is there already is left as it is: where
 * an answer was lost, they are written again.
 */
export async function insertUntouched(client: pg.ClientBase, deliveries: readonly DeliveryRow[]): Promise<void> {
  await client.query({
    name: "ancrage untouched",
    text: `insert into ancrage.deliveries (message_id, subscription_id, project, state, round, attempts, updated_at)
     select message_id, subscription_id, project, 'pending', 1, 0, at
     from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as one (message_id, subscription_id, project, at)
     on conflict do nothing`,
    values: [
      deliveries.map(({ messageId }) => messageId),
      deliveries.map(({ subscriptionId }) => subscriptionId),
      deliveries.map(({ project }) => project),
      deliveries.map(({ updatedAtMs }) => toIso(updatedAtMs)),
    ],
  });
}

/** An attempt, and what it takes to tell whether it is late. */
export interface OutcomeAttempt extends AttemptRow {
  /** Its delivery has a row already, which may not be any more what the attempt began from. */
  readonly isLater: boolean;
  /** A success: the delivery's own row says all of it, unless it came late. */
  readonly isOnlyIfLate: boolean;
}

/** A late one is the outcome of an attempt that the delivery had not waited for: it was canceled, say, or resent by hand. */
export type WrittenAttempt = AttemptRow & { readonly isLate: boolean };

/** In the order in which a row has them, by COPY here and as literals in `small-batch.ts`. */
export const attemptColumns = [
  "message_id",
  "subscription_id",
  "round",
  "number",
  "at",
  "status",
  "reason",
  "duration_ms",
  "is_late",
  "response",
];

export async function insertAttempts(client: pg.ClientBase, attempts: readonly WrittenAttempt[]): Promise<void> {
  const rows = createCopyRows();
  for (const attempt of attempts) {
    rows.beginRow(10);
    rows.text(attempt.messageId);
    rows.text(attempt.subscriptionId);
    rows.int4(attempt.round);
    rows.int4(attempt.number);
    rows.timestamp(toUs(attempt.atMs));
    if (attempt.status === undefined) rows.empty();
    else rows.int4(attempt.status);
    rows.text(attempt.reason);
    rows.int4(attempt.durationMs);
    rows.boolean(attempt.isLate);
    if (attempt.response === undefined) rows.empty();
    else rows.bytes(attempt.response);
  }
  await copyInto(client, "ancrage.attempts", attemptColumns, rows);
}

/** What happened to a delivery that has a row. */
export type LaterRow = Pick<DeliveryUpdate, "row" | "from">;

/**
 * Later outcomes, written only where the row still has the round, state and attempts that the attempt began from.
 *
 * @param day that of their messages, `2026-11-24`: the partition is named, since joined through the parent the statement would scan the
 *   partitions of every day
 * @returns what was written, as `message subscription`; the rest came late
 */
export async function updateDeliveries(client: pg.ClientBase, day: string, updates: readonly LaterRow[]): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ id: string }>({
    text: updateDeliveriesSql(day, updatesAsArrays),
    values: [
      updates.map(({ row }) => row.messageId),
      updates.map(({ row }) => row.subscriptionId),
      updates.map(({ from }) => from?.state),
      updates.map(({ from }) => from?.attempts),
      updates.map(({ row }) => row.state),
      updates.map(({ row }) => row.round),
      updates.map(({ row }) => row.attempts),
      updates.map(({ row }) => toIso(row.nextAttemptAtMs)),
      updates.map(({ row }) => row.lastStatus ?? null),
      updates.map(({ row }) => row.lastReason ?? null),
      updates.map(({ row }) => row.durationMs ?? null),
      updates.map(({ row }) => toIso(row.updatedAtMs)),
    ],
  });
  return new Set(rows.map((row) => row.id));
}

export const updatesAsArrays = `unnest($1::text[], $2::text[], $3::ancrage.delivery_state[], $4::integer[], $5::ancrage.delivery_state[],
  $6::integer[], $7::integer[], $8::timestamptz[], $9::integer[], $10::text[], $11::integer[], $12::timestamptz[])`;

/** @param rows a source of rows; literals in it may be nulls only, whose type PostgreSQL cannot tell: hence the casts */
export function updateDeliveriesSql(day: string, rows: string): string {
  return `update ancrage.${pg.escapeIdentifier(`deliveries_${day.replaceAll("-", "")}`)} as d
     set state = o.state::ancrage.delivery_state, attempts = o.attempts, next_attempt_at = o.next_attempt_at::timestamptz,
       last_status = o.last_status::integer, last_reason = o.last_reason, duration_ms = o.duration_ms::integer,
       updated_at = o.updated_at::timestamptz
     from ${rows}
       as o (message_id, subscription_id, from_state, from_attempts, state, round, attempts, next_attempt_at, last_status, last_reason,
         duration_ms, updated_at)
     where d.message_id = o.message_id and d.subscription_id = o.subscription_id and d.round = o.round
       and d.state = o.from_state::ancrage.delivery_state and d.attempts = o.from_attempts
     returning d.message_id || ' ' || d.subscription_id as id`;
}

/** Milliseconds of our clock as the microseconds that PostgreSQL keeps. */
export const toUs = (ms: number): bigint => BigInt(Math.round(ms * 1000));
const toIso = (ms: number | undefined): string | null => (ms === undefined ? null : new Date(ms).toISOString());
