import { createRoute } from "@hono/zod-openapi";
import { listRejections, type RejectionRow } from "../../store/rejections.ts";
import { projectOf } from "../auth.ts";
import { bearer, json, listQuery, page, pageOf, problems, rangeOf, rangeQuery, text, type Api, query } from "../route.ts";
import { rejectionSchema } from "../schemas.ts";
import type { Services } from "../services.ts";

const list = createRoute({
  method: "get",
  path: "/v1/rejections",
  tags: ["rejections"],
  security: bearer,
  summary: "List rejections, newest first",
  request: { query: query({ ...listQuery, ...rangeQuery, event: text("the name of an event").optional() }) },
  responses: { 200: json("A page.", page(rejectionSchema)), ...problems },
});

export function addRejectionRoutes(api: Api, services: Services): void {
  api.openapi(list, async (c) => {
    const { project, after, limit, event, ...range } = c.req.valid("query");
    const rows = await listRejections(services.db, {
      project: projectOf(c.get("principal"), project),
      event,
      range: rangeOf(range, Date.now()),
      after,
      limit: limit + 1,
    });
    return c.json(
      pageOf(rows, limit, (row) => row.id, viewRejection),
      200,
    );
  });
}

function viewRejection({ committedAt, error, ...row }: RejectionRow) {
  return { ...row, committedAt: committedAt.toISOString(), error: error.toString() };
}
