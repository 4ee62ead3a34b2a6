import { z } from "@hono/zod-openapi";
import { AncrageError } from "../../errors.ts";
import type { JobInput } from "../../job/input.ts";
import type { JobRequest, JobStatus } from "../../job/service.ts";
import { jobKinds, jobStates, type JobRow } from "../../store/jobs.ts";
import { projectOf, type Principal } from "../auth.ts";
import { notFound, refusal } from "../problem.ts";
import { bearer, createRoute, cursor, invalid, json, listQuery, page, pageOf, problems, query, text, time, type Api } from "../route.ts";
import { countSchema, jobSchema } from "../schemas.ts";
import type { Services } from "../services.ts";
import { baseUrl } from "./subscriptions.ts";

const tags = ["jobs"];
const params = z.object({ id: text("the id of a job").openapi({ param: { name: "id", in: "path" } }) });

const subscriptionId = text("the id of a subscription");
const ratePerSecond = z
  .int({ error: "expected a whole number from 1 to 10000" })
  .min(1, "expected a whole number from 1 to 10000")
  .max(10_000, "expected a whole number from 1 to 10000")
  .optional()
  .openapi({ description: "Deliveries a second. Default: as fast as the receiver takes them, at most 500 unfinished at a time." });
const dryRun = z.boolean({ error: "expected true or false" }).optional().openapi({ description: "Only count what it would do." });
const project = text("the name of a project").optional().openapi({ description: "Only for tokens of all projects." });

const newJobSchema = z
  .discriminatedUnion(
    "kind",
    [
      z.strictObject({ kind: z.literal("recover"), subscriptionId, since: time, ratePerSecond, dryRun, project }),
      z.strictObject({
        kind: z.literal("replay"),
        subscriptionId,
        events: z
          .array(text("the name of an event"))
          .min(1)
          .max(100)
          .optional()
          .openapi({ description: "Default: all of the subscription." }),
        from: time,
        to: time.optional().openapi({ description: "Default: now." }),
        again: z
          .boolean({ error: "expected true or false" })
          .optional()
          .openapi({ description: "Also what it has got, or was canceled. Default: only what it never had." }),
        ratePerSecond,
        dryRun,
        project,
      }),
      z.strictObject({
        kind: z.literal("backfill"),
        subscriptionId,
        event: text("the name of an event"),
        where: z
          .string({ error: "expected an SQL condition" })
          .min(1, "expected an SQL condition")
          .max(10_000, "expected at most 10000 characters")
          .optional()
          .openapi({
            description: "An SQL condition on the event's table. Only for tokens of all projects: it may read whatever Ancrage may.",
          }),
        ratePerSecond,
        dryRun,
        project,
      }),
      z.strictObject({
        kind: z.literal("retry"),
        event: text("the name of an event, or the path of a tracking file").optional(),
        from: time.optional().openapi({ description: "Default: 30 days before to." }),
        to: time.optional().openapi({ description: "Default: now." }),
        dryRun,
        project,
      }),
    ],
    { error: `expected one of ${jobKinds.filter((kind) => kind !== "cancel").join(", ")}` },
  )
  .openapi("NewJob");

const create = createRoute({
  method: "post",
  path: "/v1/jobs",
  tags,
  security: bearer,
  summary: "Make a job: recover, replay, backfill, or retry rejections",
  request: { body: { required: true, content: { "application/json": { schema: newJobSchema } } } },
  responses: {
    200: json("What it would do; only with dryRun.", countSchema),
    201: { ...json("The job, waiting for its turn.", jobSchema), headers: z.object({ Location: z.url() }) },
    ...problems,
  },
});

const recover = createRoute({
  method: "post",
  path: "/v1/subscriptions/{id}/recover",
  tags,
  security: bearer,
  summary: "Send again what a subscription has not got since a time",
  description: "The job recover: its exhausted deliveries, and messages of its events that it never had.",
  request: {
    params: z.object({ id: subscriptionId.openapi({ param: { name: "id", in: "path" } }) }),
    body: { required: true, content: { "application/json": { schema: z.strictObject({ since: time, ratePerSecond, dryRun }) } } },
  },
  responses: {
    200: json("What it would do; only with dryRun.", countSchema),
    201: { ...json("The job, waiting for its turn.", jobSchema), headers: z.object({ Location: z.url() }) },
    ...problems,
  },
});

