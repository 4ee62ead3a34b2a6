import pg from "pg";
import { dayOfMessage, formatDay } from "../message-id.ts";
import type { AttemptRow, DeliveryUpdate } from "../message.ts";
import { toUs } from "./copy.ts";

/** What happened to a delivery that has a row. */
export type LaterRow = Pick<DeliveryUpdate, "row" | "from">;

/** An attempt of such a delivery, which may not be any more what the attempt began from. */
export interface LaterAttempt extends AttemptRow {
  /** A success: the delivery's own row says all of it, unless it came late. */
  readonly isOnlyIfLate: boolean;
}

/**
 * Writes later outcomes where the row still has the round, state and attempts that the attempt began from; and the attempts, late being
 * those whose delivery is not as they had found it: it was canceled, say, or resent by hand. It is answered with the number of attempts.
 *
 * @param updates no two of them of one delivery
 */
export function outcomesSql(updates: readonly LaterRow[], attempts: readonly LaterAttempt[]): string {
  const writes = [...Map.groupBy(updates, ({ row }) => dayOfMessage(row.messageId))].map(([day, ofDay]) =>
    updateDeliveriesSql(formatDay(day), ofDay),
  );
  const withs = [
    ...writes.map((write, index) => `w${index} as (${write})`),
    `written as (${writes.map((_, index) => `select message_id, subscription_id from w${index}`).join(" union all ")})`,
  ].join(", ");
  if (attempts.length === 0) return `with ${withs} select from written where false`;
  const rows = unnest([
    ["text", attempts.map(({ messageId }) => messageId)],
    ["text", attempts.map(({ subscriptionId }) => subscriptionId)],
    ["integer", attempts.map(({ round }) => round)],
    ["integer", attempts.map(({ number }) => number)],
    ["timestamptz", attempts.map(({ atMs }) => formatTime(atMs))],
    ["integer", attempts.map(({ status }) => status)],
    ["text", attempts.map(({ reason }) => reason)],
    ["integer", attempts.map(({ durationMs }) => durationMs)],
    ["base64", attempts.map(({ response }) => response?.toString("base64"))],
    ["boolean", attempts.map(({ isOnlyIfLate }) => isOnlyIfLate)],
  ]);
  // Not a join: the journal's sessions have nested loops only, which would compare each with each. A subplan is hashed.
  return `with ${withs}
    insert into ancrage.attempts (message_id, subscription_id, round, number, at, status, reason, duration_ms, is_late, response)
    select message_id, subscription_id, round, number, at, status, reason, duration_ms, is_late, decode(response, 'base64')
    from (
      select *, (message_id, subscription_id) not in (select message_id, subscription_id from written) as is_late
      from ${rows} as a (message_id, subscription_id, round, number, at, status, reason, duration_ms, response, is_only_if_late)
      offset 0
    ) tried
    where is_late or not is_only_if_late`;
}

/**
 * @param day that of their messages, `2026-11-24`: the partition is named, since joined through the parent the statement would scan the
 *   partitions of every day
 */
function updateDeliveriesSql(day: string, updates: readonly LaterRow[]): string {
  const rows = unnest([
    ["text", updates.map(({ row }) => row.messageId)],
    ["text", updates.map(({ row }) => row.subscriptionId)],
    ["ancrage.delivery_state", updates.map(({ from }) => from?.state)],
    ["integer", updates.map(({ from }) => from?.attempts)],
    ["ancrage.delivery_state", updates.map(({ row }) => row.state)],
    ["integer", updates.map(({ row }) => row.round)],
    ["integer", updates.map(({ row }) => row.attempts)],
    ["timestamptz", updates.map(({ row }) => (row.nextAttemptAtMs === undefined ? undefined : formatTime(row.nextAttemptAtMs)))],
    ["integer", updates.map(({ row }) => row.lastStatus)],
    ["text", updates.map(({ row }) => row.lastReason)],
    ["integer", updates.map(({ row }) => row.durationMs)],
    ["timestamptz", updates.map(({ row }) => formatTime(row.updatedAtMs))],
  ]);
  return `update ancrage.${pg.escapeIdentifier(`deliveries_${day.replaceAll("-", "")}`)} as d
     set state = o.state, attempts = o.attempts, next_attempt_at = o.next_attempt_at, last_status = o.last_status,
       last_reason = o.last_reason, duration_ms = o.duration_ms, updated_at = o.updated_at
     from ${rows}
       as o (message_id, subscription_id, from_state, from_attempts, state, round, attempts, next_attempt_at, last_status, last_reason,
         duration_ms, updated_at)
     where d.message_id = o.message_id and d.subscription_id = o.subscription_id and d.round = o.round
       and d.state = o.from_state and d.attempts = o.from_attempts
     returning d.message_id, d.subscription_id`;
}

type Column = readonly [type: string, values: readonly (string | number | boolean | undefined)[]];

/** A literal a column: PostgreSQL reads a thousand rows of `values` far slower. */
const unnest = (columns: readonly Column[]): string =>
  `unnest(${columns.map(([type, values]) => (type === "base64" ? base64Array(values) : `${literalOf(arrayOf(values))}::${type}[]`)).join(", ")})`;

/** As `pg.escapeLiteral`, which adds its result up letter by letter: of ten thousand rows that is millions of strings. */
const literalOf = (text: string): string => `E'${text.replaceAll(/['\\]/g, "$&$&")}'`;

/** Megabytes, perhaps, in which there is nothing to escape. */
const base64Array = (values: Column[1]): string =>
  `'{${values.map((value) => (value === undefined ? "null" : `"${value}"`)).join(",")}}'::text[]`;

const arrayOf = (values: Column[1]): string =>
  `{${values.map((value) => (typeof value === "string" ? `"${value.replaceAll(/["\\]/g, "\\$&")}"` : (value ?? "null"))).join(",")}}`;

/** Exact to the microsecond, in UTC, which every session of ours is in. */
function formatTime(atMs: number): string {
  const us = toUs(atMs);
  const ms = us / 1000n;
  return `${new Date(Number(ms)).toISOString().slice(0, -1)}${String(us - ms * 1000n).padStart(3, "0")}Z`;
}
