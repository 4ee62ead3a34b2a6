import { z } from "@hono/zod-openapi";
import { AncrageError, sqlStateOf } from "../../errors.ts";
import type { Explanation } from "../../explain.ts";
import type { CatalogueEvent } from "../../event/catalogue.ts";
import { isOperationalEvent } from "../../event/operational.ts";
import { readMessage } from "../../store/messages.ts";
import { describeUnknownEvent } from "../../subscription/check-subscription.ts";
import { projectOf } from "../auth.ts";
import { refusal } from "../problem.ts";
import { bearer, createRoute, json, limit, listQuery, page, pageOf, problems, text, type Api, query, invalid } from "../route.ts";
import { eventSchema, explanationSchema, formatSchema, messageSchema, newTriggerSchema, triggerSchema } from "../schemas.ts";
import type { SampleOptions, Services, Triggered } from "../services.ts";
import { viewMessage } from "./messages.ts";

const tags = ["events"];
const params = z.object({ name: text("the name of an event").openapi({ param: { name: "name", in: "path" } }) });
const project = listQuery.project;

/** A caller may wait as long as a proxy in between commonly lets it: less than 30 s. */
const mostWaitSeconds = 25;

const list = createRoute({
  method: "get",
  path: "/v1/events",
  tags,
  security: bearer,
  summary: "List events, by name",
  request: { query: query({ after: listQuery.after, limit: limit(200, 1000) }) },
  responses: { 200: json("A page.", page(eventSchema)), ...problems },
});

const get = createRoute({
  method: "get",
  path: "/v1/events/{name}",
  tags,
  security: bearer,
  summary: "Get an event with its schema",
  request: { params },
  responses: { 200: json("The event.", eventSchema), ...problems },
});

const samples = createRoute({
  method: "get",
  path: "/v1/events/{name}/samples",
  tags,
  security: bearer,
  summary: "Samples: recent records, as a delivery sends them",
  description:
    "A bare array, newest first. Where there is no record: the newest messages, else the event's example, else what its JSON Schema describes. Where its code fails for all records: a problem, sample-none.",
  request: {
    params,
    query: query({ project, limit: limit(3, 100), format: formatSchema.optional().openapi({ default: "standard" }) }),
  },
  responses: { 200: json("The bodies.", z.array(z.unknown())), ...problems },
});

const explain = createRoute({
  method: "get",
  path: "/v1/events/{name}/explain",
  tags,
  security: bearer,
  summary: "Would it happen for this record, who would receive it, and why not",
  request: { params, query: query({ project, key: text("the key of a record in key") }) },
  responses: { 200: json("What was found.", explanationSchema), ...problems },
});

const trigger = createRoute({
  method: "post",
  path: "/v1/events/{name}/trigger",
  tags,
  security: bearer,
  summary: "Make an event happen for a record",
  description: "With `Prefer: wait=5` it waits, for at most that many seconds, until the message is in the journal, and answers with it.",
  request: {
    params,
    query: query({ project }),
    headers: z.object({ prefer: z.string().optional() }),
    body: { required: true, content: { "application/json": { schema: newTriggerSchema } } },
  },
  responses: {
    200: json("The message; only with `Prefer: wait`.", messageSchema),
    202: json("It happened, if not yet seen.", triggerSchema),
    ...problems,
  },
});

