import type { Captured, Change } from "../capture/change.ts";
import { askedOf } from "../capture/lacking.ts";
import type { Delivery } from "../deliver/delivery.ts";
import type { Outcome } from "../deliver/outcome.ts";
import type { Catalogue, CatalogueEvent, CompiledRule } from "../event/catalogue.ts";
import { matchChange, matchTrigger } from "../match.ts";
import type { Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";

/**
 * What `dev` says of changes: a line each, with the events that they made happen, or why they made none.
 *
 * It asks the rules and handlers once more, beside the pipeline: they decide and do nothing else.
 *
 * @example ["deal 42 insert → NewOpportunity", "deal 42 update → nothing (NewOpportunity: happens on insert)"]
 */
export function describeCaptured(captured: readonly Captured[], catalogue: Catalogue): readonly string[] {
  const lines = captured.flatMap((item) => {
    if (item.kind === "change")
      return [
        {
          subject: `${item.table} ${item.key} ${item.action}`,
          kind: `${item.table} ${item.action}`,
          what: describeChange(item, catalogue),
        },
      ];
    if (item.kind !== "trigger") return [];
    const isKnown = matchTrigger(item, catalogue).occurrences.length > 0;
    return [{ subject: `trigger ${item.event} ${item.key}`, kind: `trigger ${item.event}`, what: isKnown ? item.event : "no such event" }];
  });
  if (lines.length <= mostLines) return lines.map(({ subject, what }) => `${subject} → ${what}`);
  // An import: what is the same is counted.
  const counts = new Map<string, number>();
  for (const { kind, what } of lines) counts.set(`${kind} → ${what}`, (counts.get(`${kind} → ${what}`) ?? 0) + 1);
  return [...counts].map(([line, count]) => `${count} × ${line}`);
}

const mostLines = 20;

function describeChange(change: Change, catalogue: Catalogue): string {
  const { occurrences, unmatched } = matchChange(change, catalogue);
  // The pipeline decides once it has read it; this is asked before.
  const asked = askedOf(change.after);
  if (asked.length > 0) return `decided once ${asked.join(", ")} is read, which the log did not carry`;
  const faults = unmatched.map(
    ({ event: { name: event }, error }) => `${event} threw: ${error instanceof Error ? error.message : String(error)}`,
  );
  const happened = occurrences.map(({ event, key }) => (key === change.key ? event.name : `${event.name} ${key}`));
  if (happened.length + faults.length > 0) return [...happened, ...faults].join(", ");
  const reasons = (catalogue.tables.get(change.table)?.events ?? []).map((event) => `${event.name}: ${explainNothing(event, change)}`);
  return reasons.length === 0 ? "nothing" : `nothing (${reasons.join("; ")})`;
}

/** Why none of an event's rules made it happen for a change that it did not happen for. */
function explainNothing(event: CatalogueEvent, change: Change): string {
  const asked = event.rules.filter((rule) => actionsOf(rule).includes(change.action));
  if (asked.length === 0) return `happens on ${event.rules.map(nameRule).join(", ")}`;
  const columns = asked.flatMap((rule) => (rule.kind === "update-columns" ? rule.columns : []));
  const isByColumns = columns.length > 0 && asked.every((rule) => rule.kind === "update-columns");
  if (isByColumns)
    return event.definition.where === undefined
      ? `${columns.join(", ")} did not change`
      : `${columns.join(", ")} did not change, or where is false`;
  return asked.every((rule) => rule.kind === "enter" || rule.kind === "leave") ? "where is not other than it was" : "where is false";
}

function actionsOf(rule: CompiledRule): readonly Change["action"][] {
  switch (rule.kind) {
    case "update-columns":
      return ["update"];
    case "enter":
      return ["insert", "update"];
    case "leave":
      return ["update", "delete"];
    case "insert":
    case "update":
    case "delete":
      return [rule.kind];
    default:
      return rule satisfies never;
  }
}

function nameRule(rule: CompiledRule): string {
  return rule.kind === "update-columns" ? `update of ${rule.columns.join(" or ")}` : rule.kind;
}

/** An attempt that has ended, as the signal tells of it. */
export interface Attempted {
  readonly message: Pick<Message, "event" | "key" | "id">;
  readonly outcome: Outcome;
  readonly subscription: Pick<Subscription, "id" | "origin" | "path">;
  /** As the delivery is from now on; undefined where it was canceled meanwhile. */
  readonly after: Pick<Delivery, "state" | "nextAttemptAtMs"> | undefined;
}

/**
 * What `dev` says of one attempt: where it failed, all that is needed to find out why.
 *
 * @example "NewOpportunity 42 delivered: 200 in 3 ms (msg_…)"
 */
export function describeAttempt({ message, outcome, subscription, after }: Attempted, nowMs: number): string {
  const head = `${message.event} ${message.key}`;
  const tail = `in ${Math.round(outcome.durationMs)} ms (${message.id})`;
  if (outcome.kind === "delivered") return `${head} delivered: ${outcome.status} ${tail}`;
  const status = outcome.status === undefined ? "" : ` ${outcome.status}`;
  // With a status it is the answer's first bytes, which may be a page of HTML; else what the socket said.
  const words = outcome.reason === "status" || outcome.response === undefined ? "" : ` (${outcome.response.toString()})`;
  const cure = outcome.reason === "blocked" ? "; --allow-network opens a network" : "";
  const to = `${subscription.origin}${subscription.path} of ${subscription.id}`;
  return `${head} failed: ${outcome.reason}${status}${words} ${tail}; ${to}; ${describeNext(after, nowMs)}${cure}`;
}

function describeNext(after: Attempted["after"], nowMs: number): string {
  if (after?.state === "exhausted") return "no attempt is left";
  if (after?.nextAttemptAtMs === undefined) return "no other attempt";
  const seconds = Math.max(0, Math.round((after.nextAttemptAtMs - nowMs) / 1000));
  if (seconds < 120) return `next attempt in ${seconds} s`;
  return seconds < 7200 ? `next attempt in ${Math.round(seconds / 60)} min` : `next attempt in ${Math.round(seconds / 3600)} h`;
}
