import { defineEvent } from "../../src/event/define.ts";

/** What the crash test's child and its parent both need to know. */
export const crashEvents = {
  ItemCreated: defineEvent({
    table: "item",
    on: "insert",
    where: (item) => item["is_wanted"] === true,
    payload: (item) => ({ id: item["id"], label: item["label"] }),
  }),
  ItemNoted: defineEvent({ example: { note: "x" }, payload: ({ key, data }) => ({ key, data }) }),
};
