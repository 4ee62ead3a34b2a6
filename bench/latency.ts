import { openEnvironment, type Environment } from "./environment.ts";
import type { Server } from "./server.ts";
import { computePercentile } from "./statistics.ts";

/** From the moment when the application sent its COMMIT to the arrival at the receiver. */
export interface Latency {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** What the application itself waited for its COMMIT, which is a part of the above: the disk. */
  readonly applicationCommitP50Ms: number;
  readonly events: number;
  readonly perS: number;
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
    const latency = {
      ...summarizeDelays(delaysMs),
      applicationCommitP50Ms: computePercentile(commitsMs, 0.5),
      events: delaysMs.length,
      perS: pace.perS,
    };
    tell(`latency: p50 ${latency.p50Ms.toFixed(1)} ms, p99 ${latency.p99Ms.toFixed(1)} ms, max ${latency.maxMs.toFixed(1)} ms`);
    return latency;
  } finally {
    await env.remove();
  }
}

/** What each event took, and what each of the application's commits did. */
export interface Delays {
  readonly delaysMs: readonly number[];
  readonly commitsMs: readonly number[];
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
  };
}

export const summarizeDelays = (delaysMs: readonly number[]): Pick<Latency, "p50Ms" | "p99Ms" | "maxMs"> => ({
  p50Ms: computePercentile(delaysMs, 0.5),
  p99Ms: computePercentile(delaysMs, 0.99),
  maxMs: Math.max(...delaysMs),
});
