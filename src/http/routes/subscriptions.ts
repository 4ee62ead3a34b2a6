import { z } from "@hono/zod-openapi";
import type { NewSubscription, SubscriptionPatch } from "../../subscription/subscription.ts";
import { checkUrl, isStorable, unstorable } from "../../subscription/check-subscription.ts";
import { actorsIgnoredBy, projectOf, type Principal } from "../auth.ts";
import { readJson } from "../body.ts";
import { answerChange, noSubscription, orRefuse, subscriptionParams as params } from "../subscription-answers.ts";
import { parseIdempotencyKey } from "../idempotency-key.ts";
import { refusal } from "../problem.ts";
import { bearer, createRoute, cursor, json, listQuery, page, pageOf, problems, text, type Api, query } from "../route.ts";
import {
  createdSubscriptionSchema,
  newSubscriptionSchema,
  subscriptionPatchSchema,
  subscriptionSchema,
  viewSubscription,
} from "../schemas.ts";
import type { Services } from "../services.ts";

const tags = ["subscriptions"];
const urlFilter = z
  .string({ error: "expected a URL, once" })
  .max(2048, "expected at most 2048 characters")
  .refine(isStorable, unstorable)
  .optional();

const create = createRoute({
  method: "post",
  path: "/v1/subscriptions",
  tags,
  security: bearer,
  summary: "Bind events to a URL",
  description: "No request is made to the URL: the first one is the first message. The secret is shown here, and by `GET …/secret`.",
  // The body's schema is referred to rather than handed over: `checkSubscription` checks it, for the library's callers too.
  request: {
    headers: z.object({
      "idempotency-key": z.string().optional().openapi({ description: "Repeated within a day: the same subscription." }),
    }),
    body: { required: true, content: { "application/json": { schema: { $ref: "#/components/schemas/NewSubscription" } } } },
  },
  responses: {
    201: { ...json("The subscription.", createdSubscriptionSchema), headers: z.object({ Location: z.url() }) },
    ...problems,
  },
});

const list = createRoute({
  method: "get",
  path: "/v1/subscriptions",
  tags,
  security: bearer,
  summary: "List subscriptions, newest first",
  request: {
    query: query({
      ...listQuery,
      after: cursor("sub_"),
      event: text("the name of an event").optional(),
      url: urlFilter,
      target_url: urlFilter,
    }),
  },
  responses: { 200: json("A page.", page(subscriptionSchema)), ...problems },
});

const get = createRoute({
  method: "get",
  path: "/v1/subscriptions/{id}",
  tags,
  security: bearer,
  summary: "Get a subscription",
  description: "A deleted one is not found.",
  request: { params },
  responses: { 200: json("The subscription.", subscriptionSchema), ...problems },
});

const secret = createRoute({
  method: "get",
  path: "/v1/subscriptions/{id}/secret",
  tags,
  security: bearer,
  summary: "Get the secret of a subscription",
  description: "What its receiver verifies signatures with. A deleted one is not found.",
  request: { params },
  responses: { 200: json("The secret that signs now.", z.object({ secret: z.string() }).openapi("Secret")), ...problems },
});

const update = createRoute({
  method: "patch",
  path: "/v1/subscriptions/{id}",
  tags,
  security: bearer,
  summary: "Change a subscription",
  description:
    "A merge patch. What is committed from then on is matched by the new events and filter; all else counts once this is answered.",
  request: {
    params,
    body: {
      required: true,
      content: {
        "application/merge-patch+json": { schema: { $ref: "#/components/schemas/SubscriptionPatch" } },
        "application/json": { schema: { $ref: "#/components/schemas/SubscriptionPatch" } },
      },
    },
  },
  responses: { 200: json("The subscription.", subscriptionSchema), ...problems },
});

const remove = createRoute({
  method: "delete",
  path: "/v1/subscriptions/{id}",
  tags,
  security: bearer,
  summary: "Delete a subscription",
  description: "Once this is answered, no request to the URL begins. Answers the same for one that was deleted before.",
  request: { params },
  responses: { 200: json("The subscription, deleted.", subscriptionSchema), ...problems },
});

export function addSubscriptionRoutes(api: Api, services: Services): void {
  const { subscriptions } = services;
  api.openAPIRegistry.register("NewSubscription", newSubscriptionSchema);
  api.openAPIRegistry.register("SubscriptionPatch", subscriptionPatchSchema);

  api.openapi(create, async (c) => {
    const key = parseIdempotencyKey(c.req.header("idempotency-key"));
    const { subscription, secret } = await createFor(services, c.get("principal"), await readJson(c), key);
    const location = new URL(`v1/subscriptions/${subscription.id}`, baseUrl(services.publicUrl, c.req.url));
    return c.json({ ...viewSubscription(subscription), secret }, 201, { Location: location.href });
  });

  api.openapi(list, async (c) => {
    const { project, after, limit, event, url, target_url } = c.req.valid("query");
    const rows = await subscriptions.list({
      project: projectOf(c.get("principal"), project),
      event,
      url: normalizeUrl(url ?? target_url),
      after,
      limit: limit + 1,
    });
    return c.json(
      pageOf(rows, limit, (row) => row.id, viewSubscription),
      200,
    );
  });

  api.openapi(get, async (c) => {
    const { id } = c.req.valid("param");
    const row = await subscriptions.get(id, c.get("principal").project);
    if (row === undefined) throw refusal(noSubscription(id));
    return c.json(viewSubscription(row), 200);
  });

  api.openapi(secret, async (c) => {
    const { id } = c.req.valid("param");
    const found = await subscriptions.secret(id, c.get("principal").project);
    if (found === undefined) throw refusal(noSubscription(id));
    return c.json({ secret: found }, 200);
  });

  api.openapi(update, async (c) => {
    const { id } = c.req.valid("param");
    const patch = (await readJson(c)) as SubscriptionPatch;
    const row = await answerChange(id, () => subscriptions.update(id, patch, c.get("principal").project));
    return c.json(viewSubscription(row), 200);
  });

  api.openapi(remove, async (c) => {
    const { id } = c.req.valid("param");
    const row = await subscriptions.delete(id, c.get("principal").project);
    if (row === undefined) throw refusal(noSubscription(id));
    return c.json(viewSubscription(row), 200);
  });
}

/** Creates a subscription for whoever asks; what is wrong with the input becomes a problem. */
async function createFor(services: Services, principal: Principal, input: unknown, idempotencyKey: string | undefined) {
  const named = isObject(input) && typeof input["project"] === "string" ? input["project"] : undefined;
  const project = projectOf(principal, named);
  // Only objects can have a project put into them: what else was sent is refused by the service, which says what it got.
  const asked = (
    isObject(input) ? { ...actorsIgnoredBy(principal), ...input, ...(project === undefined ? {} : { project }) } : input
  ) as NewSubscription;
  return await orRefuse(() => services.subscriptions.create(asked, { idempotencyKey }));
}

/** A URL is stored normalised; a filter that is none matches nothing rather than everything. */
function normalizeUrl(url: string | undefined): string | undefined {
  if (url === undefined) return undefined;
  const checked = checkUrl(url, { allowHttp: true });
  return "href" in checked ? checked.href : url;
}

/** What links are resolved against: with a slash at the end, so that a path in the public URL stays. */
export function baseUrl(publicUrl: string | undefined, requestUrl: string): string {
  const base = publicUrl ?? new URL(requestUrl).origin;
  return base.endsWith("/") ? base : `${base}/`;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
