import { z } from "@hono/zod-openapi";
import type { TokenRow } from "../../store/tokens.ts";
import { requireAllProjects, type Principal } from "../auth.ts";
import { parseIdempotencyKey } from "../idempotency-key.ts";
import { notFound, refusal } from "../problem.ts";
import {
  bearer,
  createRoute,
  cursor,
  invalid,
  json,
  listQuery,
  page,
  pageOf,
  problems,
  query,
  text,
  type Api,
  type time,
} from "../route.ts";
import { newTokenSchema, tokenSchema } from "../schemas.ts";
import type { Services } from "../services.ts";
import { baseUrl } from "./subscriptions.ts";

const tags = ["tokens"];
const params = z.object({ id: text("the id of a token").openapi({ param: { name: "id", in: "path" } }) });

const create = createRoute({
  method: "post",
  path: "/v1/tokens",
  tags,
  security: bearer,
  summary: "Make a bearer token of one project, or of all",
  description: "The token itself is in this answer and nowhere else: only its hash is stored. Only for tokens of all projects.",
  request: {
    headers: z.object({
      "idempotency-key": z.string().optional().openapi({ description: "Repeated within a day: the same token." }),
    }),
    body: { required: true, content: { "application/json": { schema: newTokenSchema } } },
  },
  responses: {
    201: {
      ...json(
        "The token.",
        tokenSchema.extend({ token: z.string().openapi({ description: "anc_…; no other answer shows it." }) }).openapi("CreatedToken"),
      ),
      headers: z.object({ Location: z.url() }),
    },
    ...problems,
  },
});

const list = createRoute({
  method: "get",
  path: "/v1/tokens",
  tags,
  security: bearer,
  summary: "List tokens, newest first",
  description: "Without those that were revoked, and without the operator's. Only for tokens of all projects.",
  request: { query: query({ ...listQuery, after: cursor("tok_") }) },
  responses: { 200: json("A page.", page(tokenSchema)), ...problems },
});

const get = createRoute({
  method: "get",
  path: "/v1/tokens/{id}",
  tags,
  security: bearer,
  summary: "Get a token, revoked or not",
  request: { params },
  responses: { 200: json("The token, without itself.", tokenSchema), ...problems },
});

const revoke = createRoute({
  method: "delete",
  path: "/v1/tokens/{id}",
  tags,
  security: bearer,
  summary: "Revoke a token",
  description: "It is refused from the next request on. Answers the same for one that was revoked before.",
  request: { params },
  responses: { 200: json("The token, revoked.", tokenSchema), ...problems },
});

export function addTokenRoutes(api: Api, services: Services): void {
  const { tokens } = services;

  api.openapi(create, async (c) => {
    requireAllOf(c.get("principal"));
    const idempotencyKey = parseIdempotencyKey(c.req.header("idempotency-key"));
    const { name, project, expiresAt = null } = c.req.valid("json");
    const made = await tokens.create({ name, project, expiresAt: expiryOf(expiresAt) }, { idempotencyKey });
    if (made.kind === "revoked") {
      const { id, revokedAt } = made.row;
      const detail = `the token ${id}, which this idempotency key made, was revoked at ${revokedAt?.toISOString()}.`;
      throw refusal({ code: "wrong-state", detail, hint: "Send the request with another key to make another token." });
    }
    if (made.kind === "other-request") {
      const detail = `the idempotency key ${JSON.stringify(idempotencyKey)} was sent with another request; expected the same one, or another key`;
      throw invalid([{ pointer: "idempotency-key", detail }]);
    }
    const location = new URL(`v1/tokens/${made.row.id}`, baseUrl(services.publicUrl, c.req.url));
    return c.json({ ...viewToken(made.row), token: made.token }, 201, { Location: location.href });
  });

  api.openapi(list, async (c) => {
    requireAllOf(c.get("principal"));
    const { project, after, limit } = c.req.valid("query");
    const rows = await tokens.list({ project, after, limit: limit + 1 });
    return c.json(
      pageOf(rows, limit, (row) => row.id, viewToken),
      200,
    );
  });

  api.openapi(get, async (c) => {
    requireAllOf(c.get("principal"));
    const { id } = c.req.valid("param");
    const row = await tokens.get(id);
    if (row === undefined) throw refusal(notFound(`there is no token ${JSON.stringify(id)}.`));
    return c.json(viewToken(row), 200);
  });

  api.openapi(revoke, async (c) => {
    requireAllOf(c.get("principal"));
    const { id } = c.req.valid("param");
    const row = await tokens.revoke(id);
    if (row === undefined) throw refusal(notFound(`there is no token ${JSON.stringify(id)}.`));
    return c.json(viewToken(row), 200);
  });
}

/** Whoever holds a project's token could else make more of them, which stay when it is revoked. */
const requireAllOf = (principal: Principal): void => requireAllProjects(principal, "tokens are the matter of those");

function expiryOf(given: z.infer<typeof time> | null): Date | null {
  if (given === null) return null;
  const at = new Date(given);
  if (at.getTime() > Date.now()) return at;
  throw invalid([{ pointer: "/expiresAt", detail: `expected a time to come, got ${JSON.stringify(given)}` }]);
}

function viewToken({ id, name, project, createdAt, expiresAt, lastUsedAt, revokedAt }: TokenRow): z.infer<typeof tokenSchema> {
  return {
    id,
    name,
    project,
    createdAt: createdAt.toISOString(),
    expiresAt: expiresAt?.toISOString() ?? null,
    lastUsedAt: lastUsedAt?.toISOString() ?? null,
    revokedAt: revokedAt?.toISOString() ?? null,
  };
}
