import { z } from "@hono/zod-openapi";
import { requireAllProjects } from "../auth.ts";
import { bearer, createRoute, json, problems, type Api } from "../route.ts";
import { statusSchema } from "../schemas.ts";
import type { Services } from "../services.ts";
import { baseUrl } from "./subscriptions.ts";

const tags = ["system"];

const me = createRoute({
  method: "get",
  path: "/v1/me",
  tags,
  security: bearer,
  summary: "Whose token this is",
  description: "For connection tests and labels.",
  responses: {
    200: json("The token.", z.object({ name: z.string(), project: z.string().nullable().openapi({ description: "Null: all projects." }) })),
    ...problems,
  },
});

const status = createRoute({
  method: "get",
  path: "/v1/status",
  tags,
  security: bearer,
  summary: "What runs, and what needs attention",
  description: "Only for tokens of all projects.",
  responses: { 200: json("The status.", statusSchema), ...problems },
});

/** Whatever parameters a prober adds against caches must not take a server out of service. */
const probe = { query: z.object({}) };

const healthz = createRoute({
  method: "get",
  path: "/healthz",
  tags,
  request: probe,
  summary: "Whether the process answers",
  responses: { 200: json("It does.", z.object({ isHealthy: z.literal(true) })), ...problems },
});

const readySchema = z.object({ isReady: z.boolean(), problems: z.array(z.string()) });
const readyz = createRoute({
  method: "get",
  path: "/readyz",
  tags,
  request: probe,
  summary: "Whether changes are captured and delivered",
  description: "Names the codes of problems only: it is asked without a token.",
  responses: { 200: json("They are.", readySchema), 503: json("They are not.", readySchema), ...problems },
});

const metrics = createRoute({
  method: "get",
  path: "/metrics",
  tags,
  security: bearer,
  summary: "Metrics of this process, for Prometheus",
  description: "Only for tokens of all projects: `authorization: { credentials: … }` in the scrape configuration.",
  responses: { 200: { description: "The metrics.", content: { "text/plain": { schema: z.string() } } }, ...problems },
});

/** Not in the document that it answers with. */
const openapi = createRoute({
  method: "get",
  path: "/openapi.json",
  hide: true,
  responses: { 200: json("The document.", z.unknown()) },
});

const probeHint = " GET /readyz answers without one.";

export function addSystemRoutes(api: Api, services: Services): void {
  api.openapi(me, (c) => {
    const { name, project } = c.get("principal");
    return c.json({ name, project: project ?? null }, 200);
  });

  api.openapi(status, async (c) => {
    requireAllProjects(c.get("principal"), "the status is that", probeHint);
    const { isReady, problems, details } = await services.status();
    return c.json({ isReady, problems: [...problems], details: { ...details } }, 200);
  });

  api.openapi(metrics, async (c) => {
    requireAllProjects(c.get("principal"), "the metrics are those", probeHint);
    return c.text(await services.metrics(), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });

  api.openapi(healthz, (c) => c.json({ isHealthy: true as const }, 200));

  api.openapi(readyz, async (c) => {
    const { isReady, problems } = await services.status();
    const body = { isReady, problems: problems.map((problem) => problem.code) };
    return isReady ? c.json(body, 200) : c.json(body, 503);
  });

  api.openAPIRegistry.registerComponent("securitySchemes", "bearer", {
    type: "http",
    scheme: "bearer",
    description: "A token of one project, or of all.",
  });
  api.openapi(openapi, (c) =>
    c.json(
      api.getOpenAPI31Document({
        openapi: "3.1.0",
        info: {
          title: "Ancrage",
          version: "1",
          description: "Binds what happens inside an application to URLs outside it. Errors are problems (RFC 9457).",
        },
        servers: [{ url: baseUrl(services.publicUrl, c.req.url).replace(/\/$/, "") }],
        security: [{ bearer: [] }],
      }),
      200,
    ),
  );
}
