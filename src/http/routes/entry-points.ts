import { z } from "@hono/zod-openapi";
import { nearestName } from "../../nearest-name.ts";
import { describeUnknownEvent, isStorable, type Fault } from "../../subscription/check-subscription.ts";
import { subscriptionFaults } from "../../subscription/subscription.ts";
import { actorsIgnoredBy, projectOf, type Principal } from "../auth.ts";
import { notFound, refusal } from "../problem.ts";
import { bearer, createRoute, invalid, json, problems, text, type Api } from "../route.ts";
import type { Services } from "../services.ts";
import { readSamples } from "./events.ts";

/**
 * weavy's three endpoints, so that what is written for weavy works unchanged: same paths, bodies and answers.
 *
 * Fields that weavy does not name are ignored here, as weavy does; its bodies need no content type.
 */
const handlers = {
  async EPT_WebhookSubscribe(services, project, body, principal) {
    const { event, hookUrl } = readTexts(body, ["event", "hookUrl"]);
    try {
      // `result` is how weavy wraps what it sends.
      const asked = { ...actorsIgnoredBy(principal), event, url: hookUrl, format: "result" as const, project };
      const { subscription } = await services.subscriptions.create(asked);
      return { codeWebhookSubscription: subscription.id };
    } catch (error) {
      const faults = subscriptionFaults(error);
      throw faults === undefined ? error : invalid(faults.map(inWeavysWords));
    }
  },

  async EPT_WebhookUnsubscribe(services, project, body) {
    const { codeWebhookSubscription: code } = readTexts(body, ["codeWebhookSubscription"]);
    const row = await services.subscriptions.delete(code, project);
    if (row === undefined)
      throw refusal(notFound(`there is no subscription ${JSON.stringify(code)} in project ${JSON.stringify(project)}.`));
    return { codeWebhookSubscription: row.id, state: row.state };
  },

  async EPT_WebhookPerformList(services, project, body) {
    const { event } = readTexts(body, ["event"]);
    const { events } = services.catalogue();
    if (!events.has(event)) throw invalid([{ pointer: "/event", detail: describeUnknownEvent(event, events.keys()) }]);
    // The payload alone: what a delivery of format `result` has inside `result`.
    return [...(await readSamples(services, event, { project, limit: 3, format: "bare" }))];
  },
} satisfies Readonly<Record<string, (services: Services, project: string, body: unknown, principal: Principal) => Promise<unknown>>>;

const route = createRoute({
  method: "post",
  path: "/v1/EntryPoints/{project}/process/",
  tags: ["entry points"],
  security: bearer,
  summary: "weavy's EPT_WebhookSubscribe, EPT_WebhookUnsubscribe and EPT_WebhookPerformList",
  request: {
    params: z.object({ project: text("the name of a project").openapi({ param: { name: "project", in: "path" } }) }),
    query: z.object({
      c: text("the code of an entry point")
        .optional()
        .openapi({ enum: Object.keys(handlers) }),
    }),
    body: {
      required: true,
      content: {
        "application/json": {
          schema: {
            type: "object",
            properties: { event: { type: "string" }, hookUrl: { type: "string" }, codeWebhookSubscription: { type: "string" } },
          },
        },
      },
    },
  },
  responses: { 200: json("What weavy answers.", z.object({ result: z.unknown() })), ...problems },
});

// weavy's own pages write EntryPoints and entrypoints, with and without the slash at the end.
const otherPaths = [
  "/v1/EntryPoints/{project}/process",
  "/v1/entrypoints/{project}/process/",
  "/v1/entrypoints/{project}/process",
] as const;

export function addEntryPointRoutes(api: Api, services: Services): void {
  const routes = [route, ...otherPaths.map((path) => createRoute({ ...route, path, hide: true }))];
  for (const each of routes) {
    api.openapi(each, async (c) => {
      const { c: code } = c.req.valid("query");
      const handler = code === undefined || !Object.hasOwn(handlers, code) ? undefined : handlers[code as keyof typeof handlers];
      if (handler === undefined) throw unknownEntryPoint(code);
      const project = projectOf(c.get("principal"), c.req.valid("param").project) ?? c.req.valid("param").project;
      const text = await c.req.text();
      const body: unknown = text === "" ? {} : JSON.parse(text);
      return c.json({ result: await handler(services, project, body, c.get("principal")) }, 200);
    });
  }
}

function unknownEntryPoint(code: string | undefined): Error {
  const codes = Object.keys(handlers);
  const meant = code === undefined ? undefined : nearestName(code, codes);
  return refusal({
    code: "unknown-entry-point",
    detail: `expected one of ${codes.join(", ")} in c, got ${code === undefined ? "none" : JSON.stringify(code)}.`,
    hint: meant === undefined ? "Put one of them into the query: ?c=EPT_WebhookSubscribe." : `Did you mean ?c=${meant}?`,
  });
}

/** Reads the named fields, each a text that is not empty. */
function readTexts<const Name extends string>(body: unknown, names: readonly Name[]): Record<Name, string> {
  const fields: Readonly<Record<string, unknown>> = typeof body === "object" && body !== null ? { ...body } : {};
  const faults: Fault[] = [];
  const entries = names.map((name) => {
    const value = fields[name];
    if (typeof value === "string" && value !== "" && isStorable(value)) return [name, value] as const;
    faults.push({ pointer: `/${name}`, detail: `expected a text, got ${value === undefined ? "none" : JSON.stringify(value)}` });
    return [name, ""] as const;
  });
  if (faults.length > 0) throw invalid(faults);
  return Object.fromEntries(entries) as Record<Name, string>;
}

/** The service speaks of `url`; the caller sent `hookUrl`. */
function inWeavysWords(fault: Fault): Fault {
  return fault.pointer === "/url" ? { ...fault, pointer: "/hookUrl" } : fault;
}
