import { z } from "@hono/zod-openapi";
import type { Rotation } from "../../subscription/rotate.ts";
import { isObject, pointerTo, show } from "../../subscription/fault.ts";
import type { SubscriptionRow } from "../../store/subscriptions.ts";
import type { SubscriptionService } from "../../subscription/subscription.ts";
import { refusal } from "../problem.ts";
import { createRateLimit } from "../rate-limit.ts";
import { bearer, createRoute, invalid, json, problems, type Api } from "../route.ts";
import { createdSubscriptionSchema, subscriptionSchema, viewSubscription } from "../schemas.ts";
import type { Services } from "../services.ts";
import { answerChange, noSubscription, subscriptionParams as params } from "../subscription-answers.ts";

const tags = ["subscriptions"];

const testSchema = z
  .object({
    messageId: z.string(),
    event: z.string(),
    isDelivered: z.boolean(),
    status: z.int().nullable(),
    reason: z.string().nullable().openapi({ description: "Why it failed; null where it was delivered." }),
    durationMs: z.int(),
    response: z.string().nullable().openapi({
      description:
        "The answer's first bytes, read as UTF-8, or what its owner is to mend. Only for the operator and tokens of its project.",
    }),
  })
  .openapi("Test");

const command = (name: "pause" | "resume" | "enable", summary: string, description: string) =>
  createRoute({
    method: "post",
    path: `/v1/subscriptions/{id}/${name}` as const,
    tags,
    security: bearer,
    summary,
    description,
    request: { params },
    responses: { 200: json("The subscription.", subscriptionSchema), ...problems },
  });

const commands = {
  pause: command(
    "pause",
    "Pause a subscription",
    "Its messages are journaled and wait. Once this is answered, no request to the URL begins. Refused where it is disabled.",
  ),
  resume: command("resume", "Resume a paused subscription", "What waits is sent. Refused where it is disabled, or has expired."),
  enable: command(
    "enable",
    "Enable a disabled subscription",
    "What waits from before is sent; what was committed while it was disabled is not. Refused where it has expired.",
  ),
};

const rotate = createRoute({
  method: "post",
  path: "/v1/subscriptions/{id}/rotate-secret",
  tags,
  security: bearer,
  summary: "Give a subscription a new secret",
  description: "Both sign for graceHours, so that the receiver changes over when it can.",
  request: {
    params,
    body: { required: false, content: { "application/json": { schema: { $ref: "#/components/schemas/Rotation" } } } },
  },
  responses: { 200: json("The subscription, with its new secret.", createdSubscriptionSchema), ...problems },
});

const test = createRoute({
  method: "post",
  path: "/v1/subscriptions/{id}/test",
  tags,
  security: bearer,
  summary: "Send a test",
  description:
    "One signed message with a sample of the event, at once and whatever the state; it has the header ancrage-test. At most 10 a minute for a subscription, and 30 for a project.",
  request: {
    params,
    body: {
      required: false,
      content: {
        "application/json": { schema: { type: "object", properties: { event: { type: "string" } }, additionalProperties: false } },
      },
    },
  },
  responses: { 200: json("What came of it, also where it failed.", testSchema), ...problems },
});

/** For the document only: `checkRotation` checks. */
const rotationSchema = z
  .strictObject({
    graceHours: z.number().min(0).max(168).optional().openapi({ default: 24 }),
    secret: z.string().optional().openapi({ description: "whsec_ and the base64 of 24 to 64 bytes. Default: new random bytes." }),
  })
  .openapi("Rotation");

export function addSubscriptionCommandRoutes(api: Api, { subscriptions }: Pick<Services, "subscriptions">): void {
  api.openAPIRegistry.register("Rotation", rotationSchema);
  const tests = limitTests();

  for (const [name, route] of Object.entries(commands)) {
    const run = subscriptions[name as keyof typeof commands] satisfies SubscriptionService["pause"];
    api.openapi(route, async (c) => {
      const { id } = c.req.valid("param");
      const row = await answerChange(id, () => run(id, c.get("principal").project));
      return c.json(viewSubscription(row), 200);
    });
  }

  api.openapi(test, async (c) => {
    const { id } = c.req.valid("param");
    const { project, isOperator } = c.get("principal");
    const { event } = readTestBody(await c.req.text());
    const subscription = await subscriptions.get(id, project);
    if (subscription === undefined) throw refusal(noSubscription(id));
    tests.take(subscription);
    const result = await answerChange(id, () => subscriptions.test(id, { event }, project));
    // A receiver's answer may hold what its owner alone should see.
    const showsResponse = isOperator || project !== undefined;
    return c.json(
      {
        messageId: result.messageId,
        event: result.event,
        isDelivered: result.isDelivered,
        status: result.status ?? null,
        reason: result.reason ?? null,
        durationMs: result.durationMs,
        response: showsResponse ? (result.response?.toString("utf8") ?? null) : null,
      },
      200,
    );
  });

  api.openapi(rotate, async (c) => {
    const { id } = c.req.valid("param");
    // No body at all is the commonest: the middleware has checked what there is.
    const body = await c.req.text();
    const rotation = (body === "" ? {} : JSON.parse(body)) as Rotation;
    const { subscription, secret } = await answerChange(id, () => subscriptions.rotateSecret(id, rotation, c.get("principal").project));
    return c.json({ ...viewSubscription(subscription), secret }, 200);
  });
}

/**
 * A test is a request to a URL of the caller's choice, sent at once: with no bound, whoever may make subscriptions could turn this server
 * on anybody else's. Counted in this process.
 */
function limitTests() {
  const perMs = 60_000;
  const ofOne = createRateLimit({ most: 10, perMs });
  const ofProject = createRateLimit({ most: 30, perMs });
  return {
    /** @throws a problem `too-many-requests` */
    take({ id, project }: Pick<SubscriptionRow, "id" | "project">): void {
      const [one, all] = [ofOne.waitMs(id), ofProject.waitMs(project)];
      if (one > 0 || all > 0) {
        const whose = one > 0 ? `10 tests a minute for ${id}` : `30 tests a minute for the project ${JSON.stringify(project)}`;
        const seconds = Math.ceil(Math.max(one, all) / 1_000);
        throw refusal({
          code: "too-many-requests",
          detail: `expected at most ${whose}, got more.`,
          hint: `Send it again in ${seconds} s.`,
          headers: { "retry-after": String(seconds) },
        });
      }
      ofOne.note(id);
      ofProject.note(project);
    },
  };
}

/** No body at all is the commonest. */
function readTestBody(text: string): { readonly event: string | undefined } {
  const body: unknown = text === "" ? {} : JSON.parse(text);
  const event = isObject(body) ? body["event"] : body;
  const unknown = isObject(body) ? Object.keys(body).find((name) => name !== "event") : undefined;
  if (unknown !== undefined) throw invalid([{ pointer: pointerTo(unknown), detail: "unknown field; expected event" }]);
  if (!isObject(body) || (event !== undefined && typeof event !== "string")) {
    throw invalid([{ pointer: isObject(body) ? "/event" : "", detail: `expected the name of an event, got ${show(event)}` }]);
  }
  return { event };
}
