import pg from "pg";
import { dayOfMessage, formatDay } from "../message-id.ts";
import type { DeliveryRow, Message } from "../message.ts";
import { formatLsn } from "../lsn.ts";
import { assertCommitted, beginBatchSql, type BatchRow } from "./batches.ts";
import {
  attemptColumns,
  deliveryColumns,
  messageColumns,
  toUs,
  updateDeliveriesSql,
  type LaterRow,
  type OutcomeAttempt,
} from "./journal-rows.ts";

/** What fits into one statement text. No two of `updates` are of one delivery. */
export interface SmallBatch {
  readonly messages: readonly Message[];
  /** First rows. */
  readonly deliveries: readonly DeliveryRow[];
  readonly updates: readonly LaterRow[];
  readonly attempts: readonly OutcomeAttempt[];
}

/** A batch with more goes by COPY. */
export const mostSmallRows = 32;
const mostBytes = 32 * 1024;

/**
 * Whether a batch goes in one round trip. COPY is cheaper a row, but takes two round trips a table: where messages come one by one,
 * those are most of what a batch costs, in time and in CPU [M: docs/decisions/0004].
 */
export function isSmall({ messages, deliveries, updates, attempts }: SmallBatch): boolean {
  if (messages.length + deliveries.length + updates.length > mostSmallRows) return false;
  const ofMessages = messages.reduce((sum, { body }) => sum + body.length, 0);
  const bytes = attempts.reduce((sum, { response }) => sum + (response?.length ?? 0), ofMessages);
  // A statement's text ends at its first NUL; COPY is refused for one, as it should be.
  const hasNul = ({ project, event, key }: Message): boolean => project.includes("\0") || event.includes("\0") || key.includes("\0");
  return bytes <= mostBytes && !messages.some(hasNul) && !deliveries.some(({ project }) => project.includes("\0"));
}

/**
 * The whole transaction of a small batch: begin, its rows, commit.
 *
 * @throws what PostgreSQL answered, the session then being in a failed transaction; or where it counted other rows than were sent, or
 * answered anything but COMMIT
 */
export async function writeSmallBatch(client: pg.ClientBase, row: BatchRow, batch: SmallBatch): Promise<void> {
  const { messages, deliveries, updates, attempts } = batch;
  const statements = [beginBatchSql(row)];
  if (messages.length > 0) statements.push(messagesSql(messages));
  if (deliveries.length > 0) statements.push(deliveriesSql(deliveries));
  if (updates.length + attempts.length > 0) statements.push(outcomesSql(updates, attempts));
  statements.push("commit");
  const answer: unknown = await client.query(statements.join(";\n"));
  const results = answer as readonly pg.QueryResult[];
  const inserted = results.filter(({ command }) => command === "INSERT").reduce((sum, { rowCount }) => sum + (rowCount ?? 0), 0);
  const perhaps = attempts.filter(({ isOnlyIfLate }) => isOnlyIfLate).length;
  const expected = 1 + messages.length + deliveries.length + attempts.length - perhaps;
  if (inserted < expected || inserted > expected + perhaps) throw new Error(`a batch of ${expected} rows was answered with ${inserted}`);
  assertCommitted(results.at(-1)?.command);
}

const { escapeLiteral } = pg;

const literalOf = (text: string | undefined): string => (text === undefined ? "null" : escapeLiteral(text));

function messagesSql(messages: readonly Message[]): string {
  const rows = messages.map(({ id, project, event, key, position, committedAtUs, body, origin }) => {
    const from = origin === undefined ? "null,null,0" : `${literalOf(origin.actor)},${literalOf(origin.causedBy)},${origin.depth}`;
    const place = `'${formatLsn(position.commitLsn)}','${formatLsn(position.changeLsn)}',${position.ordinal}`;
    return `('${id}',${escapeLiteral(project)},${escapeLiteral(event)},${escapeLiteral(key)},${place},${timestampSql(committedAtUs)},'\\x${body.toString("hex")}',${from})`;
  });
  return `insert into ancrage.messages (${messageColumns.join(", ")}) values ${rows.join(",")}`;
}

function deliveriesSql(deliveries: readonly DeliveryRow[]): string {
  const rows = deliveries.map((one) => {
    const next = one.nextAttemptAtMs === undefined ? "null" : timestampSql(toUs(one.nextAttemptAtMs));
    const reason = one.lastReason === undefined ? "null" : escapeLiteral(one.lastReason);
    const job = one.jobId === undefined ? "null" : escapeLiteral(one.jobId);
    return `('${one.messageId}',${escapeLiteral(one.subscriptionId)},${escapeLiteral(one.project)},'${one.state}',${one.round},${one.attempts},${next},${one.lastStatus ?? "null"},${reason},${one.durationMs ?? "null"},${timestampSql(toUs(one.updatedAtMs))},${job})`;
  });
  return `insert into ancrage.deliveries (${deliveryColumns.join(", ")}) values ${rows.join(",")}`;
}

/** Deliveries that have a row, and attempts: late are those whose delivery turns out not to be as they had found it. */
function outcomesSql(updates: readonly LaterRow[], attempts: readonly OutcomeAttempt[]): string {
  const writes = [...Map.groupBy(updates, ({ row }) => dayOfMessage(row.messageId))].map(([day, ofDay]) => {
    const rows = ofDay.map(({ row, from }) => {
      const before = from === undefined ? "null,null" : `'${from.state}',${from.attempts}`;
      const next = row.nextAttemptAtMs === undefined ? "null" : timestampSql(toUs(row.nextAttemptAtMs));
      return `('${row.messageId}',${escapeLiteral(row.subscriptionId)},${before},'${row.state}',${row.round},${row.attempts},${next},${row.lastStatus ?? "null"},${literalOf(row.lastReason)},${row.durationMs ?? "null"},${timestampSql(toUs(row.updatedAtMs))})`;
    });
    return updateDeliveriesSql(formatDay(day), `(values ${rows.join(",")})`);
  });
  const parts = writes.map((write, index) => `w${index} as (${write})`);
  const all =
    writes.length === 0 ? "select null::text as id where false" : writes.map((_, index) => `select id from w${index}`).join(" union all ");
  const withs = `with ${[...parts, `written as (${all})`].join(", ")}`;
  if (attempts.length === 0) return `${withs} select count(*) from written`;
  const rows = attempts.map((one) => {
    const response = one.response === undefined ? "null" : `'\\x${one.response.toString("hex")}'`;
    return `('${one.messageId}',${escapeLiteral(one.subscriptionId)},${one.round},${one.number},${timestampSql(toUs(one.atMs))},${one.status ?? "null"},${escapeLiteral(one.reason)},${one.durationMs},${response},${one.isLater},${one.isOnlyIfLate})`;
  });
  return `${withs} insert into ancrage.attempts (${attemptColumns.join(", ")})
    select a.message_id, a.subscription_id, a.round, a.number, a.at::timestamptz, a.status::integer, a.reason, a.duration_ms,
      a.is_later and w.id is null, a.response::bytea
    from (values ${rows.join(",")})
      as a (message_id, subscription_id, round, number, at, status, reason, duration_ms, response, is_later, is_only_if_late)
    left join written w on w.id = a.message_id || ' ' || a.subscription_id
    where w.id is null or not a.is_only_if_late`;
}

/** Exact to the microsecond, in UTC, which every session of ours is in. */
function timestampSql(us: bigint): string {
  const ms = us / 1000n;
  return `'${new Date(Number(ms)).toISOString().slice(0, -1)}${String(us - ms * 1000n).padStart(3, "0")}Z'`;
}
