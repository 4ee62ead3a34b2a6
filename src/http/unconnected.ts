import { AncrageError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { answerFailure, createErrorId, isUnavailable } from "./failure.ts";
import { answerProblem } from "./problem.ts";

/** Answers where there are no routes yet, since nothing could be read of the database, and where there are none any more. */

/** Whether the process answers is no question to the database: whoever probes would restart a process that only waits for it. */
export function answerProbe(request: Request): Response | undefined {
  if (request.method !== "GET" || new URL(request.url).pathname !== "/healthz") return undefined;
  return withNoStore(Response.json({ isHealthy: true }));
}

/** @throws the error itself where it is of the definitions or options: only whoever wrote those can mend it */
export function answerUnconnected(error: unknown, request: Request, log: Logger): Response {
  if (error instanceof AncrageError && !isUnavailable(error)) throw error;
  const id = createErrorId();
  const { method } = request;
  log.error({ err: error, id, method, path: new URL(request.url).pathname }, "the API answered with an error: it could not connect");
  return withNoStore(answerFailure(error, id));
}

export function answerStopped(): Response {
  const detail = "this process has stopped, or is about to.";
  const hint = "Send the request again in a moment: another process may answer.";
  return withNoStore(answerProblem({ code: "unavailable", detail, hint, headers: { "retry-after": "5" } }));
}

/** As all other answers. */
function withNoStore(answer: Response): Response {
  answer.headers.set("cache-control", "no-store");
  return answer;
}
