import { openEnvironment, type Environment } from "./environment.ts";
import { runPaced, summarizeDelays, type Latency } from "./latency.ts";
import { runSystem } from "./round.ts";
import type { Server } from "./server.ts";
import { computeMedian } from "./statistics.ts";

/** A healthy receiver beside ten that hang, to what it has alone. All of them subscribe to the same event. */
export interface Isolation {
  /** p99 of commit to arrival, beside ÷ alone. */
  readonly p99Ratio: number;
  /** Deliveries a second to the healthy one, beside ÷ alone. */
  readonly throughputRatio: number;
  readonly alone: Healthy;
  readonly besideHanging: Healthy;
  /** Beside ten more that answer at once: what ten more deliveries a row cost in themselves. */
  readonly besideHealthy: Pick<Healthy, "perS">;
  /** After which a hanging receiver's attempt fails. */
  readonly deadlineMs: number;
}

interface Healthy extends Pick<Latency, "p50Ms" | "p99Ms" | "maxMs"> {
  readonly perS: number;
}

export interface IsolationSize {
  readonly rounds: number;
  readonly seconds: number;
  readonly perS: number;
  readonly deliveries: number;
}

const neighbours = 10;
/** Shorter than the default of 15 s, so that deadlines pass, and failures are journaled and retried, within each round. */
const deadlineMs = 2_000;

export async function measureIsolation(server: Server, size: IsolationSize, tell: (words: string) => void): Promise<Isolation> {
  const env = await openEnvironment(server, { timeoutMs: deadlineMs });
  try {
    const alone: Measured = { delaysMs: [], perS: [] };
    const hanging: Measured = { delaysMs: [], perS: [] };
    const healthy: Measured = { delaysMs: [], perS: [] };
    await subscribeBeside(env, []);
    await runPaced(env, { perS: size.perS, seconds: 1 });
    await runSystem(env, { deliveries: size.deliveries });
    for (let round = 1; round <= size.rounds; round++) {
      await subscribeBeside(env, []);
      await measure(env, size, alone);
      await subscribeBeside(env, paths("/stay"));
      // All of them have run into their deadline once.
      await runPaced(env, { perS: size.perS, seconds: (1.5 * deadlineMs) / 1000 });
      await measure(env, size, hanging);
      await subscribeBeside(env, paths("/hook"));
      healthy.perS.push(
        (await runSystem(env, { deliveries: size.deliveries * (1 + neighbours), fanOut: 1 + neighbours })).perS / (1 + neighbours),
      );
      tell(
        `isolation, ${round}/${size.rounds}: p99 alone ${summarizeDelays(alone.delaysMs).p99Ms.toFixed(1)} ms, beside ${neighbours} that hang ${summarizeDelays(hanging.delaysMs).p99Ms.toFixed(1)} ms; ${alone.perS.map(Math.round).join(", ")}/s alone, ${hanging.perS.map(Math.round).join(", ")}/s beside`,
      );
    }
    const summary = { alone: summarize(alone), besideHanging: summarize(hanging) };
    return {
      p99Ratio: summary.besideHanging.p99Ms / summary.alone.p99Ms,
      throughputRatio: computeMedian(hanging.perS.map((perS, index) => perS / (alone.perS[index] ?? Number.NaN))),
      ...summary,
      besideHealthy: { perS: computeMedian(healthy.perS) },
      deadlineMs,
    };
  } finally {
    await env.remove();
  }
}

interface Measured {
  readonly delaysMs: number[];
  readonly perS: number[];
}

async function measure(env: Environment, { perS, seconds, deliveries }: IsolationSize, into: Measured): Promise<void> {
  into.delaysMs.push(...(await runPaced(env, { perS, seconds })).delaysMs);
  into.perS.push((await runSystem(env, { deliveries })).perS);
}

/** The healthy one, and these; what the ones before it had left is canceled before this ends. */
async function subscribeBeside(env: Environment, others: readonly string[]): Promise<void> {
  await env.subscribe(["/hook", ...others].map((path) => env.urls.http + path));
  const { client } = env.database;
  for (;;) {
    const { rows } = await client.query(`select from ancrage.deliveries where state in ('pending', 'retrying') limit 1`);
    if (rows.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const paths = (path: string): readonly string[] => Array.from({ length: neighbours }, (_, index) => `${path}?${index}`);

const summarize = ({ delaysMs, perS }: Measured): Healthy => ({ ...summarizeDelays(delaysMs), perS: computeMedian(perS) });
