import { defineEvent } from "../../src/event/define.ts";

/** What the model test's processes and the test itself both need to know. */
export const modelEvents = {
  ItemChanged: defineEvent({
    table: "item",
    on: ["insert", "update"],
    where: (item) => item["is_wanted"] === true,
    payload: (item) => ({ id: item["id"], note: item["note"] }),
  }),
  // What nobody may ever receive: the subscription to it has a URL that no request may go to.
  ItemUnwanted: defineEvent({
    table: "item",
    on: ["insert", "update"],
    where: (item) => item["is_wanted"] === false,
    payload: (item) => ({ id: item["id"], note: item["note"] }),
  }),
};
