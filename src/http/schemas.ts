import { z } from "@hono/zod-openapi";
import { isStorable, unstorable } from "../subscription/check-subscription.ts";
import { subscriptionFormats, subscriptionOrders, type SubscriptionRow } from "../store/subscriptions.ts";
import { hiddenValue } from "../subscription/headers.ts";
import { jobKinds, jobStates } from "../store/jobs.ts";

/** The objects of the API, for its types and its OpenAPI document. Times are ISO 8601 with `Z`. */

const time = z.iso.datetime();

const fault = z.object({
  pointer: z.string().openapi({ description: "Where: a JSON pointer into the body; ?name for a parameter of the query." }),
  detail: z.string(),
});

export const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    code: z.string(),
    detail: z.string(),
    hint: z.string().optional(),
    errors: z.array(fault).optional(),
  })
  .openapi("Problem");

export const formatSchema = z.enum(subscriptionFormats, { error: `expected one of ${subscriptionFormats.join(", ")}` });

const scalarSchema = z.union([z.string(), z.number(), z.boolean(), z.null()]);

const filterSchema = z
  .record(
    z.string(),
    z.union([
      scalarSchema,
      z.array(scalarSchema).min(1).max(100),
      z.strictObject({
        eq: scalarSchema.optional(),
        ne: scalarSchema.optional(),
        gt: z.union([z.string(), z.number()]).optional(),
        gte: z.union([z.string(), z.number()]).optional(),
        lt: z.union([z.string(), z.number()]).optional(),
        lte: z.union([z.string(), z.number()]).optional(),
        in: z.array(scalarSchema).min(1).max(100).optional(),
        exists: z.boolean().optional(),
      }),
    ]),
  )
  .openapi({ description: "Paths into the payload, and what must stand there; all must hold.", example: { amount: { gte: 1000 } } });

const limitsSchema = z.strictObject({
  inFlight: z.int().min(1).max(64).optional().openapi({ description: "Requests at a time." }),
  perSecond: z.number().min(0.01).max(10_000).optional().openapi({ description: "Requests that begin in a second." }),
});

const settableFields = {
  filter: filterSchema.nullable().optional().openapi({ description: "Null: every payload." }),
  headers: z.record(z.string(), z.string()).optional().openapi({ description: "Sent with every request. Values are never shown." }),
  order: z.enum(subscriptionOrders).optional().openapi({ default: "none" }),
  limits: limitsSchema.optional(),
  ignoredActors: z
    .array(z.string().min(1).max(256))
    .max(20)
    .optional()
    .openapi({ description: "Changes that they made, as ancrage.actor says, are not sent." }),
  expiresAt: time.nullable().optional().openapi({ description: "From then on nothing is sent." }),
};

/** For the document only: `checkSubscription` checks, since it explains better and the library's callers need it too. */
export const newSubscriptionSchema = z
  .strictObject({
    event: z.string().optional().openapi({ description: "The event. Either this or events is needed." }),
    events: z.array(z.string()).min(1).max(100).optional(),
    url: z.url().max(2048).optional().openapi({ description: "Where to send. Either this or target_url is needed." }),
    target_url: z.url().max(2048).optional().openapi({ description: "The same as url, as REST-hook clients name it." }),
    subscription_url: z
      .url()
      .max(2048)
      .optional()
      .openapi({ description: "The same as url, as old REST-hook clients name it.", deprecated: true }),
    description: z.string().max(1000).optional(),
    format: formatSchema.optional().openapi({ default: "standard" }),
    ...settableFields,
    metadata: z.record(z.string(), z.unknown()).optional().openapi({ description: "Anything; at most 8,192 characters of JSON." }),
    project: z.string().min(1).max(200).optional().openapi({ description: "Only for tokens of all projects.", default: "default" }),
    secret: z.string().optional().openapi({ description: "whsec_ and the base64 of 24 to 64 bytes. Default: new random bytes." }),
  })
  .openapi("NewSubscription");

/** For the document only, as `newSubscriptionSchema`: `checkSubscriptionPatch` checks. */
export const subscriptionPatchSchema = newSubscriptionSchema
  .omit({ project: true, secret: true })
  .openapi("SubscriptionPatch", { description: "A merge patch (RFC 7396): null sets a field to its default." });

export const subscriptionSchema = z
  .object({
    id: z.string().openapi({ example: "sub_01K9ZQ4W7M3V2C8H5T6R0XNBEP" }),
    project: z.string(),
    events: z.array(z.string()),
    url: z.string(),
    description: z.string(),
    format: formatSchema,
    filter: filterSchema.nullable(),
    headers: z.record(z.string(), z.string()).openapi({ description: "Names; every value is hidden." }),
    order: z.enum(subscriptionOrders),
    limits: limitsSchema,
    ignoredActors: z.array(z.string()),
    metadata: z.record(z.string(), z.unknown()),
    expiresAt: time.nullable(),
    state: z.enum(["enabled", "paused", "disabled", "deleted"]),
    stateReason: z.string().nullable().openapi({ description: "Why it is disabled: gone, asked, failing or expired." }),
    createdAt: time,
  })
  .openapi("Subscription");

