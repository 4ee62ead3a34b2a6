import type pg from "pg";
import type { AttemptRow, DeliveryRow, Message, Rejection } from "../message.ts";
import { createCopyRows, toUs, type Copy } from "./copy.ts";

/** The rows of the journal's tables, as a `RoundTrip` carries them. */

const messageColumns = [
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

export function messagesCopy(messages: readonly Message[]): Copy {
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
  return rows.finish("ancrage.messages", messageColumns);
}

export function rejectionsCopy(rejections: readonly Rejection[]): Copy {
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
  return rows.finish("ancrage.rejections", columns);
}

const withoutNul = (text: string): string => text.replaceAll("\0", "\uFFFD");

/** The first row of deliveries: most are delivered already, and cost this one row and no update. */
export function deliveriesCopy(deliveries: readonly DeliveryRow[]): Copy {
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
  return rows.finish("ancrage.deliveries", deliveryColumns);
}

const deliveryColumns = [
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

const attemptColumns = ["message_id", "subscription_id", "round", "number", "at", "status", "reason", "duration_ms", "response"];

/** None of them late. */
export function attemptsCopy(attempts: readonly AttemptRow[]): Copy {
  const rows = createCopyRows();
  for (const attempt of attempts) {
    rows.beginRow(9);
    rows.text(attempt.messageId);
    rows.text(attempt.subscriptionId);
    rows.int4(attempt.round);
    rows.int4(attempt.number);
    rows.timestamp(toUs(attempt.atMs));
    if (attempt.status === undefined) rows.empty();
    else rows.int4(attempt.status);
    rows.text(attempt.reason);
    rows.int4(attempt.durationMs);
    if (attempt.response === undefined) rows.empty();
    else rows.bytes(attempt.response);
  }
  return rows.finish("ancrage.attempts", attemptColumns);
}

const toIso = (ms: number): string => new Date(ms).toISOString();