const list = createRoute({
  method: "get",
  path: "/v1/jobs",
  tags,
  security: bearer,
  summary: "List jobs, newest first",
  request: {
    query: query({
      ...listQuery,
      after: cursor("job_"),
      kind: z.enum(jobKinds, { error: `expected one of ${jobKinds.join(", ")}` }).optional(),
      state: z.enum(jobStates, { error: `expected one of ${jobStates.join(", ")}` }).optional(),
      subscriptionId: subscriptionId.optional(),
    }),
  },
  responses: { 200: json("A page.", page(jobSchema)), ...problems },
});

const get = createRoute({
  method: "get",
  path: "/v1/jobs/{id}",
  tags,
  security: bearer,
  summary: "Get a job with its progress",
  request: { params },
  responses: { 200: json("The job.", jobSchema), ...problems },
});

const cancel = createRoute({
  method: "post",
  path: "/v1/jobs/{id}/cancel",
  tags,
  security: bearer,
  summary: "Cancel a job",
  description: "It makes nothing more, and what it made that is not over is canceled. What was sent was sent.",
  request: { params },
  responses: { 200: json("The job, canceled.", jobSchema), ...problems },
});

export function addJobRoutes(api: Api, services: Services): void {
  const { jobs } = services;

  api.openapi(create, async (c) => {
    const { project, dryRun, ...asked } = c.req.valid("json");
    const principal = c.get("principal");
    if (asked.kind === "backfill" && asked.where !== undefined) refuseSql(principal);
    const request = {
      project: projectOf(principal, project),
      subscriptionId: "subscriptionId" in asked ? asked.subscriptionId : undefined,
      input: await inputOf(asked, services),
    };
    if (dryRun === true) {
      const counted = await count(services, request);
      return c.json(isCountOfAll(asked.kind, principal) ? { ...counted, total: null } : counted, 200);
    }
    const job = await made(services, request);
    return c.json(viewJob({ job }, principal), 201, { Location: locationOf(services, c.req.url, job) });
  });

  api.openapi(recover, async (c) => {
    const { dryRun, since, ratePerSecond } = c.req.valid("json");
    const { id } = c.req.valid("param");
    const input: JobInput = { kind: "recover", since: iso(since), ...rateOf(ratePerSecond) };
    const request = { project: c.get("principal").project, subscriptionId: id, input };
    if (dryRun === true) return c.json(await count(services, request), 200);
    const job = await made(services, request);
    return c.json(viewJob({ job }, c.get("principal")), 201, { Location: locationOf(services, c.req.url, job) });
  });

  api.openapi(list, async (c) => {
    const { project, limit, ...filter } = c.req.valid("query");
    const rows = await jobs.list({ ...filter, project: projectOf(c.get("principal"), project), limit: limit + 1 });
    return c.json(
      pageOf(
        rows,
        limit,
        (row) => row.id,
        (job) => viewJob({ job }, c.get("principal")),
      ),
      200,
    );
  });

  api.openapi(get, async (c) => {
    const { id } = c.req.valid("param");
    const status = await jobs.get(id, c.get("principal").project);
    if (status === undefined) throw refusal(noJob(id));
    return c.json(viewJob(status, c.get("principal")), 200);
  });

  api.openapi(cancel, async (c) => {
    const { id } = c.req.valid("param");
    const job = await refusing(() => jobs.cancel(id, c.get("principal").project));
    if (job === undefined) throw refusal(noJob(id));
    return c.json(viewJob({ job }, c.get("principal")), 200);
  });
}

type Asked = Omit<z.infer<typeof newJobSchema>, "project" | "dryRun">;

