import { writeFile } from "node:fs/promises";
import { Command, Option } from "commander";
import { startEnvironment, type Settings } from "./environment.ts";
import { measureLatency, type Latency } from "./latency.ts";
import { formatProfile } from "./profile.ts";
import { measureThroughput, runSystem, type Throughput } from "./throughput.ts";

/** What `--json` prints. Names are added and never changed: figures of two versions are compared by them. */
interface Report {
  readonly throughput?: Throughput;
  readonly latency?: Latency;
  readonly settings: Settings;
}

interface Flags {
  readonly json?: true;
  readonly quick?: true;
  readonly only?: string;
  readonly profile?: string;
  readonly shape: "bulk" | "small";
}

const measurements = ["throughput", "latency"];

const program = new Command("npm run bench --")
  .description("Measures what a delivery costs, beside bare undici in the same run. See bench/README.md.")
  .option("--json", "print one JSON object and nothing else")
  .option("--quick", "fewer and shorter rounds: within 40 seconds instead of 2 minutes")
  .option("--only <measurements>", `only these, separated by commas: ${measurements.join(", ")}`)
  .option("--profile <file>", "instead of measuring, write a CPU profile of Ancrage's process there and print what costs most")
  .addOption(new Option("--shape <shape>", "how the rows of the profile are committed").choices(["bulk", "small"]).default("bulk"));
const flags = program.parse().opts<Flags>();
const only = flags.only?.split(",") ?? measurements;
const unknown = only.filter((name) => !measurements.includes(name));
if (unknown.length > 0) program.error(`--only: expected ${measurements.join(" or ")}, got "${unknown.join(",")}".`);

// Progress goes to standard error: with --json the other stream is the report alone.
const tell = (words: string): void => console.error(words);

const env = await startEnvironment();
try {
  if (flags.profile === undefined) {
    const report: Report = {
      ...(only.includes("throughput")
        ? {
            throughput: await measureThroughput(
              env,
              flags.quick ? { rounds: 3, deliveries: 10_000, budgetMs: 18_000 } : { rounds: 5, deliveries: 20_000, budgetMs: 70_000 },
              tell,
            ),
          }
        : {}),
      ...(only.includes("latency") ? { latency: await measureLatency(env, { perS: 200, seconds: flags.quick ? 5 : 20 }, tell) } : {}),
      settings: env.settings,
    };
    console.log(flags.json ? JSON.stringify(report) : formatReport(report));
  } else {
    await profile(flags.profile);
  }
} finally {
  await env.remove();
}

async function profile(file: string): Promise<void> {
  const deliveries = flags.quick ? 10_000 : 30_000;
  await runSystem(env, deliveries, flags.shape);
  await env.system.call("startProfile");
  for (let round = 0; round < 3; round++) {
    const { perS, cpuUs } = await runSystem(env, deliveries, flags.shape);
    tell(`${flags.shape}: ${Math.round(perS)}/s, ${Math.round(cpuUs)} µs of CPU a delivery, the profiler's own included`);
  }
  const profile = await env.system.call("stopProfile");
  await writeFile(file, JSON.stringify(profile));
  console.log(formatProfile(profile, 3 * deliveries));
}

function formatReport({ throughput, latency, settings }: Report): string {
  const lines: string[] = [];
  if (throughput !== undefined) {
    const { ceilingPerS, ceilingCpuUsPerDelivery, perS, ratio, cpuUsPerDelivery, postgresCpuUsPerDelivery, spread, rounds, small } =
      throughput;
    const row = (name: string, rate: number, part: number, cpuUs: number): string =>
      `${name.padEnd(38)}${Math.round(rate).toLocaleString("en").padStart(9)}${part.toFixed(2).padStart(10)}${Math.round(cpuUs).toString().padStart(10)}`;
    lines.push(
      `${"deliveries, bodies of".padEnd(22)}${`${throughput.bodyBytes} bytes`.padEnd(16)}${"a second".padStart(9)}${"ratio".padStart(10)}${"CPU (µs)".padStart(10)}`,
      row("bare undici, signed: the ceiling", ceilingPerS, 1, ceilingCpuUsPerDelivery),
      row("committed at once", perS, ratio, cpuUsPerDelivery),
      row("committed one by one", small.perS, small.ratio, small.cpuUsPerDelivery),
      `(the application itself committed ${Math.round(small.committedPerS).toLocaleString("en")} a second one by one)`,
      `PostgreSQL: ${postgresCpuUsPerDelivery === undefined ? "unknown" : Math.round(postgresCpuUsPerDelivery)} µs a delivery. The ${rounds} rounds lie ${Math.round(spread * 100)} % apart.`,
    );
  }
  if (latency !== undefined) {
    lines.push(
      `commit to arrival at ${latency.perS} events a second: p50 ${latency.p50Ms.toFixed(1)} ms, p99 ${latency.p99Ms.toFixed(1)} ms, max ${latency.maxMs.toFixed(1)} ms (${latency.events} events; the application's own commit p50 ${latency.applicationCommitP50Ms.toFixed(1)} ms)`,
    );
  }
  lines.push(
    `${settings.cores} cores (${settings.processor}), Node ${settings.node}, PostgreSQL ${settings.postgres}, fsync ${settings.fsync}, synchronous_commit ${settings.synchronousCommit}`,
  );
  if (settings.loadBefore > settings.cores / 2) {
    lines.push(
      `Others were busy: a load of ${settings.loadBefore.toFixed(1)} on ${settings.cores} cores before the first round. Trust ratios only, and run it again.`,
    );
  }
  return lines.join("\n");
}