export const createdSubscriptionSchema = subscriptionSchema
  .extend({ secret: z.string().openapi({ description: "whsec_…; no other answer shows it." }) })
  .openapi("CreatedSubscription");

export const eventSchema = z
  .object({
    name: z.string(),
    description: z.string(),
    table: z.string().nullable(),
    on: z.array(z.union([z.string(), z.object({ update: z.array(z.string()) })])).openapi({
      description: "When it happens by itself; empty where it is only triggered.",
    }),
    schema: z.unknown().openapi({ description: "The JSON Schema of the payload; null where the event has none." }),
    example: z.unknown().openapi({ description: "The event's own example; null where it has none." }),
  })
  .openapi("Event");

export const explanationSchema = z
  .object({
    event: z.string(),
    file: z.string(),
    key: z.string(),
    table: z.string().nullable().openapi({ description: "Null for an event without a table." }),
    project: z.string().nullable().openapi({ description: "Whose record it is; null where there is none, or it cannot be told." }),
    fires: z.boolean().openapi({ description: "Whether it would be sent: a rule or a trigger that may apply, and a payload." }),
    isFound: z.boolean().nullable().openapi({ description: "Whether the record is there; null for an event without a table." }),
    where: z
      .object({ holds: z.boolean(), error: z.string().optional() })
      .nullable()
      .openapi({ description: "Null where there is no where, or no record." }),
    rules: z.array(z.object({ kind: z.string(), columns: z.array(z.string()).optional(), mayHappen: z.boolean(), words: z.string() })),
    trackingFiles: z.array(z.string()).openapi({ description: "Files that watch the table and may trigger it." }),
    isParked: z.boolean(),
    payload: z.unknown().openapi({ description: "What would be sent; null where nothing would." }),
    rejection: z.object({ reason: z.string(), error: z.string() }).nullable().openapi({ description: "The rejection that it would be." }),
    subscriptions: z.array(z.object({ id: z.string(), url: z.string(), receives: z.boolean(), reason: z.string().nullable() })),
    findings: z.array(z.string()).openapi({ description: "All of it for a person, one sentence each." }),
  })
  .openapi("Explanation");

const keyWords = "expected the key of a record: a text of 1 to 1024 characters, or a whole number";

export const newTriggerSchema = z
  .strictObject(
    {
      key: z.union([z.string().min(1, keyWords).max(1024, keyWords).refine(isStorable, unstorable), z.int()], { error: keyWords }),
      data: z.unknown().refine(isStorable, unstorable).optional().openapi({ description: "Handed to the payload function as data." }),
    },
    {
      error: ({ code }) =>
        code === "invalid_type" ? "expected an object" : code === "unrecognized_keys" ? "unknown; expected one of key, data" : undefined,
    },
  )
  .openapi("NewTrigger");

export const triggerSchema = z
  .object({
    trigger: z.uuid(),
    outcome: z.enum(["pending", "rejected", "nothing"]).optional().openapi({ description: "Only with Prefer: wait." }),
    rejectionId: z.string().optional(),
  })
  .openapi("Trigger");

export const messageSchema = z
  .object({
    id: z.string(),
    project: z.string(),
    event: z.string(),
    key: z.string(),
    committedAt: time,
    payload: z.unknown(),
  })
  .openapi("Message");

const attemptSchema = z
  .object({
    round: z.int().openapi({ description: "One more for each time it was sent again by hand." }),
    number: z.int(),
    at: time,
    status: z.int().nullable(),
    reason: z.string().nullable().openapi({ description: "Why it failed; null where it was delivered." }),
    durationMs: z.int().nullable(),
    response: z
      .string()
      .nullable()
      .openapi({ description: "The answer's first bytes, read as UTF-8. Only where one delivery is asked for." }),
  })
  .openapi("Attempt");

export type AttemptView = z.infer<typeof attemptSchema>;

export const deliveryStates = ["pending", "retrying", "delivered", "exhausted", "canceled"] as const;

export const deliverySchema = z
  .object({
    id: z.string(),
    project: z.string(),
    messageId: z.string(),
    subscriptionId: z.string(),
    event: z.string().nullable().openapi({ description: "Null where the message is no longer kept." }),
    key: z.string().nullable(),
    jobId: z.string().nullable().openapi({ description: "The job that made it, or its present round." }),
    state: z.enum(deliveryStates),
    attempts: z.array(attemptSchema),
    nextAttemptAt: time.nullable(),
  })
  .openapi("Delivery");

