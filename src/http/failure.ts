import { randomBytes } from "node:crypto";
import { AncrageError, isMissingPartition, sqlStateOf } from "../errors.ts";
import { BatchFault } from "../payload/fault.ts";
import { isLostSession } from "../store/database.ts";
import { answerProblem } from "./problem.ts";

/**
 * What the caller hears of an error of ours: whether to try again, and the id that the log has it under. Its text may name tables, values
 * and hosts.
 */
export function answerFailure(error: unknown, id: string): Response {
  if (error instanceof AncrageError && error.code === "ANCRAGE_CHANGE_UNHEEDED") {
    const { message: detail, hint = "" } = error;
    return answerProblem({ code: "not-heeded", detail, hint, headers: { "retry-after": "1" } });
  }
  if (!isUnavailable(error)) {
    return answerProblem({ code: "internal", detail: `something failed that should not (${id}).`, hint: `The log says more under ${id}.` });
  }
  return answerProblem({
    code: "unavailable",
    detail: `the database does not answer, or takes no changes (${id}).`,
    hint: "Send the request again in a moment.",
    headers: { "retry-after": "5" },
  });
}

export const createErrorId = (): string => `err_${randomBytes(8).toString("hex")}`;

/**
 * Connection lost (08), read-only (25006), a deadlock (40), resources (53), shutdown or a timeout (57), a day without its partition, no connection
 * at all, or none in time: all of it passes.
 */
export function isUnavailable(error: unknown): boolean {
  if (error instanceof AncrageError) return error.code === "ANCRAGE_DATABASE_UNREACHABLE";
  // A read of an event's code, or of the record that it is about.
  if (error instanceof BatchFault || isMissingPartition(error)) return true;
  if (/^(08|25006|40|53|57)/.test(sqlStateOf(error) ?? "")) return true;
  return error instanceof Error && (isLostSession(error) || ("code" in error && passingCodes.has(String(error.code))));
}

/** Of sockets and resolvers; the last two say that no descriptor is left. */
const passingCodes: ReadonlySet<string> = new Set(
  "ECONNREFUSED ECONNRESET ENOTFOUND ETIMEDOUT EPIPE EAI_AGAIN EHOSTUNREACH ENETUNREACH EMFILE ENFILE".split(" "),
);
