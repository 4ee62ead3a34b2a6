/**
 * Every error that Ancrage throws has one of these codes. `docs/reference/errors.md` explains each; a test holds the two together.
 *
 * A receiver's failure is no error but an `Outcome` (`deliver/outcome.ts`); a record that cannot become a message is a rejection.
 */
export const errorCodes = {
  ANCRAGE_OPTION_INVALID: "An option has a value that cannot work.",
  ANCRAGE_DEFINITION_INVALID: "An event or tracking file is wrong; all faults are listed.",
  ANCRAGE_DATABASE_UNREACHABLE: "PostgreSQL did not answer.",
  ANCRAGE_NOT_MIGRATED: "The database lacks something that `ancrage migrate` makes; the SQL is listed.",
  ANCRAGE_DATABASE_COPIED: "The database was copied from another server; a copy does not send.",
  ANCRAGE_NOT_PERMITTED: "PostgreSQL refused the role something; the SQL that grants it is named.",
  ANCRAGE_SLOT_LOST: "The replication slot is gone or no longer has the log that is needed.",
  ANCRAGE_CAPTURE_ALTERED: "A publication, a table's replica identity or a trigger of the outbox was changed while changes were read.",
  ANCRAGE_SLOT_BUSY: "Another process reads the replication slot, or leads on the database that is to be adopted.",
  ANCRAGE_SUPERSEDED: "Another process has taken over; this one stopped.",
  ANCRAGE_JOURNAL_WENT_BACK: "The database lacks batches that this process has committed; it stopped.",
  ANCRAGE_JOURNAL_REFUSED: "The journal refused a batch that is not at fault itself.",
  ANCRAGE_COLUMN_NOT_LOGGED: "A column was read that the write-ahead log did not carry.",
  ANCRAGE_VALUE_INVALID: "A value or key is not what the column or its type expects.",
  ANCRAGE_TRIGGER_UNKNOWN_EVENT: "An event was triggered that no file defines.",
  ANCRAGE_SAMPLE_NONE: "An event has nothing to show as a sample; the reason is named.",
  ANCRAGE_SECRET_KEY_INVALID: "ANCRAGE_SECRET_KEY is missing, malformed, or not the key that sealed a secret.",
  ANCRAGE_SUBSCRIPTION_INVALID: "A subscription cannot be made or changed as asked; all faults are listed.",
  ANCRAGE_SUBSCRIPTION_STATE: "A subscription is in a state in which this cannot be done.",
  ANCRAGE_CHANGE_UNHEEDED: "A subscription was changed, and the process that leads has not said that it heeds it.",
  ANCRAGE_JOB_REFUSED: "A job, a resend or a retry cannot be made, or gone on with, as asked.",
  ANCRAGE_ADDRESS_REFUSED: "A URL or the address behind it is not allowed.",
  ANCRAGE_PROTOCOL: "The replication stream held something that this version cannot read.",
  ANCRAGE_EMBEDDED_POSTGRES: "The embedded PostgreSQL could not be started.",
  ANCRAGE_SERVER_UNREACHABLE: "A command found no running Ancrage, or it did not answer.",
  ANCRAGE_COMMAND_FAILED: "A command could not do its work.",
} as const;

export type ErrorCode = keyof typeof errorCodes;

export interface AncrageErrorOptions {
  /** What to do about it, in one or a few sentences. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** What Ancrage throws: what happened (with the value), what was expected, and in `hint` what to do. */
export class AncrageError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: AncrageErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AncrageError";
    this.code = code;
    this.hint = options.hint;
  }

  /** `CODE: message hint`, as a person reads it. */
  override toString(): string {
    return `${this.code}: ${this.message}${this.hint === undefined ? "" : ` ${this.hint}`}`;
  }
}

/** SQLSTATE of an error that PostgreSQL answered, `undefined` for all others. */
export function sqlStateOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  const { code } = error;
  // Every SQLSTATE has a digit; Node's own codes (EPIPE) have none.
  return typeof code === "string" && /^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** Which constraint PostgreSQL refused a row by; undefined where it was none. */
export function constraintOf(error: unknown): string | undefined {
  return typeof error === "object" && error !== null && "constraint" in error && typeof error.constraint === "string"
    ? error.constraint
    : undefined;
}

/**
 * Whether a row found no partition of its day: 23514 like a failed check, but no constraint was checked. That is nobody's data: the day is
 * about to be made, or just being dropped.
 */
export const isMissingPartition = (error: unknown): boolean => sqlStateOf(error) === "23514" && constraintOf(error) === undefined;

/** Whether PostgreSQL cannot store what it was given: classes 22 (data) and 23 (integrity). */
export const isRefusedData = (error: unknown): boolean => /^2[23]/.test(sqlStateOf(error) ?? "") && !isMissingPartition(error);
