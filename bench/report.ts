import type { Backlog } from "./backlog.ts";
import type { InsertCost } from "./insert-cost.ts";
import type { Isolation } from "./isolation.ts";
import type { Latency } from "./latency.ts";
import type { Peers } from "./peers.ts";
import type { Scale } from "./scale.ts";
import type { Settings } from "./server.ts";
import type { Compared, Throughput } from "./throughput.ts";

/** What `--json` prints. Names are added and never changed: figures of two versions are compared by them. */
export interface Report {
  readonly throughput?: Throughput;
  readonly peers?: Peers;
  readonly latency?: Latency;
  readonly isolation?: Isolation;
  readonly backlog?: Backlog;
  readonly insertCost?: InsertCost;
  readonly scale?: Scale;
  readonly settings: Settings;
}

/** A table for people. */
export function formatReport(report: Report): string {
  const { throughput, peers, latency, isolation, backlog, insertCost, scale, settings } = report;
  return [
    ...(throughput === undefined ? [] : [formatThroughput(throughput)]),
    ...(peers === undefined ? [] : [formatPeers(peers)]),
    ...(latency === undefined ? [] : [formatLatency(latency)]),
    ...(isolation === undefined ? [] : [formatIsolation(isolation)]),
    ...(backlog === undefined ? [] : [formatBacklog(backlog)]),
    ...(insertCost === undefined ? [] : [formatInsertCost(insertCost)]),
    ...(scale === undefined ? [] : [formatScale(scale)]),
    formatSettings(settings),
  ].join("\n\n");
}

function formatThroughput(throughput: Throughput): string {
  const { small, https, fanOut10, body8KiB, after100Ms, after1S } = throughput;
  const line = (name: string, { perS, ceilingPerS, ratio, cpuUsPerDelivery }: Compared): readonly string[] => [
    name,
    whole(perS),
    whole(ceilingPerS),
    ratio.toFixed(2),
    whole(cpuUsPerDelivery),
  ];
  const postgres = throughput.postgresCpuUsPerDelivery;
  return [
    formatTable([
      [`deliveries (bodies of ${throughput.bodyBytes} bytes)`, "a second", "bare undici", "ratio", "CPU (µs)"],
      line("committed at once", throughput),
      ["committed one by one", whole(small.perS), whole(throughput.ceilingPerS), small.ratio.toFixed(2), whole(small.cpuUsPerDelivery)],
      line("over HTTPS", https),
      line("each row to ten subscriptions", fanOut10),
      line(`bodies of ${(body8KiB.bodyBytes / 1024).toFixed(1)} KiB`, body8KiB),
      line("answered after 100 ms", after100Ms),
      line("answered after 1 s", after1S),
    ]),
    `The application itself committed ${whole(small.committedPerS)} a second one by one. PostgreSQL took ${postgres === undefined ? "unknown" : whole(postgres)} µs a delivery, bare undici ${whole(throughput.ceilingCpuUsPerDelivery)}. The ${throughput.rounds} rounds lie ${whole(throughput.spread * 100)} % apart.`,
  ].join("\n");
}

function formatPeers(peers: Peers): string {
  const rows = Object.entries(peers).map(([name, peer]) => [
    name,
    whole(peer.perS),
    whole(peer.oursPerS),
    peer.ratio.toFixed(2),
    whole(peer.cpuUsPerDelivery),
    whole(peer.oursCpuUsPerDelivery),
  ]);
  return formatTable([["signed, sent, recorded", "a second", "Ancrage", "ratio", "CPU (µs)", "Ancrage"], ...rows]);
}

function formatLatency({ p50Ms, p99Ms, maxMs, perS, events, applicationCommitP50Ms, steps }: Latency): string {
  const rows = steps.map((step) => [step.name, step.p50Ms.toFixed(2), step.p99Ms.toFixed(2)]);
  const line = `commit to arrival at ${perS} events a second: p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms, max ${maxMs.toFixed(1)} ms (${events} events; the application's own commit p50 ${applicationCommitP50Ms.toFixed(1)} ms)`;
  return [line, formatTable([["where it waits", "p50 (ms)", "p99 (ms)"], ...rows])].join("\n");
}

