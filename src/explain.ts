import type { Row } from "./capture/change.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue, CatalogueEvent, CompiledRule } from "./event/catalogue.ts";
import { suggestName } from "./nearest-name.ts";
import { askWhere } from "./match.ts";
import { buildApart } from "./payload/build-apart.ts";
import type { Payload, PayloadDeps } from "./payload/build.ts";
import { describeThrown } from "./payload/describe.ts";
import { readRecords } from "./payload/load.ts";
import type { RejectionReason } from "./payload/reject.ts";
import { sampleInput } from "./payload/sample.ts";
import { compileFilter, type FilterSpec } from "./subscription/filter.ts";

export interface ExplainDeps extends PayloadDeps {
  readonly catalogue: Catalogue;
  /** The subscriptions of a project to an event, those that are paused or disabled included. */
  readonly subscriptionsOf: (project: string, event: string) => Promise<readonly ExplainedSubscription[]>;
}

/** What is to be known of a subscription; its row has it. */
export interface ExplainedSubscription {
  readonly id: string;
  readonly url: string;
  readonly state: string;
  readonly stateReason?: string | null | undefined;
  /** As `subscription/filter.ts` has it; without one it wants every payload. */
  readonly filter?: Readonly<Record<string, unknown>> | null | undefined;
}

export interface ExplainOptions {
  readonly key: string;
  /** Another project's record is none. `undefined` means any project. */
  readonly project?: string | undefined;
}

/** Whether an event would happen for a record as it is now, to whom it would go, and why not. JSON can hold it. */
export interface Explanation {
  readonly event: string;
  readonly file: string;
  readonly key: string;
  readonly table: string | null;
  /** Whose record it is; null where there is no such record, or it cannot be told. */
  readonly project: string | null;
  /** Whether it would be sent to whoever is subscribed: a rule or a trigger that may apply, and a payload. */
  readonly fires: boolean;
  /** Null for an event without a table. */
  readonly isFound: boolean | null;
  /** Whether `where` holds; null where there is no `where` or no record. */
  readonly where: { readonly holds: boolean; readonly error?: string } | null;
  readonly rules: readonly ExplainedRule[];
  /** Files that watch the table and may trigger the event themselves. */
  readonly trackingFiles: readonly string[];
  readonly isParked: boolean;
  /** What would be sent; null where nothing would. */
  readonly payload: unknown;
  /** The rejection that it would be. */
  readonly rejection: { readonly reason: RejectionReason; readonly error: string } | null;
  readonly subscriptions: readonly {
    readonly id: string;
    readonly url: string;
    readonly receives: boolean;
    /** Why it does not; null where it does. */
    readonly reason: string | null;
  }[];
  /** All of it for a person, one sentence each, as `ancrage explain` prints it. */
  readonly findings: readonly string[];
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
 * @example (await explain("NewOpportunity", { key: "42" }, deps)).findings.join("\n")
 * @throws AncrageError `ANCRAGE_TRIGGER_UNKNOWN_EVENT`
 * @throws BatchFault PostgreSQL could not be read just now
 */
export async function explain(eventName: string, options: ExplainOptions, deps: ExplainDeps): Promise<Explanation> {
  const event = deps.catalogue.events.get(eventName);
  if (event === undefined) {
    throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", `no file defines the event "${eventName}".`, {
      hint: suggestName(eventName, [...deps.catalogue.events.keys()]),
    });
  }
  const { key } = options;
  const { record, problem } = await recordOf(event, options, deps);
  const where = whereOf(event, record);
  const payload = record === undefined ? undefined : await preview(event, key, record, deps);
  // An event without a table has no record to ask; it goes to the project that its trigger's data names.
  const project = record === undefined ? (event.table === undefined ? options.project : undefined) : projectOf(event, record, deps);
  const subscriptions = project === undefined ? [] : await deps.subscriptionsOf(project, event.name);
  const facts: Facts = {
    event: event.name,
    file: event.file,
    key,
    table: event.table?.name ?? null,
    project: project ?? null,
    isFound: event.table === undefined ? null : record !== undefined,
    where: where ?? null,
    rules: event.rules.map((rule) => explainRule(rule, event, record, where)),
    trackingFiles: event.table === undefined ? [] : (deps.catalogue.tables.get(event.table.name)?.handlers.map(({ file }) => file) ?? []),
    isParked: deps.isParked?.(event.name) === true,
    payload: payload?.kind === "built" ? (JSON.parse(payload.json) as unknown) : null,
    rejection: payload?.kind === "rejected" ? { reason: payload.reason, error: payload.error } : null,
    subscriptions: subscriptions.map((one) => {
      const reason = whyNot(one, payload);
      return { id: one.id, url: one.url, receives: reason === null, reason };
    }),
  };
  const isFiring = fires(facts, payload);
  return { ...facts, fires: isFiring, findings: [...findingsOf(facts, { payload, isFiring, problem }), ...receiversOf(facts, isFiring)] };
}

function whyNot({ state, stateReason, filter }: ExplainedSubscription, payload: Payload | undefined): string | null {
  if (state !== "enabled") return stateReason === null || stateReason === undefined ? state : `${state}: ${stateReason}`;
  if (filter === null || filter === undefined || payload?.kind !== "built") return null;
  const wants = compileFilter(filter as FilterSpec);
  return wants(JSON.parse(payload.json)) ? null : `its filter ${JSON.stringify(filter)} does not want this payload`;
}

type Facts = Omit<Explanation, "fires" | "findings">;

interface Found {
  readonly record?: Row | undefined;
  /** Why it could not be read: a column of its key is gone, a right lacks. */
  readonly problem?: string | undefined;
}

