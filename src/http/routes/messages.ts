import { createRoute, z } from "@hono/zod-openapi";
import { listMessages, readMessage, type MessageRow } from "../../store/messages.ts";
import { projectOf } from "../auth.ts";
import { notFound, refusal } from "../problem.ts";
import { bearer, json, listQuery, page, pageOf, problems, rangeOf, rangeQuery, text, type Api } from "../route.ts";
import { messageSchema } from "../schemas.ts";
import type { Services } from "../services.ts";

const tags = ["messages"];

const list = createRoute({
  method: "get",
  path: "/v1/messages",
  tags,
  security: bearer,
  summary: "List messages, newest first",
  request: {
    query: z.strictObject({
      ...listQuery,
      ...rangeQuery,
      event: text("the name of an event").optional(),
      key: text("the key of a record").optional(),
    }),
  },
  responses: { 200: json("A page.", page(messageSchema)), ...problems },
});

const get = createRoute({
  method: "get",
  path: "/v1/messages/{id}",
  tags,
  security: bearer,
  summary: "Get a message",
  request: { params: z.object({ id: text("the id of a message").openapi({ param: { name: "id", in: "path" } }) }) },
  responses: { 200: json("The message.", messageSchema), ...problems },
});

export function addMessageRoutes(api: Api, services: Services): void {
  api.openapi(list, async (c) => {
    const { project, after, limit, event, key, ...range } = c.req.valid("query");
    const rows = await listMessages(services.db, {
      project: projectOf(c.get("principal"), project),
      event,
      key,
      range: rangeOf(range, Date.now()),
      after,
      limit: limit + 1,
    });
    return c.json(
      pageOf(rows, limit, (row) => row.id, viewMessage),
      200,
    );
  });

  api.openapi(get, async (c) => {
    const { id } = c.req.valid("param");
    const row = await readMessage(services.db, id, c.get("principal").project);
    if (row === undefined) throw refusal(notFound(`there is no message ${JSON.stringify(id)}.`));
    return c.json(viewMessage(row), 200);
  });
}

export function viewMessage(row: MessageRow) {
  return {
    id: row.id,
    project: row.project,
    event: row.event,
    key: row.key,
    committedAt: row.committedAt.toISOString(),
    payload: JSON.parse(row.body.toString()) as unknown,
  };
}
