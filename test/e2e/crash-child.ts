import { createAncrage } from "../../src/create-ancrage.ts";
import type { AncrageOptions } from "../../src/options.ts";
import { crashEvents } from "./crash-events.ts";

// The pipeline of the crash test, in a process that can be killed. It says when it has started, and ends in order when told to.
const given = JSON.parse(process.env["CRASH_OPTIONS"] ?? "{}") as AncrageOptions;
// Each start after a kill waits until the lease of the one before has run out.
const ancrage = createAncrage({ ...given, events: crashEvents }, { leaseMs: 1_000 });

process.on("message", (message) => {
  if (message === "stop") void ancrage.stop().then(() => process.disconnect());
});
await ancrage.start();
process.send?.("started");
