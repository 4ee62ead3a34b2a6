import { createRoute, z } from "@hono/zod-openapi";
import type { Rotation } from "../../subscription/rotate.ts";
import type { SubscriptionService } from "../../subscription/subscription.ts";
import { bearer, json, problems, type Api } from "../route.ts";
import { createdSubscriptionSchema, subscriptionSchema, viewSubscription } from "../schemas.ts";
import type { Services } from "../services.ts";
import { answerChange, subscriptionParams as params } from "../subscription-answers.ts";

const tags = ["subscriptions"];

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

/** For the document only: `checkRotation` checks. */
const rotationSchema = z
  .strictObject({
    graceHours: z.number().min(0).max(168).optional().openapi({ default: 24 }),
    secret: z.string().optional().openapi({ description: "whsec_ and the base64 of 24 to 64 bytes. Default: new random bytes." }),
  })
  .openapi("Rotation");

export function addSubscriptionCommandRoutes(api: Api, { subscriptions }: Pick<Services, "subscriptions">): void {
  api.openAPIRegistry.register("Rotation", rotationSchema);

  for (const [name, route] of Object.entries(commands)) {
    const run = subscriptions[name as keyof typeof commands] satisfies SubscriptionService["pause"];
    api.openapi(route, async (c) => {
      const { id } = c.req.valid("param");
      const row = await answerChange(id, () => run(id, c.get("principal").project));
      return c.json(viewSubscription(row), 200);
    });
  }

  api.openapi(rotate, async (c) => {
    const { id } = c.req.valid("param");
    // No body at all is the commonest: the middleware has checked what there is.
    const body = await c.req.text();
    const rotation = (body === "" ? {} : JSON.parse(body)) as Rotation;
    const { subscription, secret } = await answerChange(id, () => subscriptions.rotateSecret(id, rotation, c.get("principal").project));
    return c.json({ ...viewSubscription(subscription), secret }, 200);
  });
}
