import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { AncrageError } from "../errors.ts";
import { requireToken, type ApiEnv } from "./auth.ts";
import { readBody, requireJson } from "./body.ts";
import { answerFailure, createErrorId } from "./failure.ts";
import { answerProblem, problemOfStatus } from "./problem.ts";
import { refuseInvalid } from "./route.ts";
import { addDeliveryRoutes } from "./routes/deliveries.ts";
import { addEntryPointRoutes } from "./routes/entry-points.ts";
import { addEventRoutes } from "./routes/events.ts";
import { addJobRoutes } from "./routes/jobs.ts";
import { addMessageRoutes } from "./routes/messages.ts";
import { addRejectionRoutes } from "./routes/rejections.ts";
import { addSubscriptionCommandRoutes } from "./routes/subscription-commands.ts";
import { addSubscriptionRoutes } from "./routes/subscriptions.ts";
import { addTokenRoutes } from "./routes/tokens.ts";
import { addSystemRoutes } from "./routes/system.ts";
import type { Services } from "./services.ts";

/**
 * The HTTP API, as a function from a request to an answer.
 *
 * @example
 * ```ts
 * const { fetch } = createApp(services);
 * const answer = await fetch(new Request("http://localhost/v1/me", { headers: { authorization: `Bearer ${token}` } }));
 * ```
 */
export function createApp(services: Services): { readonly fetch: (request: Request) => Promise<Response> } {
  const api = new OpenAPIHono<ApiEnv>({ defaultHook: refuseInvalid });
  api.onError((error, c) => answerError(error, c, services));
  api.notFound((c) =>
    answerProblem({
      code: "not-found",
      detail: `there is no ${c.req.path}.`,
      hint: "GET /openapi.json lists what there is.",
    }),
  );
  api.use(
    methodNotAllowed({
      app: api,
      onMethodNotAllowed: (c, methods) =>
        answerProblem({
          code: "method-not-allowed",
          detail: `${c.req.path} takes ${methods.join(", ")}, got ${c.req.method}.`,
          headers: { allow: methods.join(", ") },
        }),
    }),
  );
  api.use(async (c, next) => {
    await next();
    // Secrets and payloads pass here: none of it may lie in a proxy's cache.
    c.header("cache-control", "no-store");
  });
  api.use(requireToken(services));
  api.use(readBody);
  api.use(requireJson);
  addSubscriptionRoutes(api, services);
  addSubscriptionCommandRoutes(api, services);
  addEventRoutes(api, services);
  addMessageRoutes(api, services);
  addDeliveryRoutes(api, services);
  addRejectionRoutes(api, services);
  addJobRoutes(api, services);
  addEntryPointRoutes(api, services);
  addTokenRoutes(api, services);
  addSystemRoutes(api, services);
  return { fetch: async (request) => api.fetch(request) };
}

function answerError(error: Error, c: Context<ApiEnv>, services: Services): Response {
  if (error instanceof HTTPException) {
    if (error.res !== undefined) return error.getResponse();
    const problem = problemOfStatus(error.status, c);
    if (problem !== undefined) return answerProblem(problem);
  }
  // What failed inside may name tables, values and hosts: it goes to the log, and the caller gets the id to find it by.
  const id = createErrorId();
  services.logError(error, { id, method: c.req.method, path: c.req.path });
  if (error instanceof AncrageError && error.code === "ANCRAGE_SECRET_KEY_INVALID") {
    // It names keys by their fingerprints and a subscription of the caller's own, and says how it is mended.
    const { message: detail, hint } = error;
    return answerProblem({ code: "secret-key-invalid", detail, ...(hint === undefined ? {} : { hint }) });
  }
  return answerFailure(error, id);
}
