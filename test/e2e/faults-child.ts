import { createAncrage } from "../../src/create-ancrage.ts";
import { defineEvent } from "../../src/event/define.ts";
import type { AncrageOptions } from "../../src/options.ts";

// A process with a payload function that keeps the event loop to itself for a while, once: for row 666.
const given = JSON.parse(process.env["FAULT_OPTIONS"] ?? "{}") as AncrageOptions;
const blockMs = Number(process.env["FAULT_BLOCK_MS"]);
const ItemCreated = defineEvent({
  table: "item",
  on: "insert",
  payload(item) {
    const untilMs = item["id"] === 666 ? performance.now() + blockMs : 0;
    while (performance.now() < untilMs);
    return { id: item["id"] };
  },
});
const ancrage = createAncrage({ ...given, events: { ItemCreated } }, { leaseMs: 1_000 });
process.on("message", () => void ancrage.stop().then(() => process.disconnect()));
await ancrage.start();
process.send?.("started");
