import { AncrageError } from "../errors.ts";
import type { Row, Value } from "./change.ts";

/**
 * Columns of a new row that the log did not carry, and that can be read of the row as it is now.
 *
 *   lacking ──a function reads it: it throws, and is noted──► asked ──read anew, for all of a batch──► settled: a value, or why not
 *
 * A function reads its record synchronously, so that the first who asks is told no; what asked in vain is run again with the answer.
 * One row serves every event of its change: all of them see the same value.
 */
interface Lack {
  /** Each with why the log has it not. */
  readonly columns: Map<string, Why>;
  /** Written by the columns' getters. */
  readonly asked: Set<string>;
  /** Written by `settle`. */
  readonly settled: Map<string, Settled>;
}

/**
 * - `unchanged`: so large that an update which did not touch it did not carry it again.
 * - `generated`: stored before PostgreSQL 18, virtual in every version.
 * - `unknown`: added, dropped or renamed since this change, or since the tables were read.
 */
export type Why = "unchanged" | "generated" | "unknown";

export type Settled =
  | { readonly kind: "value"; readonly value: Value }
  /** The row is gone, or has another key by now. */
  | { readonly kind: "gone"; readonly key: string }
  /** The table has no such column now. */
  | { readonly kind: "dropped" }
  /** It could not be read, in PostgreSQL's words. */
  | { readonly kind: "unreadable"; readonly error: string };

const lacks = new WeakMap<Row, Lack>();
const none: readonly string[] = [];

/** Never `null` and never absent: a payload that reads it must not send a hole as if it were the value. */
export function defineLacking(row: Record<string, Value>, table: string, column: string, why: Why): void {
  let lack = lacks.get(row);
  if (lack === undefined) lacks.set(row, (lack = { columns: new Map(), asked: new Set(), settled: new Map() }));
  const { columns, asked, settled } = lack;
  columns.set(column, why);
  Object.defineProperty(row, column, {
    enumerable: true,
    get() {
      asked.add(column);
      const answer = settled.get(column);
      if (answer?.kind === "value") return answer.value;
      throw describeLack({ table, column, why, answer });
    },
  });
}

/** Columns that somebody asked for in vain and that were not read anew yet. */
export function askedOf(row: Row | undefined): readonly string[] {
  const lack = row === undefined ? undefined : lacks.get(row);
  if (lack === undefined || lack.asked.size === 0) return none;
  return [...lack.asked].filter((column) => !lack.settled.has(column));
}

/** All that were not read anew yet. */
export function lackingOf(row: Row): readonly string[] {
  const lack = lacks.get(row);
  return lack === undefined ? none : [...lack.columns.keys()].filter((column) => !lack.settled.has(column));
}

/** Whether some of it was. */
export const isReadAnew = (row: Row): boolean => (lacks.get(row)?.settled.size ?? 0) > 0;

export function settle(row: Row, column: string, answer: Settled): void {
  lacks.get(row)?.settled.set(column, answer);
}

/** Of a row that is gone, where a column of it was asked for: what whoever asked was told. */
export function goneOf(row: Row | undefined, table: string): AncrageError | undefined {
  const lack = row === undefined ? undefined : lacks.get(row);
  if (lack === undefined) return undefined;
  for (const column of lack.asked) {
    const answer = lack.settled.get(column);
    if (answer?.kind === "gone") return describeLack({ table, column, why: lack.columns.get(column) ?? "unchanged", answer });
  }
  return undefined;
}

/** Of an old row, or of a deleted one: nothing can be read anew. */
export function defineUnlogged(row: Record<string, Value>, table: string, column: string, hint: string): void {
  Object.defineProperty(row, column, {
    enumerable: true,
    get() {
      const message = `the write-ahead log did not carry column "${column}" of "${table}" as it was before this change.`;
      throw new AncrageError("ANCRAGE_COLUMN_NOT_LOGGED", message, { hint });
    },
  });
}

interface Described {
  readonly table: string;
  readonly column: string;
  readonly why: Why;
  readonly answer: Exclude<Settled, { readonly kind: "value" }> | undefined;
}

function describeLack({ table, column, why, answer }: Described): AncrageError {
  const isUnknown = why === "unknown" && (answer === undefined || answer.kind === "dropped");
  const what = isUnknown
    ? `"${table}" had no column "${column}" when this change was made`
    : `the write-ahead log did not carry column "${column}" of "${table}" for this change`;
  return new AncrageError("ANCRAGE_COLUMN_NOT_LOGGED", `${what}${describeAnswer(answer, isUnknown)}.`, { hint: hintOf(answer) });
}

function describeAnswer(answer: Described["answer"], isUnknown: boolean): string {
  switch (answer?.kind) {
    case undefined:
      return "";
    case "gone":
      return `, and the row ${answer.key}, which has it, is gone or has another key by now`;
    case "dropped":
      return isUnknown ? ": it was dropped or renamed" : ", and the table has none now: it was dropped or renamed";
    case "unreadable":
      return `, and it could not be read of the row as it is now: ${answer.error}`;
    default:
      return answer satisfies never;
  }
}

function hintOf(answer: Described["answer"]): string {
  if (answer?.kind === "gone") return 'With "replica identity full" the log carries such a value: leave "oldValues: false" out.';
  if (answer?.kind === "unreadable") return 'Mend what PostgreSQL says, then run "ancrage rejections retry".';
  return 'Let the events read what the table has now, restart, then run "ancrage rejections retry".';
}
