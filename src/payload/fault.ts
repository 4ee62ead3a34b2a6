import { AncrageError, sqlStateOf } from "../errors.ts";

/**
 * PostgreSQL could not answer a `load` or a `sql` just now. It is nobody's rejection: the whole batch is built again.
 *
 * Thrown even where the user's code caught the error: what it made of a failed read must not be sent.
 */
export class BatchFault extends Error {
  /** Events whose reads they were; none where that cannot be told. Written once, by whoever knows who asked. */
  events: readonly string[] = [];

  constructor(cause: unknown) {
    super(`a read from PostgreSQL failed, the batch is to be built again: ${wordsOf(cause)}`, { cause });
    this.name = "BatchFault";
  }

  /** What PostgreSQL, or the driver, said. */
  get words(): string {
    return wordsOf(this.cause);
  }

  /** Whether PostgreSQL answers, and ended this statement alone, for its time or what else it takes: it may be what is at fault. */
  get isOfStatement(): boolean {
    return statementStates.has(sqlStateOf(this.cause) ?? "") && !isFatal(this.cause);
  }
}

const wordsOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

/**
 * Classes of SQLSTATE that pass by themselves: connection, transaction rollback, resources, operator intervention (57014, a
 * statement timeout, among them) and system errors. https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const passingClasses = new Set(["08", "40", "53", "57", "58"]);
/** Of them what a statement may be the reason of: its time, its memory, its temporary files, a library that it needs and that is gone. */
const statementStates = new Set(["57014", "53200", "53400", "58P01"]);
/** A lock that was not to be had; a transaction that the server ended as idle or too long. */
const passingStates = new Set(["55P03", "25P03", "25P04"]);

/** It ended the session too. */
const isFatal = (error: unknown): boolean => error instanceof Error && "severity" in error && error.severity === "FATAL";

/**
 * Whether an error of a read comes from the state of the database rather than from what was asked.
 *
 * The driver gives connection errors no code at all, so whatever PostgreSQL did not answer counts as the connection, but for what
 * was thrown before anything was sent: our own errors, and a value that cannot be written as a parameter.
 */
export function isPassingFault(error: unknown): boolean {
  if (error instanceof AncrageError) return error.code === "ANCRAGE_DATABASE_UNREACHABLE";
  if (error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError) return false;
  const state = sqlStateOf(error);
  // Five capitals may be an errno, too: EPIPE. SQLSTATE classes of PostgreSQL that begin with a letter are F0, HV, P0 and XX.
  if (state === undefined || !/^(?:\d|F0|HV|P0|XX)/.test(state)) return true;
  // PostgreSQL's answer to a statement with more or fewer values than it has places. Poolers have this code for all that they lack.
  if (state === "08P01") return isFatal(error);
  return passingClasses.has(state.slice(0, 2)) || passingStates.has(state);
}
