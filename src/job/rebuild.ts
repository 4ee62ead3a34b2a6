import type { Change } from "../capture/change.ts";
import { originOf } from "../build-messages.ts";
import { AncrageError } from "../errors.ts";
import type { Catalogue, CatalogueEvent, TrackedTable } from "../event/catalogue.ts";
import { matchChange, type Matched, type Occurrence } from "../match.ts";
import type { Message } from "../message.ts";
import { computeMessageId } from "../message-id.ts";
import { buildPayloads, type PayloadDeps, type PayloadInput } from "../payload/build.ts";
import { describeThrown } from "../payload/describe.ts";
import { readLacking } from "../payload/read-lacking.ts";
import { parseOccurrence } from "../payload/occurrence-bytes.ts";
import type { WholeRejection } from "../store/rejections.ts";
import { parseBackfilled } from "./backfilled.ts";

/** What a rejection becomes with the code as it is now. */
export type Rebuilt =
  | {
      readonly kind: "built";
      readonly messages: readonly Message[];
      /** The only one that they are for; undefined: those of the event. */
      readonly subscriptionId: string | undefined;
    }
  | { readonly kind: "rejected"; readonly reason: string; readonly error: string };

export interface RebuildDeps {
  readonly sourceId: string;
  readonly catalogue: Catalogue;
  readonly payload: PayloadDeps;
}

/**
 * Builds a rejection again. A parked event's code is run: whether it works again is the question.
 *
 * @throws BatchFault
 */
export async function rebuild(rejection: WholeRejection, deps: RebuildDeps): Promise<Rebuilt> {
  try {
    return await rebuildByKind(rejection, deps);
  } catch (error) {
    // Its event is gone, or its data could not be kept: what was the reason stays the reason.
    if (!(error instanceof AncrageError) || error.code === "ANCRAGE_DATABASE_UNREACHABLE") throw error;
    return { kind: "rejected", reason: rejection.reason, error: error.toString() };
  }
}

async function rebuildByKind(rejection: WholeRejection, deps: RebuildDeps): Promise<Rebuilt> {
  const refused = parseRefused(rejection);
  if (refused !== undefined) return { kind: "built", messages: [refused], subscriptionId: undefined };
  const backfilled = parseBackfilled(rejection.occurrence);
  if (backfilled !== undefined) {
    const event = deps.catalogue.events.get(backfilled.event);
    if (event === undefined)
      return { kind: "rejected", reason: rejection.reason, error: `no file defines the event "${backfilled.event}" any more.` };
    const nothing = { action: undefined, before: undefined, record: undefined, data: undefined, actor: undefined };
    const input: PayloadInput = { event, key: backfilled.key, reason: "backfill", ...nothing };
    return await build([{ input, idOf: () => firstIdOf(rejection) }], rejection, deps, backfilled.subscriptionId);
  }
  const handled = trackedByFile(rejection.event, deps.catalogue);
  if (handled !== undefined) return await rebuildHandled(rejection, handled, deps);
  const occurrence = parseOccurrence(rejection.occurrence, deps.catalogue.events);
  if (occurrence.reason === "change" && (rejection.reason === "where-threw" || rejection.reason === "event-parked")) {
    return await rebuildMatched(rejection, occurrence, deps);
  }
  return await build([{ input: occurrence, idOf: () => firstIdOf(rejection) }], rejection, deps, undefined);
}

const firstIdOf = ({ id }: WholeRejection): string => `msg_${id.slice("rej_".length)}`;

/** Its rule could not be asked then: it may say now that nothing happened. */
async function rebuildMatched(rejection: WholeRejection, occurrence: Occurrence, deps: RebuildDeps): Promise<Rebuilt> {
  const { event } = occurrence;
  if (event.table === undefined) return await build([{ input: occurrence, idOf: () => firstIdOf(rejection) }], rejection, deps, undefined);
  const tracked: TrackedTable = { table: event.table, events: [event], handlers: [], needsOldValues: false, readsUpdatesOrDeletes: true };
  return await rematch(rejection, { occurrence, tracked }, deps);
}