function formatIsolation(isolation: Isolation): string {
  const { alone, besideHanging, besideHealthy, p99Ratio, throughputRatio, deadlineMs, hostile } = isolation;
  const table = formatTable([
    [`one healthy receiver (deadline ${deadlineMs / 1000} s)`, "p50 (ms)", "p99 (ms)", "a second"],
    ["alone", alone.p50Ms.toFixed(1), alone.p99Ms.toFixed(1), whole(alone.perS)],
    ["beside ten that hang", besideHanging.p50Ms.toFixed(1), besideHanging.p99Ms.toFixed(1), whole(besideHanging.perS)],
    ["beside fourteen that answer", besideHealthy.p50Ms.toFixed(1), besideHealthy.p99Ms.toFixed(1), whole(besideHealthy.perS)],
    ["beside ten that hang ÷ alone", "", p99Ratio.toFixed(2), throughputRatio.toFixed(2)],
    ["beside fourteen that do harm", hostile.beside.p50Ms.toFixed(1), hostile.beside.p99Ms.toFixed(1), whole(hostile.beside.perS)],
    ["beside fourteen that do harm ÷ alone", "", hostile.p99Ratio.toFixed(2), hostile.throughputRatio.toFixed(2)],
  ]);
  return `${table}\nAfter the first round the most memory that the process had rose by ${whole(hostile.rssGrowthMiB)} MiB.`;
}

function formatBacklog(backlog: Backlog): string {
  const line = (name: string, drain: Backlog["oneSubscription"]): readonly string[] => [
    name,
    whole(drain.startMs),
    whole(drain.rssMiB),
    whole(drain.drainPerS),
    drain.drainRatio.toFixed(2),
  ];
  return formatTable([
    [`${whole(backlog.deliveries)} pending deliveries`, "start (ms)", "memory (MiB)", "a second", "ratio"],
    line("of one subscription", backlog.oneSubscription),
    line("of 100 subscriptions", backlog.hundredSubscriptions),
    line("of one, beside an old snapshot", backlog.besideOldSnapshot),
  ]);
}

function formatInsertCost({ walPercent, outboxPercent, bulk, writer, transactionsPerS }: InsertCost): string {
  const percent = (value: number | null): string => (value === null ? "not measured" : `${value.toFixed(1)} %`);
  return [
    formatTable([
      ["what capture adds to inserts", "one by one", "in bulk"],
      ["log", percent(walPercent), percent(bulk.walPercent)],
      ["outbox", percent(outboxPercent), percent(bulk.outboxPercent)],
    ]),
    `(${writer}: ${whole(transactionsPerS.without)} transactions a second without capture)`,
  ].join("\n");
}

function formatScale({ ratio, manyNsPerChange, fewNsPerChange, subscriptions, events, system }: Scale): string {
  const { one, many } = system;
  return [
    `match and fan-out of a change: ${whole(manyNsPerChange)} ns with ${whole(subscriptions)} subscriptions and ${whole(events)} events, ${whole(fewNsPerChange)} ns with ten and one: ${ratio.toFixed(2)}`,
    `the system over ${whole(system.subscriptions)} subscriptions: start ${whole(many.startMs)} ms, first delivery ${many.firstDeliveryMs.toFixed(1)} ms, memory ${whole(many.rssMiB)} MiB; over one: ${whole(one.startMs)} ms, ${one.firstDeliveryMs.toFixed(1)} ms, ${whole(one.rssMiB)} MiB`,
  ].join("\n");
}

function formatSettings(settings: Settings): string {
  const { cores, processor, node, postgres, fsync, synchronousCommit, loadBefore } = settings;
  const line = `${cores} cores (${processor}), Node ${node}, PostgreSQL ${postgres}, fsync ${fsync}, synchronous_commit ${synchronousCommit}`;
  if (loadBefore <= cores / 2) return line;
  return `${line}\nOthers were busy: a load of ${loadBefore.toFixed(1)} on ${cores} cores before the first round. Trust ratios only, and run it again.`;
}

const whole = (value: number): string => Math.round(value).toLocaleString("en");

/** The first column to the left, all others to the right. */
function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows
    .map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join("  "),
    )
    .join("\n");
}
