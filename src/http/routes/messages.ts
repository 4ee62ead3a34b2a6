import { z } from "@hono/zod-openapi";
import { listMessages, readMessage, type MessageRow } from "../../store/messages.ts";
import { projectOf } from "../auth.ts";
import { search } from "../../search.ts";
import { createFeed } from "../feed.ts";
import { readPageCursor } from "../page-cursor.ts";
import { notFound, refusal } from "../problem.ts";
import { bearer, createRoute, cursor, json, listQuery, page, problems, rangeOf, rangeQuery, text, type Api, query } from "../route.ts";
import { messageSchema } from "../schemas.ts";
import type { Services } from "../services.ts";

const tags = ["messages"];

const list = createRoute({
  method: "get",
  path: "/v1/messages",
  tags,
  security: bearer,
  summary: "List messages, newest first; or pull them, oldest first",
  description:
    "With order=oldest it is a feed for receivers that cannot be reached: next is what to ask after the next time, also where nothing new is there (null only before the first message). What was committed within two seconds before the newest message is held back until the journal has read past it.",
  request: {
    query: query({
      ...listQuery,
      after: cursor("msg_", { orSealed: true }),
      ...rangeQuery,
      event: text("the name of an event").optional(),
      key: text("the key of a record").optional(),
      order: z.enum(["newest", "oldest"], { error: "expected newest or oldest" }).optional().openapi({ default: "newest" }),
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
  const feed = createFeed(services.db);
  api.openapi(list, async (c) => {
    const { project, after: given, limit, event, key, order, from, to } = c.req.valid("query");
    const principal = c.get("principal");
    const { after, next } = readPageCursor("messages", given, principal, services.cursorKey);
    const filter = { project: projectOf(principal, project), event, key, range: rangeOf({ from, to }, Date.now()), after };
    if (order === "oldest") {
      const { rows, to } = await feed.read({ ...filter, limit });
      return c.json({ data: rows.map(viewMessage), next: next(to) }, 200);
    }
    const page = await search<MessageRow, string>({
      after,
      limit,
      look: ({ after, ...bounds }) => listMessages(services.db, { ...filter, after }, bounds),
      placeOf: ({ id }) => id,
    });
    return c.json({ data: page.rows.map(viewMessage), next: next(page.next) }, 200);
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
