import type pg from "pg";
import type { Row } from "../capture/change.ts";
import { AncrageError } from "../errors.ts";
import { toParameter, type ValueTypes } from "../store/types.ts";
import { BatchFault, isPassingFault } from "./fault.ts";

/** Runs one read of a definition's own words. */
export type SqlReader = (text: string, values: readonly unknown[]) => Promise<readonly Row[]>;

export interface SqlReaderOptions {
  readonly pool: pg.Pool;
  /** How values are read; those of `store/types.ts`. */
  readonly types: ValueTypes;
  /** @default 5000 */
  readonly statementTimeoutMs?: number;
  /**
   * How long PostgreSQL may say nothing at all: a network that was cut in between ends no statement.
   *
   * @default statementTimeoutMs + 5000
   */
  readonly silenceTimeoutMs?: number;
}

/**
 * Reads that PostgreSQL itself keeps from writing, whatever their text is:
 *
 * - the text stands inside `select * from (…)` and goes through the extended protocol, which takes one statement: `insert`, `set
 *   role`, `commit` and a second statement are syntax errors;
 * - the transaction is read only: functions that write are refused, and a transaction that has read cannot be turned back;
 * - it is rolled back always, which undoes `set_config`; advisory locks alone outlive that, and are given up with it.
 *
 * At most all sessions of the pool but one are used, so that calls of `load` never wait for a slow statement until the pool gives up.
 */
export function createSqlReader(options: SqlReaderOptions): SqlReader {
  const { pool } = options;
  let free = Math.max(1, pool.options.max - 1);
  const waiting: (() => void)[] = [];

  return async (text, values) => {
    if (free > 0) free--;
    else await new Promise<void>((resume) => waiting.push(resume));
    try {
      return await readOnce(options, text, values);
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}

async function readOnce(options: SqlReaderOptions, text: string, values: readonly unknown[]): Promise<readonly Row[]> {
  const { pool, types, statementTimeoutMs = 5_000 } = options;
  const limits = { query_timeout: options.silenceTimeoutMs ?? statementTimeoutMs + 5_000 };
  const client = await pool.connect();
  let failure: Error | undefined;
  // The pool listens to idle sessions only: without this, one that PostgreSQL ends during a call would end the process.
  client.on("error", ignore);
  try {
    await client.query({ ...limits, text: `begin read only; set local statement_timeout = ${Math.ceil(statementTimeoutMs)}` });
    const query: pg.QueryConfig & { queryMode: "extended" } = {
      ...limits,
      text: `select * from (\n${text}\n) as q`,
      values: [...values],
      // Without values the driver would choose the simple protocol, which takes several statements.
      queryMode: "extended",
      types: types.pgTypes(),
    };
    const { rows } = await client.query<Row>(query);
    return rows;
  } finally {
    try {
      await client.query({ ...limits, text: "rollback; select pg_advisory_unlock_all()" });
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
    }
    client.off("error", ignore);
    // A session that could not be cleaned is not used again.
    client.release(failure);
  }
}

/** The call that is under way fails with the same error, and says so. */
const ignore = (): void => undefined;

/**
 * What a definition writes as ``sql`select … where id = ${id}` ``: the values are parameters, never text.
 *
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` for a value that is undefined or cannot be a parameter
 */
export async function runSql(
  read: SqlReader,
  strings: TemplateStringsArray,
  values: readonly unknown[],
  onFault: (fault: BatchFault) => void,
): Promise<readonly Row[]> {
  if (!Array.isArray(strings) || !Array.isArray(strings.raw)) {
    throw new AncrageError("ANCRAGE_DEFINITION_INVALID", "sql: expected a tagged template, got a call with parentheses.", {
      hint: "Write sql`select … where id = ${id}`: its values become parameters.",
    });
  }
  for (const [index, value] of values.entries()) {
    if (value === undefined || typeof value === "function" || typeof value === "symbol") {
      throw new AncrageError("ANCRAGE_DEFINITION_INVALID", `sql: value ${index + 1} is ${typeof value}, expected a value or null.`, {
        hint: "A column's name was probably mistyped.",
      });
    }
  }
  const text = strings.reduce((before, part, index) => `${before}$${index}${part}`);
  // The answer comes out of a socket, whose stack knows nothing of who asked.
  const asked = new Error();
  try {
    // A closing semicolon is habit, not a second statement.
    return await read(text.replace(/;\s*$/, ""), values.map(toParameter));
  } catch (error) {
    if (!isPassingFault(error)) {
      if (error instanceof Error) error.stack = asked.stack?.replace(/^Error/, () => `${error.name}: ${error.message}`) ?? "";
      throw error;
    }
    const fault = new BatchFault(error);
    onFault(fault);
    throw fault;
  }
}
