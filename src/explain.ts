import type { Row } from "./capture/change.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue, CatalogueEvent, CompiledRule } from "./event/catalogue.ts";
import { suggestName } from "./event/fault.ts";
import { buildPayloads, type Payload, type PayloadDeps } from "./payload/build.ts";
import { describeThrown } from "./payload/describe.ts";
import { readRecords } from "./payload/load.ts";
import type { RejectionReason } from "./payload/reject.ts";
import { sampleInput } from "./payload/sample.ts";

export interface ExplainDeps extends PayloadDeps {
  readonly catalogue: Catalogue;
  /** The subscriptions of a project to an event, those that are paused or disabled included. */
  readonly subscriptionsOf: (project: string, event: string) => Promise<readonly ExplainedSubscription[]>;
}

export interface ExplainedSubscription {
  readonly id: string;
  readonly url: string;
  readonly state: string;
  readonly stateReason?: string | null | undefined;
}

/** Whether an event would happen for a record as it is now, to whom it would go, and why not. JSON can hold it. */
export interface Explanation {
  readonly event: string;
  readonly file: string;
  readonly key: string;
  readonly table: string | undefined;
  /** Whether the table has such a record; `undefined` for an event without a table. */
  readonly isFound: boolean | undefined;
  /** Whether `where` holds; `undefined` where there is no `where` or no record. */
  readonly where: { readonly holds: boolean; readonly error?: string } | undefined;
  readonly rules: readonly ExplainedRule[];
  /** Files that watch the table and may trigger the event themselves. */
  readonly trackingFiles: readonly string[];
  readonly isParked: boolean;
  readonly project: string | undefined;
  /** What would be sent, or the rejection that it would be. */
  readonly payload:
    | { readonly kind: "built"; readonly value: unknown }
    | { readonly kind: "nothing" }
    | { readonly kind: "rejected"; readonly reason: RejectionReason; readonly error: string }
    | undefined;
  readonly subscriptions: readonly ExplainedSubscription[];
  /** Whether anything at all would reach a receiver: a rule or a trigger that may apply, a payload, and an enabled subscription. */
  readonly wouldSend: boolean;
  /** The same for a person, a sentence a line. */
  readonly lines: readonly string[];
}

export interface ExplainedRule {
  readonly kind: CompiledRule["kind"];
  readonly columns?: readonly string[];
  /** Whether the next such change of this record makes the event happen, as far as can be said before it is made. */
  readonly mayHappen: boolean;
  readonly words: string;
}

/**
 * Explains an event for one record.
 *
 * @example (await explain("NewOpportunity", "42", deps)).lines.join("\n")
 * @throws AncrageError `ANCRAGE_TRIGGER_UNKNOWN_EVENT`
 * @throws BatchFault PostgreSQL could not be read just now
 */
export async function explain(eventName: string, key: string, deps: ExplainDeps): Promise<Explanation> {
  const event = deps.catalogue.events.get(eventName);
  if (event === undefined) {
    throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", `no file defines the event "${eventName}".`, {
      hint: suggestName(eventName, [...deps.catalogue.events.keys()]),
    });
  }
  const record = await recordOf(event, key, deps);
  const where = whereOf(event, record);
  const rules = event.rules.map((rule) => explainRule(rule, event, record !== undefined, where));
  const payload = record === undefined ? undefined : await preview(event, key, record, deps);
  const project = payload?.kind === "built" || payload?.kind === "rejected" ? payload.project : projectOf(event, record, deps);
  const subscriptions = project === undefined ? [] : await deps.subscriptionsOf(project, event.name);
  const facts: Omit<Explanation, "lines"> = {
    event: event.name,
    file: event.file,
    key,
    table: event.table?.name,
    isFound: event.table === undefined ? undefined : record !== undefined,
    where,
    rules,
    trackingFiles: event.table === undefined ? [] : (deps.catalogue.tables.get(event.table.name)?.handlers.map(({ file }) => file) ?? []),
    isParked: deps.isParked?.(event.name) === true,
    project,
    payload: shown(payload),
    subscriptions,
    wouldSend: false,
  };
  const explained = { ...facts, wouldSend: wouldSend(facts) };
  return { ...explained, lines: linesOf(explained) };
}

async function recordOf(event: CatalogueEvent, key: string, deps: ExplainDeps): Promise<Row | undefined> {
  if (event.table === undefined) return undefined;
  const record = (await readRecords(deps.readers, event.table, [key])).get(key);
  return record instanceof Error ? undefined : record;
}

function whereOf(event: CatalogueEvent, record: Row | undefined): Explanation["where"] {
  const { where } = event.definition;
  if (where === undefined || record === undefined) return undefined;
  try {
    // As match.ts takes it: whatever is truthy.
    return { holds: Boolean((where as (record: Row) => unknown)(record)) };
  } catch (error) {
    return { holds: false, error: describeThrown(error, event.file) };
  }
}

