import { timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import type { Queryable } from "../store/database.ts";
import { findToken, noteTokenUse } from "../store/tokens.ts";
import { hashToken } from "../tokens.ts";
import { refusal } from "./problem.ts";

/** Whose token a request carries. */
export interface Principal {
  readonly name: string;
  /** The one project that it is for; undefined: all. */
  readonly project: string | undefined;
  readonly isOperator: boolean;
}

/** What a subscription that it creates is not told of: changes of whoever holds the token, where the application names them so. */
export function actorsIgnoredBy({ name, isOperator }: Principal): { readonly ignoredActors?: readonly string[] } {
  return isOperator ? {} : { ignoredActors: [name] };
}

/** What every handler finds in its context. */
export interface ApiEnv {
  Variables: { principal: Principal };
}

/** Paths that an orchestrator reads without a token: they say nothing of what is in the database. */
const openPaths: ReadonlySet<string> = new Set(["/healthz", "/readyz"]);

/** Asks for a bearer token everywhere but on the open paths: the operator's, or one of `ancrage.tokens`. */
export function requireToken(options: { readonly operatorToken: string; readonly db: Queryable }): MiddlewareHandler<ApiEnv> {
  const operatorHash = hashToken(options.operatorToken);
  return async (c, next) => {
    // Read, and no more: a body would be taken into memory before anybody said that it is not wanted.
    if (openPaths.has(c.req.path) && (c.req.method === "GET" || c.req.method === "HEAD")) return next();
    const token = parseBearer(c.req.header("authorization"));
    if (token === undefined) throw unauthorized("expected the header authorization: Bearer <token>, got none.", `Bearer realm="ancrage"`);
    const hash = hashToken(token);
    // Both sides are hashes of one length, so the time of the comparison says nothing of the token, nor of its length.
    if (timingSafeEqual(hash, operatorHash)) c.set("principal", { name: "operator", project: undefined, isOperator: true });
    else {
      const row = await findToken(options.db, hash);
      if (row === undefined) {
        throw unauthorized("the bearer token is unknown, was revoked, or has expired.", `Bearer realm="ancrage", error="invalid_token"`);
      }
      // Not waited for, and no request fails for it.
      if (isHourOld(row.lastUsedAt)) void noteTokenUse(options.db, row.id).catch(() => undefined);
      c.set("principal", { name: row.name, project: row.project ?? undefined, isOperator: false });
    }
    return next();
  };
}

const isHourOld = (at: Date | null): boolean => at === null || Date.now() - at.getTime() > 3_600_000;

function parseBearer(header: string | undefined): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(header ?? "")?.[1];
}

function unauthorized(detail: string, challenge: string): Error {
  return refusal({
    code: "unauthorized",
    detail,
    hint: "Send the token of this project, or the operator's (ANCRAGE_TOKEN).",
    headers: { "www-authenticate": challenge },
  });
}

/**
 * The project that a request is about: the token's own, or what an operator names.
 *
 * @returns undefined: all projects
 * @throws a problem `project-refused`; it is the same for a project that exists and for one that does not
 */
export function projectOf(principal: Principal, named: string | undefined): string | undefined {
  if (principal.project === undefined || named === undefined || named === principal.project) return principal.project ?? named;
  throw refusal({
    code: "project-refused",
    detail: `the token "${principal.name}" is for project ${JSON.stringify(principal.project)}, the request names ${JSON.stringify(named)}.`,
    hint: "Leave the project out, or use a token of that project.",
  });
}

/** @throws a problem `project-refused` where the token is for one project */
export function requireAllProjects({ name, project }: Principal, what: string, hint = ""): void {
  if (project === undefined) return;
  throw refusal({
    code: "project-refused",
    detail: `the token "${name}" is for project ${JSON.stringify(project)}, ${what} of all projects.`,
    hint: `Use a token of all projects.${hint}`,
  });
}