/** With the defaults in: a job that waits must not mean another time than it did when it was asked for. */
async function inputOf(asked: Asked & z.infer<typeof newJobSchema>, { subscriptions }: Services): Promise<JobInput> {
  const now = new Date().toISOString();
  switch (asked.kind) {
    case "recover":
      return { kind: "recover", since: iso(asked.since), ...rateOf(asked.ratePerSecond) };
    case "replay": {
      const events = asked.events ?? (await subscriptions.get(asked.subscriptionId))?.events ?? [];
      const range = rangeOf(asked.from, asked.to ?? now);
      return { kind: "replay", events, ...range, again: asked.again ?? false, ...rateOf(asked.ratePerSecond) };
    }
    case "backfill":
      return {
        kind: "backfill",
        event: asked.event,
        ...(asked.where === undefined ? {} : { where: asked.where }),
        ...rateOf(asked.ratePerSecond),
      };
    case "retry":
      return { kind: "retry", ...(asked.event === undefined ? {} : { event: asked.event }), ...lastDays(asked.from, asked.to ?? now) };
    default:
      return asked satisfies never;
  }
}

const dayMs = 86_400_000;

/** @throws a problem `invalid` where it ends before it begins */
export function rangeOf(from: string, to: string): { readonly from: string; readonly to: string } {
  if (Date.parse(from) >= Date.parse(to)) throw invalid([{ pointer: "/from", detail: "expected a time before to" }]);
  return { from: iso(from), to: iso(to) };
}

export function lastDays(from: string | undefined, to: string): { readonly from: string; readonly to: string } {
  return rangeOf(from ?? new Date(Date.parse(to) - 30 * dayMs).toISOString(), to);
}

const iso = (time: string): string => new Date(time).toISOString();
const rateOf = (ratePerSecond: number | undefined) => (ratePerSecond === undefined ? {} : { ratePerSecond });

function refuseSql({ project }: Principal): void {
  if (project === undefined) return;
  throw invalid([{ pointer: "/where", detail: "expected none: an SQL condition is only for tokens of all projects" }]);
}

/** @throws a problem */
export async function made({ jobs }: Services, request: JobRequest): Promise<JobRow> {
  const job = await refusing(() => jobs.create(request));
  if (job === undefined) throw refusal(noSubscription(request));
  return job;
}

/** @throws a problem */
export async function count({ jobs }: Services, request: JobRequest): Promise<z.infer<typeof countSchema>> {
  const counted = await refusing(() => jobs.count(request));
  if (counted === undefined) throw refusal(noSubscription(request));
  return { dryRun: true, total: counted.total };
}

/** What stands in the way is for whoever asked to read, and no fault of ours. */
export async function refusing<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof AncrageError)) throw error;
    const { message: detail, hint } = error;
    if (error.code === "ANCRAGE_JOB_REFUSED") throw refusal({ code: "job-refused", detail, ...(hint === undefined ? {} : { hint }) });
    if (error.code === "ANCRAGE_TRIGGER_UNKNOWN_EVENT") throw refusal({ code: "unknown-event", detail });
    if (error.code === "ANCRAGE_VALUE_INVALID") throw invalid([{ pointer: "/where", detail }]);
    throw error;
  }
}

function noSubscription({ subscriptionId: id }: JobRequest) {
  return notFound(`there is no subscription ${JSON.stringify(id)}.`);
}

const noJob = (id: string) => notFound(`there is no job ${JSON.stringify(id)}.`);

export function locationOf({ publicUrl }: Services, requestUrl: string, { id }: JobRow): string {
  return new URL(`v1/jobs/${id}`, baseUrl(publicUrl, requestUrl)).href;
}

/** A backfill counts the records of a table before it asks whose each is: how many all projects have is not one project's to see. */
const isCountOfAll = (kind: JobRow["kind"], { project }: Principal): boolean => kind === "backfill" && project !== undefined;

export function viewJob(
  { job, unfinished, exhausted }: Pick<JobStatus, "job"> & Partial<JobStatus>,
  principal: Principal,
): z.infer<typeof jobSchema> {
  const { id, project, kind, subscriptionId, state, total, done, failed, error } = job;
  const { kind: _, ...input } = job.input as JobInput;
  return {
    id,
    project,
    kind,
    subscriptionId,
    input,
    state,
    total: isCountOfAll(kind, principal) ? null : total,
    done,
    failed,
    ...(unfinished === undefined ? {} : { unfinished }),
    ...(exhausted === undefined ? {} : { exhausted }),
    error,
    createdAt: job.createdAt.toISOString(),
    endedAt: job.endedAt?.toISOString() ?? null,
  };
}