export function addEventRoutes(api: Api, services: Services): void {
  const eventOf = (name: string): CatalogueEvent => {
    const { events } = services.catalogue();
    const event = events.get(name);
    if (event !== undefined) return event;
    const detail = describeUnknownEvent(name, events.keys());
    throw refusal({ code: "unknown-event", detail: detail.endsWith("?") ? detail : `${detail}.` });
  };

  api.openapi(list, (c) => {
    const { after, limit } = c.req.valid("query");
    const events = [...services.catalogue().events.values()]
      .filter((event) => after === undefined || event.name > after)
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
    return c.json(
      pageOf(events, limit, (event) => event.name, viewEvent),
      200,
    );
  });

  api.openapi(get, (c) => c.json(viewEvent(eventOf(c.req.valid("param").name)), 200));

  api.openapi(samples, async (c) => {
    const { name } = eventOf(c.req.valid("param").name);
    const { project, limit, format = "standard" } = c.req.valid("query");
    return c.json([...(await readSamples(services, name, { project: projectOf(c.get("principal"), project), limit, format }))], 200);
  });

  api.openapi(explain, async (c) => {
    const { name } = eventOf(c.req.valid("param").name);
    const { project, key } = c.req.valid("query");
    return c.json(viewExplanation(await services.explain(name, { key, project: projectOf(c.get("principal"), project) })), 200);
  });

  api.openapi(trigger, async (c) => {
    const { name } = eventOf(c.req.valid("param").name);
    if (isOperationalEvent(name)) throw invalid([{ pointer: "{name}", detail: `expected an event of a file, got ${name}, Ancrage's own` }]);
    const project = projectOf(c.get("principal"), c.req.valid("query").project);
    const { key, data } = c.req.valid("json");
    const waitSeconds = parseWait(c.req.valid("header").prefer);
    const waitMs = waitSeconds === undefined ? undefined : waitSeconds * 1000;
    const triggered = await orInvalid(() => services.trigger(name, { key: String(key), data, project, waitMs }));
    if (triggered === undefined) {
      throw refusal({
        code: "not-found",
        detail: `there is no record ${JSON.stringify(String(key))} for ${name} in project ${JSON.stringify(project)}.`,
      });
    }
    if (waitSeconds === undefined) return c.json({ trigger: triggered.id }, 202);
    c.header("preference-applied", `wait=${waitSeconds}`);
    const { outcome } = triggered;
    if (outcome.kind !== "message") return c.json({ trigger: triggered.id, ...viewOutcome(outcome) }, 202);
    const message = await readMessage(services.db, outcome.messageId, project);
    if (message === undefined) throw new Error(`expected message ${outcome.messageId} in the journal, since it was reported as journaled`);
    return c.json(viewMessage(message), 200);
  });
}

/** What `ancrage.trigger` itself refuses: a number such as 1e1000 is short in the body, and long as PostgreSQL writes it. */
async function orInvalid<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (sqlStateOf(error) !== "22023") throw error;
    throw invalid([{ pointer: "/data", detail: (error as Error).message }]);
  }
}

/**
 * The samples, or a problem that says what the event's code did wrong: that is its author's to mend, not a fault of ours.
 *
 * @throws a problem `sample-none`
 */
export async function readSamples(services: Services, event: string, options: SampleOptions): Promise<readonly unknown[]> {
  try {
    return await services.samples(event, options);
  } catch (error) {
    if (!(error instanceof AncrageError) || error.code !== "ANCRAGE_SAMPLE_NONE") throw error;
    throw refusal({ code: "sample-none", detail: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) });
  }
}

function viewEvent({ name, definition, table, rules, jsonSchema }: CatalogueEvent) {
  return {
    name,
    description: definition.description ?? "",
    table: table?.name ?? null,
    on: rules.map((rule) => (rule.kind === "update-columns" ? { update: [...rule.columns] } : rule.kind)),
    schema: jsonSchema ?? null,
    example: definition.example ?? null,
  };
}

/** Field by field: what is not in the schema does not leave. */
function viewExplanation(explanation: Explanation): z.infer<typeof explanationSchema> {
  const { event, file, key, table, project, fires, isFound, where, isParked, payload, rejection } = explanation;
  return {
    event,
    file,
    key,
    table,
    project,
    fires,
    isFound,
    where,
    rules: explanation.rules.map(({ columns, ...rule }) => ({ ...rule, ...(columns === undefined ? {} : { columns: [...columns] }) })),
    trackingFiles: [...explanation.trackingFiles],
    isParked,
    payload,
    rejection,
    subscriptions: [...explanation.subscriptions],
    findings: [...explanation.findings],
  };
}

function viewOutcome(outcome: Exclude<Triggered["outcome"], { readonly kind: "message" }>) {
  return outcome.kind === "rejected" ? { outcome: outcome.kind, rejectionId: outcome.rejectionId } : { outcome: outcome.kind };
}

/** The seconds of `Prefer: wait=5` (RFC 7240), at most 25. What cannot be read is ignored, as that RFC asks. */
export function parseWait(prefer: string | undefined): number | undefined {
  const seconds = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,4})"?\s*(?:$|[,;])/i.exec(prefer ?? "")?.[1];
  return seconds === undefined ? undefined : Math.min(Number(seconds), mostWaitSeconds);
}
