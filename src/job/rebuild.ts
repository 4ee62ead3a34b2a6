import type { Change } from "../capture/change.ts";
import { originOf } from "../build-messages.ts";
import { AncrageError } from "../errors.ts";
import type { Catalogue, CatalogueEvent, TrackedTable } from "../event/catalogue.ts";
import { askWhere, matchChange, type Matched, type Occurrence } from "../match.ts";
import type { Message } from "../message.ts";
import { computeMessageId } from "../message-id.ts";
import { buildPayloads, type PayloadDeps, type PayloadInput } from "../payload/build.ts";
import { describeThrown } from "../payload/describe.ts";
import { readRecords } from "../payload/load.ts";
import { readLacking } from "../payload/read-lacking.ts";
import { parseOccurrence } from "../payload/occurrence-bytes.ts";
import type { Queryable } from "../store/database.ts";
import type { WholeRejection } from "../store/rejections.ts";
import { readSubscription } from "../store/subscriptions.ts";
import { askProject, inputOf, parseBackfilled, type Backfilled } from "./backfilled.ts";
import { readFilter } from "./receivers.ts";

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
  readonly db: Queryable;
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
  if (backfilled !== undefined) return await rebuildBackfilled(rejection, backfilled, deps);
  const handled = trackedByFile(rejection.event, deps.catalogue);
  if (handled !== undefined) return await rebuildHandled(rejection, handled, deps);
  const occurrence = parseOccurrence(rejection.occurrence, deps.catalogue.events);
  if (occurrence.reason === "change" && (rejection.reason === "where-threw" || rejection.reason === "event-parked")) {
    return await rebuildMatched(rejection, occurrence, deps);
  }
  return await build([{ input: occurrence, idOf: () => firstIdOf(rejection) }], rejection, deps, undefined);
}

const firstIdOf = ({ id }: WholeRejection): string => `msg_${id.slice("rej_".length)}`;

/**
 * All is asked that the backfill asks: the code that threw may say now that the record is another project's, or that it is not meant.
 * The message would go to the one subscription all the same.
 */
async function rebuildBackfilled(
  rejection: WholeRejection,
  { event: name, key, subscriptionId }: Backfilled,
  deps: RebuildDeps,
): Promise<Rebuilt> {
  const rejected = (error: string, reason = rejection.reason): Rebuilt => ({ kind: "rejected", reason, error });
  const nothing: Rebuilt = { kind: "built", messages: [], subscriptionId };
  const event = deps.catalogue.events.get(name);
  if (event === undefined) return rejected(`no file defines the event "${name}" any more.`);
  if (event.table === undefined) return rejected(`the event "${name}" has no table any more.`);
  const subscription = await readSubscription(deps.db, subscriptionId);
  if (subscription === undefined || subscription.state === "deleted") return nothing;
  const record = (await readRecords(deps.payload.readers, event.table, [key])).get(key);
  if (record === undefined) return nothing;
  if (record instanceof Error) return rejected(record.message, "record-missing");
  const project = askProject(event, record, deps.catalogue);
  // What another project's record makes the code throw is not this one's to see.
  if (project instanceof Error) return rejected("the project function threw for its record.");
  if (project !== subscription.project) return nothing;
  try {
    if (!askWhere(event, record)) return nothing;
  } catch (error) {
    return rejected(describeThrown(error, event.file), "where-threw");
  }
  const input = inputOf(event, key, record);
  const built = await build([{ input, idOf: () => firstIdOf(rejection) }], rejection, deps, subscriptionId);
  const isWanted = readFilter(subscription);
  if (built.kind === "rejected" || isWanted === undefined) return built;
  return { ...built, messages: built.messages.filter(({ body }) => isWanted(body)) };
}

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