async function recordOf(event: CatalogueEvent, { key, project }: ExplainOptions, deps: ExplainDeps): Promise<Found> {
  if (event.table === undefined) return {};
  const record = (await readRecords(deps.readers, event.table, [key])).get(key);
  if (record === undefined) return {};
  if (record instanceof Error) return { problem: describeThrown(record) };
  // Not even that it is there may be told of another project's record.
  return project === undefined || projectOf(event, record, deps) === project ? { record } : {};
}

type Where = NonNullable<Explanation["where"]> | undefined;

function whereOf(event: CatalogueEvent, record: Row | undefined): Where {
  if (event.definition.where === undefined || record === undefined) return undefined;
  try {
    return { holds: askWhere(event, record) };
  } catch (error) {
    return { holds: false, error: describeThrown(error, event.file) };
  }
}

function projectOf(event: CatalogueEvent, record: Row, deps: ExplainDeps): string | undefined {
  try {
    return deps.catalogue.projectOf(event, record);
  } catch {
    // The payload's rejection says why.
    return undefined;
  }
}

/** The parked state aside: what its code would do is what a person asks here. */
async function preview(event: CatalogueEvent, key: string, record: Row, deps: ExplainDeps): Promise<Payload | undefined> {
  const [payload] = await buildApart([sampleInput(event, key, record)], { ...deps, isParked: () => false });
  return payload;
}

function explainRule(rule: CompiledRule, event: CatalogueEvent, record: Row | undefined, where: Where): ExplainedRule {
  const isFound = record !== undefined;
  const holds = where === undefined || where.holds;
  const table = event.table?.name ?? "the table";
  // A record that is not there may be inserted, and `where` is then asked of what it is by then.
  const may = !isFound || holds;
  const condition = event.definition.where === undefined ? "" : ", if where holds for it";
  switch (rule.kind) {
    case "insert":
      return { kind: rule.kind, mayHappen: may, words: `on insert: when a record of ${table} is inserted${condition}` };
    case "update":
      return { kind: rule.kind, mayHappen: may, words: `on update: when a record of ${table} is updated${condition}` };
    case "update-columns": {
      const { kind, columns } = rule;
      const gone = columns.find((column) => !isReadable(record, column));
      if (gone !== undefined)
        return { kind, columns, mayHappen: false, words: `on update of ${columns.join(", ")}: there is no "${gone}" any more` };
      const words = `on update of ${columns.join(", ")}: when one of them gets another value${condition}`;
      return { kind, columns, mayHappen: may, words };
    }
    case "delete":
      return { kind: rule.kind, mayHappen: may, words: `on delete: when a record of ${table} is deleted${condition}` };
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

/** Not where the table has lost it since the definitions were checked. */
function isReadable(record: Row | undefined, column: string): boolean {
  try {
    void record?.[column];
    return true;
  } catch {
    return false;
  }
}

function fires(facts: Facts, payload: Payload | undefined): boolean {
  if (facts.isParked) return false;
  // What is triggered is asked for no rule, and without a table there is no record that would say more.
  if (facts.isFound === null) return true;
  const mayHappen = facts.rules.length === 0 || facts.trackingFiles.length > 0 || facts.rules.some((rule) => rule.mayHappen);
  return mayHappen && payload?.kind === "built";
}

interface Outcome {
  readonly payload: Payload | undefined;
  readonly isFiring: boolean;
  readonly problem: string | undefined;
}

function findingsOf(facts: Facts, { payload, isFiring, problem }: Outcome): readonly string[] {
  const { event, file, key, table, isFound, where, rules, trackingFiles, isParked, project, rejection } = facts;
  const findings = [`${event} (${file}) for ${table ?? "the key"} ${key}:`];
  if (table === null) findings.push("It has no table: it happens when it is triggered, with the data that the trigger gives.");
  else if (problem !== undefined) findings.push(`${table} could not be read: ${problem}.`);
  else if (isFound === false) findings.push(`${table} has no record with the key ${JSON.stringify(key)}.`);
  if (where?.error !== undefined) findings.push(`where threw ${where.error}: no change of this record can make it happen.`);
  else if (where !== null) findings.push(`where is ${where.holds ? "true" : "false"} for this record as it is.`);
  if (table !== null && rules.length === 0) findings.push("It has no rule: it happens when it is triggered.");
  // Of a record that is not there nothing can be said but when the event happens at all.
  const may = isFound === false ? "It happens" : "It may happen";
  for (const { words, mayHappen } of rules) findings.push(`${mayHappen ? may : "As it is, it does not happen"} ${words}.`);
  if (trackingFiles.length > 0)
    findings.push(`Changes of ${table ?? ""} are also handled by ${trackingFiles.join(", ")}, which may trigger it.`);
  if (isParked) findings.push("It is parked: its code was rejected too often with no success in between. Correct it, then restart.");
  if (project !== null) findings.push(`It is of the project ${project}.`);
  if (payload?.kind === "built") findings.push(`${isFiring ? "It would send" : "Triggered by hand, it would send"} ${payload.json}`);
  if (payload?.kind === "nothing") findings.push("Its payload function returns undefined for this record: nothing happens.");
  if (rejection !== null) findings.push(`It would be a rejection (${rejection.reason}): ${rejection.error}.`);
  return findings;
}

function receiversOf({ project, subscriptions }: Facts, isFiring: boolean): readonly string[] {
  if (project === null) return [];
  if (subscriptions.length === 0) return [`No subscription of the project ${project} takes it: it would be journaled and sent to nobody.`];
  return subscriptions.map(({ id, url, receives, reason }) =>
    receives
      ? `${isFiring ? "It would go" : "If it happened, it would go"} to ${url} (${id}).`
      : `It would not go to ${url} (${id}): ${reason ?? ""}.`,
  );
}
