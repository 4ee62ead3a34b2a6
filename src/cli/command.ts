import { AncrageError, type ErrorCode } from "../errors.ts";

/** What a command's process ends with. The help lists them. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, unavailable: 3 } as const;

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

/** All that a command sees of the process around it; `main.ts` alone touches `process`. */
export interface CommandContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly workingFolder: string;
  /** Answers: one line, or a text of several. */
  readonly print: (text: string) => void;
  /** Progress, notes, logs. */
  readonly note: (text: string) => void;
  /** Shows how far something has come, in place of what it showed before; the empty text takes it away. Undefined where nobody watches. */
  readonly progress?: (text: string) => void;
  /**
   * Aborted when the process is asked to end. Whoever calls this promises to look at it; while nobody has, the process ends at once: a
   * request that gets no answer, or a statement that waits for a lock, would be ended by nothing.
   */
  readonly heedStopping: () => AbortSignal;
  /** Called by a command that ran but has bad news; where none calls it, the code is 0. */
  readonly exitWith: (code: ExitCode) => void;
}

/** Codes of errors that are the user's to mend, and those that say that something is not there (yet). All others: failed. */
const exitCodeOf: Partial<Record<ErrorCode, ExitCode>> = {
  ANCRAGE_OPTION_INVALID: exitCodes.usage,
  ANCRAGE_DEFINITION_INVALID: exitCodes.usage,
  ANCRAGE_SECRET_KEY_INVALID: exitCodes.usage,
  ANCRAGE_TRIGGER_UNKNOWN_EVENT: exitCodes.usage,
  ANCRAGE_DATABASE_UNREACHABLE: exitCodes.unavailable,
  ANCRAGE_SERVER_UNREACHABLE: exitCodes.unavailable,
  ANCRAGE_NOT_MIGRATED: exitCodes.unavailable,
  ANCRAGE_NOT_PERMITTED: exitCodes.unavailable,
  ANCRAGE_DATABASE_COPIED: exitCodes.unavailable,
  ANCRAGE_SLOT_LOST: exitCodes.unavailable,
  ANCRAGE_SLOT_BUSY: exitCodes.unavailable,
};

export function exitCodeOfError(error: unknown): ExitCode {
  return (error instanceof AncrageError ? exitCodeOf[error.code] : undefined) ?? exitCodes.failed;
}

/**
 * An error as a person reads it. One of ours needs no stack: it says what to do. Any other is a bug, whose stack is wanted.
 *
 * @returns `CODE: message`, and the hint on a line of its own
 */
export function formatError(error: unknown): string {
  if (error instanceof AncrageError) {
    const head = `${error.code}: ${error.message}`;
    return error.hint === undefined ? head : `${head}\n${error.hint}`;
  }
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** The same for programs. */
export function formatErrorJson(error: unknown): string {
  if (error instanceof AncrageError) return JSON.stringify({ error: { code: error.code, message: error.message, hint: error.hint } });
  return JSON.stringify({ error: { code: "ANCRAGE_COMMAND_FAILED", message: error instanceof Error ? error.message : String(error) } });
}