function projectOf(event: CatalogueEvent, record: Row | undefined, deps: ExplainDeps): string | undefined {
  if (record === undefined) return undefined;
  try {
    return deps.catalogue.projectOf(event, record);
  } catch {
    // The payload's rejection says why.
    return undefined;
  }
}

/** The parked state aside: what its code would do is what a person asks here. */
async function preview(event: CatalogueEvent, key: string, record: Row, deps: ExplainDeps): Promise<Payload | undefined> {
  const [payload] = await buildPayloads([sampleInput(event, key, record)], { ...deps, isParked: () => false });
  return payload;
}

function shown(payload: Payload | undefined): Explanation["payload"] {
  if (payload === undefined || payload.kind === "nothing") return payload;
  if (payload.kind === "built") return { kind: "built", value: JSON.parse(payload.json) as unknown };
  return { kind: "rejected", reason: payload.reason, error: payload.error };
}

function explainRule(rule: CompiledRule, event: CatalogueEvent, isFound: boolean, where: Explanation["where"]): ExplainedRule {
  const holds = where === undefined || where.holds;
  const table = event.table?.name ?? "the table";
  // A record that is not there may be inserted, and `where` is then asked of what it is by then.
  const may = !isFound || holds;
  const condition = event.definition.where === undefined ? "" : " for which where holds";
  switch (rule.kind) {
    case "insert":
      return { kind: rule.kind, mayHappen: may, words: `on insert: when a record of ${table}${condition} is inserted` };
    case "update":
      return { kind: rule.kind, mayHappen: may, words: `on update: when a record of ${table}${condition} is updated` };
    case "update-columns":
      return {
        kind: rule.kind,
        columns: rule.columns,
        mayHappen: may,
        words: `on update of ${rule.columns.join(", ")}: when one of them gets another value in a record of ${table}${condition}`,
      };
    case "delete":
      return { kind: rule.kind, mayHappen: may, words: `on delete: when a record of ${table}${condition} is deleted` };
    case "enter":
      return {
        kind: rule.kind,
        mayHappen: !isFound || where === undefined || !where.holds,
        words: isFound && holds ? "on enter: where holds already, it must become false first" : "on enter: when where becomes true",
      };
    case "leave":
      return {
        kind: rule.kind,
        mayHappen: holds,
        words: isFound && !holds ? "on leave: where is false already, it must become true first" : "on leave: when where becomes false",
      };
    default:
      return rule satisfies never;
  }
}

function wouldSend(facts: Omit<Explanation, "lines">): boolean {
  const isReachable = facts.rules.length === 0 || facts.trackingFiles.length > 0 || facts.rules.some(({ mayHappen }) => mayHappen);
  return isReachable && !facts.isParked && facts.payload?.kind === "built" && facts.subscriptions.some(({ state }) => state === "enabled");
}

function linesOf(facts: Omit<Explanation, "lines">): readonly string[] {
  const { event, file, key, table, isFound, where, rules, trackingFiles, isParked, project, payload, subscriptions } = facts;
  const lines = [`${event} (${file}) for ${table === undefined ? "key" : table} ${key}`];
  if (table === undefined) lines.push("It has no table: it happens when it is triggered, with the data that the trigger gives.");
  if (isFound === false) lines.push(`${table ?? ""} has no record with the key ${JSON.stringify(key)}.`);
  if (where !== undefined) {
    lines.push(
      where.error === undefined
        ? `where is ${String(where.holds)} for this record.`
        : `where threw ${where.error}: no change of this record can make it happen.`,
    );
  }
  if (table !== undefined && rules.length === 0) lines.push("It has no rule: it happens when it is triggered.");
  for (const { words, mayHappen } of rules) lines.push(`${mayHappen ? "yes" : "no "}  ${words}`);
  if (trackingFiles.length > 0)
    lines.push(`Changes of ${table ?? ""} are also handled by ${trackingFiles.join(", ")}, which may trigger it.`);
  if (isParked) lines.push("It is PARKED: its code was rejected too often with no success in between. Correct it, then restart.");
  if (project !== undefined) lines.push(`The record is project ${project}'s.`);
  if (payload?.kind === "built") lines.push(`It would send ${JSON.stringify(payload.value)}`);
  if (payload?.kind === "nothing") lines.push("Its payload function returns undefined for this record: nothing happens.");
  if (payload?.kind === "rejected") lines.push(`It would be a rejection (${payload.reason}): ${payload.error}`);
  if (project !== undefined && subscriptions.length === 0)
    lines.push(`No subscription of project ${project} takes it: it would be journaled and sent to nobody.`);
  for (const { id, url, state, stateReason } of subscriptions) {
    const reason = stateReason === null || stateReason === undefined ? "" : `, ${stateReason}`;
    lines.push(state === "enabled" ? `To ${url} (${id}).` : `Not to ${url} (${id}): it is ${state}${reason}.`);
  }
  return lines;
}
