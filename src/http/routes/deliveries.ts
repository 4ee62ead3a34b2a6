import { z } from "@hono/zod-openapi";
import type { JobInput } from "../../job/input.ts";
import { search } from "../../search.ts";
import {
  listAttempts,
  listDeliveries,
  readDelivery,
  type FoundAttempt,
  type DeliveryKey,
  type FoundDelivery,
} from "../../store/deliveries.ts";
import { projectOf } from "../auth.ts";
import { readPageCursor } from "../page-cursor.ts";
import { notFound, refusal } from "../problem.ts";
import {
  bearer,
  createRoute,
  invalid,
  json,
  listQuery,
  page,
  problems,
  rangeOf,
  rangeQuery,
  text,
  time,
  type Api,
  query,
} from "../route.ts";
import { countSchema, deliverySchema, deliveryStates, jobSchema, type AttemptView } from "../schemas.ts";
import type { Services } from "../services.ts";
import { count, lastDays, locationOf, made, refusing, viewJob } from "./jobs.ts";

const tags = ["deliveries"];

const list = createRoute({
  method: "get",
  path: "/v1/deliveries",
  tags,
  security: bearer,
  summary: "List deliveries, those of the newest messages first",
  description: "A delivery that has been in memory for less than a second may not be in the list yet.",
  request: {
    query: query({
      ...listQuery,
      ...rangeQuery,
      event: text("the name of an event").optional(),
      state: z.enum(deliveryStates, { error: `expected one of ${deliveryStates.join(", ")}` }).optional(),
      messageId: text("the id of a message").optional(),
      subscriptionId: text("the id of a subscription").optional(),
      jobId: text("the id of a job").optional(),
    }),
  },
  responses: { 200: json("A page.", page(deliverySchema)), ...problems },
});

const get = createRoute({
  method: "get",
  path: "/v1/deliveries/{id}",
  tags,
  security: bearer,
  summary: "Get a delivery with the answers to its attempts",
  request: { params: z.object({ id: text("the id of a delivery").openapi({ param: { name: "id", in: "path" } }) }) },
  responses: { 200: json("The delivery.", deliverySchema), ...problems },
});

const resend = createRoute({
  method: "post",
  path: "/v1/deliveries/{id}/resend",
  tags,
  security: bearer,
  summary: "Send one delivery again, with the same id and bytes",
  description: "One that is over: delivered, exhausted or canceled. It begins another round, with all attempts of the schedule.",
  request: { params: get.request.params },
  responses: { 200: json("The delivery, pending.", deliverySchema), ...problems },
});

const cancelSchema = z
  .strictObject({
    subscriptionId: text("the id of a subscription").optional(),
    event: text("the name of an event").optional(),
    from: time.optional().openapi({ description: "Default: 30 days before to." }),
    to: time.optional().openapi({ description: "Default: now." }),
    dryRun: z.boolean({ error: "expected true or false" }).optional().openapi({ description: "Only count what it would end." }),
    project: text("the name of a project").optional().openapi({ description: "Only for tokens of all projects." }),
  })
  .refine((asked) => asked.subscriptionId !== undefined || asked.event !== undefined, "expected subscriptionId, event, or both")
  .openapi("Cancel");

const cancel = createRoute({
  method: "post",
  path: "/v1/deliveries/cancel",
  tags,
  security: bearer,
  summary: "End deliveries that are not over",
  description:
    "Of a subscription, an event, or both, whose messages were committed in a range of time. With dryRun it only counts; else it is a job.",
  request: { body: { required: true, content: { "application/json": { schema: cancelSchema } } } },
  responses: {
    200: json("How many it would end; only with dryRun.", countSchema),
    201: { ...json("The job that ends them.", jobSchema), headers: z.object({ Location: z.url() }) },
    ...problems,
  },
});

