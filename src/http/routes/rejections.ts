import { z } from "@hono/zod-openapi";
import { search } from "../../search.ts";
import { listRejections, readRejection, type RejectionRow } from "../../store/rejections.ts";
import { projectOf } from "../auth.ts";
import { readPageCursor } from "../page-cursor.ts";
import { notFound, refusal } from "../problem.ts";
import { bearer, createRoute, cursor, json, listQuery, page, problems, rangeOf, rangeQuery, text, type Api, query } from "../route.ts";
import { rejectionSchema, retriedSchema } from "../schemas.ts";
import type { Services } from "../services.ts";
import { refusing } from "./jobs.ts";

const list = createRoute({
  method: "get",
  path: "/v1/rejections",
  tags: ["rejections"],
  security: bearer,
  summary: "List rejections, newest first",
  request: {
    query: query({
      ...listQuery,
      after: cursor("rej_", { orSealed: true }),
      ...rangeQuery,
      event: text("the name of an event").optional(),
    }),
  },
  responses: { 200: json("A page.", page(rejectionSchema)), ...problems },
});

const params = z.object({ id: text("the id of a rejection").openapi({ param: { name: "id", in: "path" } }) });

const get = createRoute({
  method: "get",
  path: "/v1/rejections/{id}",
  tags: ["rejections"],
  security: bearer,
  summary: "Get a rejection",
  request: { params },
  responses: { 200: json("The rejection.", rejectionSchema), ...problems },
});

const retry = createRoute({
  method: "post",
  path: "/v1/rejections/{id}/retry",
  tags: ["rejections"],
  security: bearer,
  summary: "Build a rejection again, with the code as it is now",
  description:
    "The message has the id that it would have had, and goes to the subscriptions that it would have gone to. What is rejected again stays. A parked event that works again is run again.",
  request: { params },
  responses: { 200: json("What came of it.", retriedSchema), ...problems },
});

export function addRejectionRoutes(api: Api, services: Services): void {
  api.openapi(list, async (c) => {
    const { project, after: given, limit, event, ...range } = c.req.valid("query");
    const principal = c.get("principal");
    const { after, next } = readPageCursor("rejections", given, principal, services.cursorKey);
    const filter = { project: projectOf(principal, project), event, range: rangeOf(range, Date.now()) };
    const page = await search<RejectionRow, string>({
      after,
      limit,
      look: ({ after, ...bounds }) => listRejections(services.db, { ...filter, after }, bounds),
      placeOf: ({ id }) => id,
    });
    return c.json({ data: page.rows.map(viewRejection), next: next(page.next) }, 200);
  });

  api.openapi(get, async (c) => {
    const { id } = c.req.valid("param");
    const row = await readRejection(services.db, id, c.get("principal").project);
    if (row === undefined) throw refusal(noRejection(id));
    const { committedAtUs, project, event, key, reason, error } = row;
    return c.json(viewRejection({ id, project, event, key, reason, error, committedAt: new Date(Number(committedAtUs / 1000n)) }), 200);
  });

  api.openapi(retry, async (c) => {
    const { id } = c.req.valid("param");
    const retried = await refusing(() => services.jobs.retry(id, c.get("principal").project));
    if (retried === undefined || retried.kind === "gone") throw refusal(noRejection(id));
    const { kind: outcome } = retried;
    if (retried.kind === "messages") return c.json({ outcome, messageIds: [...retried.messageIds] }, 200);
    return c.json(retried.kind === "nothing" ? { outcome } : { outcome, reason: retried.reason, error: retried.error }, 200);
  });
}

const noRejection = (id: string) =>
  notFound(`there is no rejection ${JSON.stringify(id)}: it may have been retried, or is no longer kept.`);

function viewRejection({ committedAt, error, ...row }: RejectionRow) {
  return { ...row, committedAt: committedAt.toISOString(), error: error.toString() };
}