/** The handler is run again. What its change made happen otherwise is journaled already, under the same id where it is the same. */
async function rebuildHandled(
  rejection: WholeRejection,
  { tracked, handler }: { readonly tracked: TrackedTable; readonly handler: TrackedTable["handlers"][number] },
  deps: RebuildDeps,
): Promise<Rebuilt> {
  const standIn = { name: rejection.event, file: handler.file, definition: {}, table: tracked.table, rules: [], jsonSchema: undefined };
  const events = new Map([[rejection.event, standIn as unknown as CatalogueEvent]]);
  const occurrence = parseOccurrence(rejection.occurrence, events);
  return await rematch(rejection, { occurrence, tracked: { ...tracked, events: [], handlers: [handler] } }, deps);
}

async function rematch(
  rejection: WholeRejection,
  { occurrence, tracked }: { readonly occurrence: Occurrence; readonly tracked: TrackedTable },
  deps: RebuildDeps,
): Promise<Rebuilt> {
  const { transaction, position, key, action = "insert", before, record } = occurrence;
  const after = action === "delete" ? undefined : record;
  const change: Change = { kind: "change", transaction, position, table: tracked.table.name, action, key, before, after };
  const match = (): Matched => matchChange(change, { ...deps.catalogue, tables: new Map([[tracked.table.name, tracked]]) });
  const asking = after === undefined ? [] : [{ table: tracked.table, key, row: after }];
  let matched = match();
  while (await readLacking(asking, deps.payload.readers)) matched = match();
  const { occurrences, unmatched } = matched;
  const [fault] = unmatched;
  if (fault !== undefined) return { kind: "rejected", reason: fault.cause, error: describeThrown(fault.error, fault.event.name) };
  const idOf = (one: Occurrence): string =>
    computeMessageId({ sourceId: deps.sourceId, event: one.event.name, key: one.key, transaction, position });
  return await build(
    occurrences.map((input) => ({ input, idOf: () => idOf(input) })),
    rejection,
    deps,
    undefined,
  );
}

async function build(
  inputs: readonly { readonly input: PayloadInput; readonly idOf: () => string }[],
  { position, committedAtUs }: WholeRejection,
  { payload: deps, catalogue }: RebuildDeps,
  subscriptionId: string | undefined,
): Promise<Rebuilt> {
  const payloads = await buildPayloads(
    inputs.map(({ input }) => input),
    { ...deps, catalogue, isParked: () => false },
  );
  const messages: Message[] = [];
  for (const [index, { input, idOf }] of inputs.entries()) {
    const payload = payloads[index];
    if (payload?.kind === "rejected") return { kind: "rejected", reason: payload.reason, error: payload.error };
    if (payload?.kind !== "built") continue;
    const { event, key } = input;
    const body = Buffer.from(payload.json, "utf8");
    const origin = originOf({ ...input, causedBy: "causedBy" in input ? (input as Occurrence).causedBy : undefined });
    messages.push({ id: idOf(), project: payload.project, event: event.name, key, position, committedAtUs, origin, body, envelopes: {} });
  }
  return { kind: "built", messages, subscriptionId };
}

/** A message that PostgreSQL could not store: it is built already, and may be stored now. */
function parseRefused({ occurrence, ...rejection }: WholeRejection): Message | undefined {
  const { kind, body } = JSON.parse(occurrence.toString()) as { readonly kind?: unknown; readonly body?: unknown };
  if (kind !== "message" || typeof body !== "string") return undefined;
  const { id, project, event, key, position, committedAtUs } = rejection;
  return { id: `msg_${id.slice(4)}`, project, event, key, position, committedAtUs, body: Buffer.from(body, "base64"), envelopes: {} };
}

function trackedByFile(file: string, { tables }: Catalogue) {
  for (const tracked of tables.values()) {
    const handler = tracked.handlers.find((one) => one.file === file);
    if (handler !== undefined) return { tracked, handler };
  }
  return undefined;
}
