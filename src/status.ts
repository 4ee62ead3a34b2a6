import type { Held } from "./build-readable.ts";
import type { Engine } from "./engine.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import type { Status, StatusProblem } from "./http/services.ts";
import { describeGap } from "./capture/loss.ts";
import { formatLsn } from "./lsn.ts";
import type { Gap } from "./store/gaps.ts";

/** Where the system stands: what `/readyz` answers, and what needs attention. */
export async function readStatus(engine: Engine, catalogue: Catalogue, openGaps: () => Promise<readonly Gap[]>): Promise<Status> {
  const problems: StatusProblem[] = [];
  const { failure } = engine;
  if (failure instanceof AncrageError) {
    problems.push({ code: failure.code, message: failure.message, ...(failure.hint === undefined ? {} : { hint: failure.hint }) });
  } else if (failure !== undefined)
    problems.push({
      code: "capture-stopped",
      message: failure instanceof Error ? failure.message : JSON.stringify(failure),
      hint: "The log has the details; restart when it is mended.",
    });
  const journal = engine.journal?.state;
  if (journal?.kind === "refusing") {
    problems.push({
      code: "ANCRAGE_JOURNAL_REFUSED",
      message: `the journal has taken no batch since ${journal.since.toISOString()}: ${journal.because}`,
      hint: "Nothing new is read or sent until it does; nothing is lost.",
    });
  }
  const shortage = engine.dispatcher?.shortage;
  if (shortage !== undefined) {
    problems.push({ code: "resources-short", message: shortage, hint: "What could not be sent waits, and counts as no attempt." });
  }
  for (const [id, error] of engine.unopened) {
    problems.push({
      code: "subscription-unopened",
      message: `subscription ${id} cannot be sent to: ${error instanceof Error ? error.message : String(error)}`,
      hint: "Its messages wait, and go out once it opens. Start with the ANCRAGE_SECRET_KEY that sealed its secret.",
    });
  }
  for (const event of engine.pipeline?.parked() ?? []) {
    problems.push({
      code: "event-parked",
      message: `${event} was rejected too often with no success between; its code is not run.`,
      hint: "Mend it and restart.",
    });
  }
  const readable = engine.pipeline?.readable;
  const held = readable?.held();
  if (held !== undefined) problems.push(heldProblem(held));
  for (const [event, since] of readable?.slow() ?? []) {
    problems.push({
      code: "event-slow",
      message: `reads of ${event} have run out of time since ${since.toISOString()}; what they are for is rejected as read-timeout, and the rest goes on.`,
      hint: `See what its load and sql wait for: an index, or a lock. Then "ancrage rejections retry --event ${event}" sends what was rejected.`,
    });
  }
  problems.push(...engine.slotProblems.filter(({ code }) => code !== "slot-lost" || failure === undefined));
  for (const gap of await openGaps()) {
    problems.push({
      code: "gap",
      message: describeGap(gap),
      hint:
        gap.toLsn === undefined
          ? "It goes on: nothing is captured. See the other problem."
          : `Those changes made no events. Backfill what matters ("ancrage backfill EVENT --subscription ID --where SQL"), then say so: "ancrage gaps resolve ${gap.id}".`,
    });
  }
  const { state } = engine;
  return {
    isReady: (state === "leading" || state === "standby") && failure === undefined && journal?.kind !== "refusing" && held === undefined,
    problems,
    details: {
      role: state,
      journaledLsn: formatLsn(engine.journal?.endLsn ?? 0n),
      events: catalogue.events.size,
      trackedTables: [...catalogue.tables.keys()],
      subscriptions: engine.registry.size,
      deliveriesInMemory: engine.dispatcher?.heldCount ?? 0,
      lanesBehind: engine.dispatcher?.behindCount ?? 0,
      exhaustedSinceStart: engine.dispatcher?.exhaustedCount ?? 0,
      ignoredTriggers: engine.ignoredMarks,
      slot: engine.slotHealth ?? null,
    },
  };
}

function heldProblem({ since, events, because, until }: Held): StatusProblem {
  const whose = events.length === 0 ? "payloads" : `the payload of ${events.join(", ")}`;
  return {
    code: "payload-held",
    message: `${whose} cannot be built since ${since.toISOString()}, and what was committed after it waits: ${because}`,
    hint:
      until === undefined
        ? "It is tried again and again; nothing is lost. PostgreSQL does not answer reads: see its own log."
        : `Nothing is lost. See what its load and sql wait for: an index, or a lock. What still runs out of time at ${until.toISOString()} is rejected, to be retried, so that the rest goes on.`,
  };
}