export const rejectionSchema = z
  .object({
    id: z.string(),
    project: z.string(),
    event: z.string(),
    key: z.string(),
    committedAt: time,
    reason: z.string(),
    error: z.string(),
  })
  .openapi("Rejection");

export const retriedSchema = z
  .object({
    outcome: z.enum(["messages", "nothing", "rejected"]),
    messageIds: z.array(z.string()).optional(),
    reason: z.string().optional(),
    error: z.string().optional(),
  })
  .openapi("Retried");

export const jobSchema = z
  .object({
    id: z.string(),
    project: z.string().nullable().openapi({ description: "Null: of all projects." }),
    kind: z.enum(jobKinds),
    subscriptionId: z.string().nullable(),
    input: z.record(z.string(), z.unknown()).openapi({ description: "What it was asked for." }),
    state: z.enum(jobStates),
    total: z.int().nullable().openapi({ description: "How much there is to do; null where that is more than was counted." }),
    done: z.int().openapi({ description: "Of these: messages, records, deliveries or rejections that it has dealt with." }),
    failed: z.int().openapi({ description: "Of those that are done: what became, or stayed, a rejection." }),
    unfinished: z
      .int()
      .optional()
      .openapi({ description: "Deliveries that it made and that are not over, counted up to 500. Only where one job is asked for." }),
    exhausted: z
      .int()
      .optional()
      .openapi({ description: "Deliveries that it made and that no receiver took. Only where one job is asked for." }),
    error: z.string().nullable().openapi({ description: "Why it failed." }),
    createdAt: time,
    endedAt: time.nullable(),
  })
  .openapi("Job");

const tokenNameWords = "expected a name of 1 to 200 characters";

export const newTokenSchema = z
  .strictObject({
    name: z
      .string({ error: tokenNameWords })
      .min(1, tokenNameWords)
      .max(200, tokenNameWords)
      .refine(isStorable, unstorable)
      .openapi({ description: "Whose it is. Subscriptions that it creates are not told of what the actor of this name did." }),
    project: z
      .string({ error: "expected the name of a project, or null for all" })
      .min(1, "expected the name of a project, or null for all")
      .max(200, "expected at most 200 characters")
      .refine(isStorable, unstorable)
      .nullable()
      .openapi({ description: "The one project that it is for; null: all. Never left out: nobody is to get all by an oversight." }),
    expiresAt: z.iso
      .datetime({ offset: true, error: "expected a time in ISO 8601 such as 2027-01-31T00:00:00Z, or null for never" })
      .nullable()
      .optional()
      .openapi({ description: "From then on it is refused. Default: never." }),
  })
  .openapi("NewToken");

export const tokenSchema = z
  .object({
    id: z.string().openapi({ example: "tok_01K9ZQ4W7M3V2C8H5T6R0XNBEP" }),
    name: z.string(),
    project: z.string().nullable().openapi({ description: "Null: all projects." }),
    createdAt: time,
    expiresAt: time.nullable(),
    lastUsedAt: time.nullable().openapi({ description: "To the hour." }),
    revokedAt: time.nullable(),
  })
  .openapi("Token");

export const countSchema = z
  .object({
    dryRun: z.literal(true),
    total: z.int().nullable().openapi({ description: "How much it would do; null where that is more than 100,000." }),
  })
  .openapi("Count");

export const statusSchema = z
  .object({
    isReady: z.boolean(),
    problems: z.array(z.object({ code: z.string(), message: z.string(), hint: z.string().optional() })),
    details: z.record(z.string(), z.unknown()),
  })
  .openapi("Status");

export type SubscriptionView = z.infer<typeof subscriptionSchema>;

/** A subscription as the API shows it: never its secrets, and the values of its headers hidden. */
export function viewSubscription(row: SubscriptionRow): SubscriptionView {
  return {
    id: row.id,
    project: row.project,
    events: [...row.events],
    url: row.url,
    description: row.description,
    format: row.format,
    filter: row.filter as SubscriptionView["filter"],
    // Receivers' own credentials stand in these: whoever may list subscriptions need not learn them.
    headers: Object.fromEntries(Object.keys(row.headers).map((name) => [name, hiddenValue])),
    order: row.order,
    limits: { ...row.limits },
    ignoredActors: [...row.ignoredActors],
    metadata: { ...row.metadata },
    expiresAt: row.expiresAt?.toISOString() ?? null,
    state: row.state,
    stateReason: row.stateReason,
    createdAt: row.createdAt.toISOString(),
  };
}
