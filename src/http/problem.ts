import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Fault } from "../subscription/check-subscription.ts";

/** Every code that a problem of the API has. `docs/reference/http-api.md` explains each; a test holds the two together. */
export const problemCodes = {
  "malformed-json": { status: 400, title: "The body is not JSON" },
  "invalid-request": { status: 400, title: "The request cannot be read" },
  unauthorized: { status: 401, title: "A valid bearer token is needed" },
  "project-refused": { status: 403, title: "The token is not for this project" },
  "not-found": { status: 404, title: "There is no such thing" },
  "unknown-event": { status: 404, title: "There is no such event" },
  "unknown-entry-point": { status: 404, title: "There is no such entry point" },
  "method-not-allowed": { status: 405, title: "The path does not take this method" },
  "body-too-slow": { status: 408, title: "The body did not come in time" },
  "wrong-state": { status: 409, title: "It is in a state in which this cannot be done" },
  "job-refused": { status: 409, title: "It cannot be done as things stand" },
  "sample-none": { status: 409, title: "The event has nothing to show" },
  "secret-key-invalid": { status: 409, title: "What is sealed does not open with this key" },
  "body-too-large": { status: 413, title: "The body is too large" },
  "unsupported-media-type": { status: 415, title: "The body must be JSON" },
  invalid: { status: 422, title: "The request holds something that cannot be taken" },
  "too-many-requests": { status: 429, title: "Too much was asked for in too short a time" },
  internal: { status: 500, title: "Ancrage failed" },
  "not-heeded": { status: 503, title: "The change is made, and not heeded yet" },
  unavailable: { status: 503, title: "The database does not answer" },
} as const satisfies Readonly<Record<string, { readonly status: ContentfulStatusCode; readonly title: string }>>;

type ProblemCode = keyof typeof problemCodes;

/** An answer that is an error, as RFC 9457 has it. */
export interface Problem {
  readonly code: ProblemCode;
  /** What happened, with the value, and what was expected. */
  readonly detail: string;
  /** What to do. */
  readonly hint?: string;
  /** What is wrong with the input, all of it. */
  readonly errors?: readonly Fault[];
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a handler throws to answer with a problem. */
export function refusal(problem: Problem): HTTPException {
  return new HTTPException(problemCodes[problem.code].status, { message: problem.detail, res: answerProblem(problem) });
}

export function answerProblem({ code, detail, hint, errors, headers }: Problem): Response {
  const { status, title } = problemCodes[code];
  // A URN: the type names the kind of problem, and no page has to be there for it.
  const body = { type: `urn:ancrage:problem:${code}`, title, status, code, detail, hint, errors };
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/problem+json", ...headers } });
}

/** The problem for an error that Hono or a validator threw: their messages are not ours, so only the status is taken from them. */
export function problemOfStatus(status: number, c: Context): Problem | undefined {
  if (status === 400) return { code: "invalid-request", detail: `${c.req.method} ${c.req.path} could not be read.` };
  if (status === 415) return unsupportedMediaType(c);
  return undefined;
}

export function unsupportedMediaType(c: Context): Problem {
  const type = c.req.header("content-type");
  return {
    code: "unsupported-media-type",
    detail: `expected a body of type application/json, got ${type === undefined ? "a body without content-type" : JSON.stringify(type)}.`,
    hint: "Send JSON with the header content-type: application/json.",
  };
}

export function notFound(what: string): Problem {
  return { code: "not-found", detail: what };
}
