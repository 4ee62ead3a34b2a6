import { writeFile } from "node:fs/promises";
import { Command, Option } from "commander";
import { measureBacklog, profileBacklog } from "./backlog.ts";
import { openEnvironment } from "./environment.ts";
import { measureInsertCost } from "./insert-cost.ts";
import { measureIsolation } from "./isolation.ts";
import { measureLatency } from "./latency.ts";
import { measurePeers } from "./peers.ts";
import { formatProfile } from "./profile.ts";
import { formatReport, type Report } from "./report.ts";
import { runSystem } from "./round.ts";
import { measureScale } from "./scale.ts";
import { startServer, type Server } from "./server.ts";
import { measureThroughput } from "./throughput.ts";

interface Flags {
  readonly json?: true;
  readonly quick?: true;
  readonly only?: string;
  readonly database?: string;
  readonly profile?: string;
  readonly shape: "bulk" | "small" | "backlog";
}

type Section = Exclude<keyof Report, "settings">;
const sections: readonly Section[] = ["throughput", "peers", "latency", "isolation", "backlog", "insertCost", "scale"];

const program = new Command("npm run bench --")
  .description("Measures what a delivery costs, and beside what, in one run. See bench/README.md.")
  .option("--json", "print one JSON object and nothing else")
  .option("--quick", "fewer and shorter rounds: within two minutes")
  .option("--only <sections>", `only these, separated by commas: ${sections.join(", ")}`)
  .option("--database <url>", "a PostgreSQL to measure on, instead of an embedded one; each section makes a database in it, and drops it")
  .option("--profile <file>", "instead of measuring, write a CPU profile of Ancrage's process there and print what costs most")
  .addOption(
    new Option("--shape <shape>", "how the rows of the profile are committed; backlog: long ago")
      .choices(["bulk", "small", "backlog"])
      .default("bulk"),
  );
const flags = program.parse().opts<Flags>();
const only = (flags.only?.split(",") ?? sections) as readonly Section[];
const unknown = only.filter((name) => !sections.includes(name));
if (unknown.length > 0) program.error(`--only: expected some of ${sections.join(", ")}, got "${unknown.join(",")}".`);

// Progress goes to standard error: with --json the other stream is the report alone.
const tell = (words: string): void => console.error(words);

const server = await startServer(flags.database);
try {
  if (flags.profile === undefined) {
    const report = await measure(server);
    console.log(flags.json ? JSON.stringify(report) : formatReport(report));
  } else {
    await profile(flags.profile);
  }
} finally {
  await server.remove();
}

async function measure(on: Server): Promise<Report> {
  const { quick } = flags;
  const run: { readonly [Name in Section]: () => Required<Report>[Name] | Promise<Required<Report>[Name]> } = {
    throughput: () =>
      measureThroughput(
        on,
        quick ? { rounds: 2, deliveries: 4_000, budgetMs: 10_000 } : { rounds: 7, deliveries: 20_000, budgetMs: 90_000 },
        tell,
      ),
    peers: () => measurePeers(on, quick ? { rounds: 2, deliveries: 3_000 } : { rounds: 5, deliveries: 20_000 }, tell),
    latency: () => measureLatency(on, { perS: 200, seconds: quick ? 4 : 30 }, tell),
    isolation: () =>
      measureIsolation(
        on,
        quick ? { rounds: 1, seconds: 3, perS: 200, deliveries: 1_000 } : { rounds: 5, seconds: 10, perS: 200, deliveries: 5_000 },
        tell,
      ),
    backlog: () => measureBacklog(on, quick ? { deliveries: 50_000, drained: 5_000 } : { deliveries: 1_000_000, drained: 100_000 }, tell),
    insertCost: () => measureInsertCost(on, quick ? { rounds: 2, seconds: 1 } : { rounds: 9, seconds: 3 }, tell),
    scale: () => measureScale(on, quick ? 10_000 : 100_000, tell),
  };
  const measured: Partial<Record<Section, unknown>> = {};
  for (const section of only) {
    try {
      measured[section] = await run[section]();
    } catch (error) {
      // What the others have measured took long.
      tell(`${section} failed, and is left out: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      process.exitCode = 1;
    }
  }
  return { ...measured, settings: on.settings } as Report;
}

async function profile(file: string): Promise<void> {
  const deliveries = flags.quick ? 10_000 : 30_000;
  const env = await openEnvironment(server);
  try {
    if (flags.shape === "backlog") {
      const drained = 3 * deliveries;
      const found = await profileBacklog(env, drained);
      await writeFile(file, JSON.stringify(found));
      console.log(formatProfile(found, drained));
      return;
    }
    await env.subscribe([`${env.urls.http}/hook`]);
    await runSystem(env, { deliveries, shape: flags.shape });
    await env.system.call("startProfile");
    for (let round = 0; round < 3; round++) {
      const { perS, cpuUs } = await runSystem(env, { deliveries, shape: flags.shape });
      tell(`${flags.shape}: ${Math.round(perS)}/s, ${Math.round(cpuUs)} µs of CPU a delivery, the profiler's own included`);
    }
    const found = await env.system.call("stopProfile");
    await writeFile(file, JSON.stringify(found));
    console.log(formatProfile(found, 3 * deliveries));
  } finally {
    await env.remove();
  }
}
