import { openEnvironment, type Environment } from "./environment.ts";
import type { Server } from "./server.ts";
import { computePercentile } from "./statistics.ts";
import type { PacedCommit } from "./writer.ts";

/** From the moment when the application sent its COMMIT to the arrival at the receiver. */
export interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** What the application itself waited for its COMMIT, which is a part of the above: the disk. */
  readonly applicationCommitP50Ms: number;
  readonly events: number;
  readonly perS: number;
  /** Where it waits, in order, as far as one process can tell it from the next; of a second run of the same length. */
  readonly steps: readonly Step[];
}

export interface Step {
  readonly name: string;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface Pace {
  readonly perS: number;
  readonly seconds: number;
}

export async function measureLatency(server: Server, pace: Pace, tell: (words: string) => void): Promise<Latency> {
  const env = await openEnvironment(server);
  try {
    await env.subscribe([`${env.urls.http}/hook`]);
    // The first second meets code that is not compiled yet.
    await runPaced(env, { ...pace, seconds: 1 });
    const { delaysMs, commitsMs } = await runPaced(env, pace);
    const steps = await measureSteps(env, pace);
    const latency = {
      ...summarizeDelays(delaysMs),
      applicationCommitP50Ms: computePercentile(commitsMs, 0.5),
      events: delaysMs.length,
      perS: pace.perS,
      steps,
    };
    tell(`latency: p50 ${latency.p50Ms.toFixed(1)} ms, p99 ${latency.p99Ms.toFixed(1)} ms, max ${latency.maxMs.toFixed(1)} ms`);
    return latency;
  } finally {
    await env.remove();
  }
}

/** With the points in the flow noted that tests wait for: they cost next to nothing, and yet the figures above are without. */
async function measureSteps(env: Environment, pace: Pace): Promise<readonly Step[]> {
  await env.restart({ isTraced: true });
  await runPaced(env, { ...pace, seconds: 1 });
  const { commits, arrivals } = await runPaced(env, pace);
  const trace = await env.system.call("trace");
  const events = commits.flatMap((commit) => {
    const passed = trace.get(commit.number);
    return passed === undefined ? [] : [{ ...commit, ...passed, arrivedAtMs: arrivals.get(commit.number) ?? Number.NaN }];
  });
  const step = (name: string, timeOf: (event: (typeof events)[number]) => number): Step => {
    const { p50Ms, p99Ms } = summarizeDelays(events.map(timeOf));
    return { name, p50Ms, p99Ms };
  };
  return [
    step("COMMIT sent → answered to the application", (event) => event.acknowledgedAtMs - event.sentAtMs),
    step("COMMIT sent → received from the log", (event) => event.receivedAtMs - event.sentAtMs),
    step("→ the batch before it is done", (event) => event.takenAtMs - event.receivedAtMs),
    step("→ visible", (event) => event.capturedAtMs - event.takenAtMs),
    step("→ built", (event) => event.writingAtMs - event.capturedAtMs),
    step("→ journaled, and its request written", (event) => event.journaledAtMs - event.writingAtMs),
    step("→ arrived", (event) => event.arrivedAtMs - event.journaledAtMs),
    step("answered to the application → arrived", (event) => event.arrivedAtMs - event.acknowledgedAtMs),
    step("COMMIT sent → arrived", (event) => event.arrivedAtMs - event.sentAtMs),
  ];
}

/** What each event took, and what each of the application's commits did. */
export interface Delays {
  readonly delaysMs: readonly number[];
  readonly commitsMs: readonly number[];
  readonly commits: readonly PacedCommit[];
  readonly arrivals: ReadonlyMap<number, number>;
}

/**
 * At a steady rate, one row a transaction, at random times: regular ones would always or never meet a timer of ours.
 *
 * The clock starts before the COMMIT and not at its answer: what is streamed at once may arrive before the application hears of it.
 */
export async function runPaced(env: Environment, { perS, seconds }: Pace): Promise<Delays> {
  const rows = Math.round(perS * seconds);
  const { all } = await env.arrivals(rows);
  const commits = await env.writer.call("writePaced", { rows, perS });
  await all;
  const arrivals = await env.receiver.call("arrivals");
  return {
    delaysMs: commits.map(({ number, sentAtMs }) => {
      const atMs = arrivals.get(number);
      if (atMs === undefined) throw new Error(`row ${number} was committed and did not arrive; something else did twice.`);
      return atMs - sentAtMs;
    }),
    commitsMs: commits.map(({ sentAtMs, acknowledgedAtMs }) => acknowledgedAtMs - sentAtMs),
    commits,
    arrivals,
  };
}

export const summarizeDelays = (delaysMs: readonly number[]): Pick<Latency, "p50Ms" | "p99Ms" | "maxMs"> => ({
  p50Ms: computePercentile(delaysMs, 0.5),
  p99Ms: computePercentile(delaysMs, 0.99),
  maxMs: Math.max(...delaysMs),
});
