import { AsyncLocalStorage } from "node:async_hooks";
import { isShapedAsCause } from "../cause.ts";
import { AncrageError } from "../errors.ts";
import { isThenable } from "../thenable.ts";

/** What the transactions of a request, or of a job, say of themselves: docs/reference/events.md, "Marks". */
export interface Marks {
  /** Who makes the changes, 1 to 256 characters: `ancrage.actor`. */
  readonly actor?: string | undefined;
  /** The header `ancrage-cause` of the request: `ancrage.caused_by`. */
  readonly causedBy?: string | undefined;
  /** The changes are not tracked at all: `ancrage.mute`. It wins over the others. */
  readonly mute?: boolean | undefined;
}

/** One statement that makes the marks, for the head of a transaction. */
export interface MarksSql {
  readonly text: string;
  readonly values: string[];
}

/** Outlives what a request awaits, and is another one for each request that is under way. */
const marksOf = new AsyncLocalStorage<Marks>();

/**
 * Runs `work` so that each transaction of it, on a pool that `markPool` was given, carries these marks. Within another `withMarks`
 * it adds to, or replaces, what that one said. A mark that is undefined says nothing.
 *
 * A `causedBy` that no delivery of Ancrage can have sent is left out: anybody can send any header, and `ancrage.caused_by` would
 * fail the transaction for one that is too long.
 *
 * @example
 * ```ts
 * await withMarks({ mute: true }, () => importCustomers(pool, file));
 * ```
 *
 * @throws ANCRAGE_VALUE_INVALID where `actor` is no name: the transaction would fail, and only at its first change
 */
export function withMarks<Result>(marks: Marks, work: () => PromiseLike<Result>): Promise<Result>;
export function withMarks<Result>(marks: Marks, work: () => Result): Result;
export function withMarks(marks: Marks, work: () => unknown): unknown {
  const { actor, causedBy, mute } = marks;
  if (actor !== undefined && (actor === "" || Array.from(actor).length > 256 || actor.includes("\0"))) {
    throw new AncrageError("ANCRAGE_VALUE_INVALID", `actor: expected a name of 1 to 256 characters, got ${JSON.stringify(actor)}.`, {
      hint: "Give undefined where nobody is known.",
    });
  }
  const said: Marks = {
    ...marksOf.getStore(),
    ...(actor === undefined ? {} : { actor }),
    ...(causedBy === undefined || !isShapedAsCause(causedBy) ? {} : { causedBy }),
    ...(mute === undefined ? {} : { mute }),
  };
  return marksOf.run(said, () => begun(work()));
}

/** Queries of Drizzle and Prisma begin when somebody asks for their result: here, and not after the marks are over. */
const begun = (result: unknown): unknown =>
  isThenable(result) && !(result instanceof Promise) ? new Promise((resolve, reject) => void result.then(resolve, reject)) : result;

/**
 * What a transaction has to run before its first change, for a driver that `markPool` does not know.
 *
 * @returns undefined where there is nothing to say
 *
 * @example
 * ```ts
 * await sql.begin(async (transaction) => {
 *   const marks = marksSql();
 *   if (marks !== undefined) await transaction.unsafe(marks.text, marks.values);
 *   await transaction`update deal set status = 'Won' where id = 42`;
 * });
 * ```
 */
export function marksSql(): MarksSql | undefined {
  const { actor, causedBy, mute } = marksOf.getStore() ?? {};
  if (mute === true) return { text: "select ancrage.mute()", values: [] };
  const calls: string[] = [];
  const values: string[] = [];
  if (actor !== undefined) calls.push(`ancrage.actor($${values.push(actor)})`);
  if (causedBy !== undefined) calls.push(`ancrage.caused_by($${values.push(causedBy)})`);
  return calls.length === 0 ? undefined : { text: `select ${calls.join(", ")}`, values };
}
