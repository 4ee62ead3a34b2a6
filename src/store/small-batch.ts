import pg from "pg";
import type { DeliveryRow, Message } from "../message.ts";
import { formatLsn } from "../lsn.ts";
import { assertCommitted, beginBatchSql, type BatchRow } from "./batches.ts";
import { deliveryColumns, messageColumns, toUs } from "./journal-rows.ts";

/** What fits into one statement text: a few messages, and deliveries that have no row yet. */
export interface SmallBatch {
  readonly messages: readonly Message[];
  readonly deliveries: readonly DeliveryRow[];
}

const mostRows = 32;
const mostBytes = 32 * 1024;

/**
 * Whether a batch goes in one round trip. COPY is cheaper a row, but takes two round trips a table: where messages come one by one,
 * those are most of what a batch costs, in time and in CPU [M: docs/decisions/0004].
 */
export function isSmall({ messages, deliveries }: SmallBatch): boolean {
  if (messages.length + deliveries.length > mostRows) return false;
  const bytes = messages.reduce((sum, { body }) => sum + body.length, 0);
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
  const { messages, deliveries } = batch;
  const statements = [beginBatchSql(row)];
  if (messages.length > 0) statements.push(messagesSql(messages));
  if (deliveries.length > 0) statements.push(deliveriesSql(deliveries));
  statements.push("commit");
  const answer: unknown = await client.query(statements.join(";\n"));
  const results = answer as readonly pg.QueryResult[];
  const inserted = results.filter(({ command }) => command === "INSERT").reduce((sum, { rowCount }) => sum + (rowCount ?? 0), 0);
  const expected = 1 + messages.length + deliveries.length;
  if (inserted !== expected) throw new Error(`a batch of ${expected} rows was answered with ${inserted}`);
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

/** Exact to the microsecond, in UTC, which every session of ours is in. */
function timestampSql(us: bigint): string {
  const ms = us / 1000n;
  return `'${new Date(Number(ms)).toISOString().slice(0, -1)}${String(us - ms * 1000n).padStart(3, "0")}Z'`;
}