export function addDeliveryRoutes(api: Api, services: Services): void {
  const { db } = services;

  api.openapi(list, async (c) => {
    const { project, after: given, limit, event, state, messageId, subscriptionId, jobId, ...range } = c.req.valid("query");
    const principal = c.get("principal");
    const cursor = readPageCursor("deliveries", given, principal, services.cursorKey);
    const filter = {
      project: projectOf(principal, project),
      event,
      state,
      messageId,
      subscriptionId,
      jobId,
      range: rangeOf(range, Date.now()),
    };
    const { rows, next } = await search<FoundDelivery, DeliveryKey>({
      after: cursor.after === undefined ? undefined : placeOf(cursor.after),
      limit,
      look: ({ after, ...bounds }) => listDeliveries(db, { ...filter, after }, bounds),
      placeOf: (row) => row,
    });
    const attempts = Map.groupBy(await listAttempts(db, rows, false), formatDeliveryId);
    const data = rows.map((row) => viewDelivery(row, attempts.get(formatDeliveryId(row)) ?? []));
    return c.json({ data, next: cursor.next(next === undefined ? undefined : formatDeliveryId(next)) }, 200);
  });

  api.openapi(get, async (c) => {
    const { id } = c.req.valid("param");
    const key = parseDeliveryId(id);
    const row = key === undefined ? undefined : await readDelivery(db, key, c.get("principal").project);
    if (row === undefined) throw refusal(notFound(`there is no delivery ${JSON.stringify(id)}.`));
    return c.json(viewDelivery(row, await listAttempts(db, [row], true)), 200);
  });

  api.openapi(resend, async (c) => {
    const { id } = c.req.valid("param");
    const key = parseDeliveryId(id);
    const row = key === undefined ? undefined : await refusing(() => services.jobs.resend(key, c.get("principal").project));
    if (row === undefined) throw refusal(notFound(`there is no delivery ${JSON.stringify(id)}.`));
    return c.json(viewDelivery(row, await listAttempts(db, [row], true)), 200);
  });

  api.openapi(cancel, async (c) => {
    const { subscriptionId, event, from, to, dryRun, project } = c.req.valid("json");
    const range = lastDays(from, to ?? new Date().toISOString());
    const input: JobInput = { kind: "cancel", ...range, ...(event === undefined ? {} : { event }) };
    const request = { project: projectOf(c.get("principal"), project), subscriptionId, input };
    if (dryRun === true) return c.json(await count(services, request), 200);
    const job = await made(services, request);
    return c.json(viewJob({ job }, c.get("principal")), 201, { Location: locationOf(services, c.req.url, job) });
  });
}

/** `dlv_`, the message's id and the subscription's, without their prefixes: a delivery has no column for an id of its own. */
export function formatDeliveryId({ messageId, subscriptionId }: DeliveryKey): string {
  return `dlv_${messageId.slice("msg_".length)}_${subscriptionId.slice("sub_".length)}`;
}

export function parseDeliveryId(id: string): DeliveryKey | undefined {
  // Both ids are Crockford's base 32, which has no underscore.
  const [, message, subscription] = /^dlv_([0-9A-Z]{1,60})_([0-9A-Z]{1,60})$/.exec(id) ?? [];
  if (message === undefined || subscription === undefined) return undefined;
  return { messageId: `msg_${message}`, subscriptionId: `sub_${subscription}` };
}

function placeOf(after: string): DeliveryKey {
  const key = parseDeliveryId(after);
  if (key === undefined)
    throw invalid([{ pointer: "?after", detail: `expected the next of the page before, got ${JSON.stringify(after)}` }]);
  return key;
}

function viewDelivery(row: FoundDelivery, attempts: readonly FoundAttempt[]) {
  return {
    id: formatDeliveryId(row),
    project: row.project,
    messageId: row.messageId,
    subscriptionId: row.subscriptionId,
    event: row.event,
    key: row.key,
    jobId: row.jobId,
    state: row.state,
    attempts: [...attempts.map(viewAttempt), ...successOf(row, attempts)],
    nextAttemptAt: row.nextAttemptAt?.toISOString() ?? null,
  };
}

function viewAttempt(row: FoundAttempt): AttemptView {
  return {
    round: row.round,
    number: row.number,
    at: row.at.toISOString(),
    status: row.status,
    // A manual attempt that was taken has a row too; its reason says so, and is none for a reader.
    reason: isSuccess(row) ? null : row.reason,
    durationMs: row.durationMs,
    response: row.response?.toString() ?? null,
  };
}

/** The attempt that a delivered row itself tells of: a success by schedule is not written a second time. */
function successOf(row: FoundDelivery, attempts: readonly FoundAttempt[]): readonly AttemptView[] {
  if (row.state !== "delivered") return [];
  if (attempts.some((attempt) => attempt.round === row.round && attempt.number === row.attempts && !attempt.isLate)) return [];
  return [
    {
      round: row.round,
      number: row.attempts,
      at: new Date(row.updatedAt.getTime() - (row.durationMs ?? 0)).toISOString(),
      status: row.lastStatus,
      reason: null,
      durationMs: row.durationMs,
      response: null,
    },
  ];
}

function isSuccess({ status }: FoundAttempt): boolean {
  return status !== null && status >= 200 && status < 300;
}
