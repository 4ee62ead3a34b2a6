import type { Environment } from "./environment.ts";
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

export interface LatencySize {
  readonly perS: number;
  readonly seconds: number;
}

/**
 * At a steady rate, one row a transaction, at random times: regular ones would always or never meet a timer of ours.
 *
 * The clock starts before the COMMIT and not at its answer: what is streamed at once may arrive before the application hears of it.
 */
export async function measureLatency(env: Environment, { perS, seconds }: LatencySize, tell: (words: string) => void): Promise<Latency> {
  const run = async (rows: number): Promise<Omit<Latency, "perS">> => {
    await env.receiver.call("reset");
    const arrived = env.receiver.call("until", rows);
    const commits = await env.writer.call("writePaced", { rows, perS });
    await env.inTime(arrived);
    const arrivals = await env.receiver.call("arrivals");
    const delaysMs = commits.map(({ number, sentAtMs }) => {
      const atMs = arrivals.get(number);
      if (atMs === undefined) throw new Error(`row ${number} was committed and did not arrive; something else did twice.`);
      return atMs - sentAtMs;
    });
    return {
      p50Ms: computePercentile(delaysMs, 0.5),
      p99Ms: computePercentile(delaysMs, 0.99),
      maxMs: Math.max(...delaysMs),
      applicationCommitP50Ms: computePercentile(
        commits.map(({ sentAtMs, acknowledgedAtMs }) => acknowledgedAtMs - sentAtMs),
        0.5,
      ),
      events: rows,
    };
  };
  // The first second meets code that is not compiled yet.
  await run(perS);
  const latency = { ...(await run(perS * seconds)), perS };
  tell(`latency: p50 ${latency.p50Ms.toFixed(1)} ms, p99 ${latency.p99Ms.toFixed(1)} ms, max ${latency.maxMs.toFixed(1)} ms`);
  return latency;
}
