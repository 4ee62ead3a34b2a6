import { Counter, Gauge, Registry, collectDefaultMetrics } from "prom-client";
import type { SlotHealth } from "./capture/health.ts";
import type { Status } from "./http/services.ts";

/** What the metrics are read from, at the moment when they are asked for. */
export interface Readings {
  readonly status: Status;
  readonly isLeading: boolean;
  readonly slot: SlotHealth | undefined;
  readonly subscriptions: number;
  readonly deliveriesInMemory: number;
  readonly lanesBehind: number;
  readonly ignoredTriggers: number;
  /** Since the start of this process. */
  readonly messages: number;
  readonly rejections: number;
  /** By the state that deliveries came into. */
  readonly deliveries: Readonly<Record<string, number>>;
}

/** The metrics of this process, which all instances in it share; made when they are first asked for. */
let ofProcess: Registry | undefined;

/**
 * In Prometheus' text format. Read when they are asked for: nothing is counted twice, and nothing is counted for nobody.
 *
 * `docs/reference/metrics.md` describes each; a test holds the two together.
 */
export async function renderMetrics(readings: Readings): Promise<string> {
  if (ofProcess === undefined) {
    ofProcess = new Registry();
    collectDefaultMetrics({ register: ofProcess });
  }
  const registry = new Registry();
  const gauge = (name: string, help: string, value: number | undefined): void => {
    if (value !== undefined) new Gauge({ name: `ancrage_${name}`, help, registers: [registry] }).set(value);
  };
  const counter = (name: string, help: string, value: number): void => {
    new Counter({ name: `ancrage_${name}`, help, registers: [registry] }).inc(value);
  };
  const labelled = (name: string, help: string, label: string, values: Readonly<Record<string, number>>): void => {
    const metric = new Gauge({ name: `ancrage_${name}`, help, labelNames: [label], registers: [registry] });
    for (const [value, number] of Object.entries(values)) metric.set({ [label]: value }, number);
  };
  const { status, slot } = readings;
  gauge("ready", "1 where changes are captured and delivered: what /readyz answers.", Number(status.isReady));
  gauge("leading", "1 in the process that captures and sends, 0 in a standby.", Number(readings.isLeading));
  labelled("problem", "1 for each kind of problem that the status shows.", "code", ofProblems(status));
  const log = slot?.state === "unused" ? undefined : slot;
  gauge("capture_lag_bytes", "Of the log that is not journaled.", log?.lagBytes);
  gauge("capture_lag_seconds", "How old the oldest of that is.", log?.lagS);
  gauge("slot_kept_bytes", "Of the log that PostgreSQL keeps for the slot.", log?.keptBytes);
  gauge("slot_safe_bytes", "What may still be written before the slot is lost; absent without max_slot_wal_keep_size.", slot?.safeBytes);
  gauge("slot_seconds_left", "Until then, as fast as it grows now; absent while it does not grow.", slot?.secondsLeft);
  if (log !== undefined) labelled("slot_state", "1 for the state that the slot is in.", "state", ofStates(log));
  gauge(
    "oldest_transaction_seconds",
    "Age of the oldest open transaction, which holds vacuum and the log back.",
    slot?.oldestTransaction?.ageS,
  );
  gauge("outbox_bytes", "Of the outbox's tables with their indexes; absent where the log is read.", slot?.outboxBytes);
  gauge("subscriptions", "That are in the registry of this process.", readings.subscriptions);
  gauge("deliveries_in_memory", "Held for sending by this process.", readings.deliveriesInMemory);
  gauge("lanes_behind", "Subscriptions that send from the journal, since more came than they take.", readings.lanesBehind);
  counter("messages_total", "Journaled since the start.", readings.messages);
  counter("rejections_total", "Occurrences that could not become messages, since the start.", readings.rejections);
  counter("ignored_triggers_total", "Logical messages with our prefix that were not ours, since the start.", readings.ignoredTriggers);
  const outcomes = new Counter({
    name: "ancrage_deliveries_total",
    help: "That came into a state, since the start.",
    labelNames: ["state"],
    registers: [registry],
  });
  for (const [state, count] of Object.entries(readings.deliveries)) outcomes.inc({ state }, count);
  return `${await registry.metrics()}\n${await ofProcess.metrics()}`;
}

const ofProblems = ({ problems }: Status): Record<string, number> => Object.fromEntries(problems.map(({ code }) => [code, 1]));

const ofStates = ({ state }: SlotHealth): Record<string, number> =>
  Object.fromEntries(["reserved", "extended", "unreserved", "lost", "missing"].map((one) => [one, Number(one === state)]));
