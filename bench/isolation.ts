import { startChild } from "./child.ts";
import { openEnvironment, type Environment } from "./environment.ts";
import type { HostileMethods } from "./hostile.ts";
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
  /** Beside ten that hang, one that drips, one that answers a gibibyte, one that answers every byte value, and one that resets. */
  readonly hostile: Hostile;
}

export interface Hostile {
  /** The healthy one's p99, beside ÷ alone. */
  readonly p99Ratio: number;
  /** Its deliveries a second, beside ÷ alone. */
  readonly throughputRatio: number;
  /** By how much the most memory that the process had rose beside them. */
  readonly rssGrowthMiB: number;
  readonly beside: Healthy;
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
  const harm = startChild<HostileMethods>(new URL("hostile.ts", import.meta.url));
  try {
    const alone: Measured = { delaysMs: [], perS: [] };
    const hanging: Measured = { delaysMs: [], perS: [] };
    const healthy: Measured = { delaysMs: [], perS: [] };
    const hostile: Measured = { delaysMs: [], perS: [] };
    await subscribeBeside(env, []);
    await runPaced(env, { perS: size.perS, seconds: 1 });
    await runSystem(env, { deliveries: size.deliveries });
    for (let round = 1; round <= size.rounds; round++) {
      await subscribeBeside(env, []);
      await measure(env, size, alone);
      await subscribeBeside(env, paths(env, "/stay"));
      // All of them have run into their deadline once.
      await runPaced(env, { perS: size.perS, seconds: (1.5 * deadlineMs) / 1000 });
      await measure(env, size, hanging);
      await subscribeBeside(env, paths(env, "/hook"));
      healthy.perS.push(
        (await runSystem(env, { deliveries: size.deliveries * (1 + neighbours), fanOut: 1 + neighbours })).perS / (1 + neighbours),
      );
      tell(
        `isolation, ${round}/${size.rounds}: p99 alone ${summarizeDelays(alone.delaysMs).p99Ms.toFixed(1)} ms, beside ${neighbours} that hang ${summarizeDelays(hanging.delaysMs).p99Ms.toFixed(1)} ms; ${alone.perS.map(Math.round).join(", ")}/s alone, ${hanging.perS.map(Math.round).join(", ")}/s beside`,
      );
    }
    const summary = { alone: summarize(alone), besideHanging: summarize(hanging) };
    const rssMiB = await env.system.call("mostMemoryMiB");
    const hostileUrls = await harm.call("listen");
    for (let round = 1; round <= size.rounds; round++) {
      await subscribeBeside(env, hostileUrls);
      await runPaced(env, { perS: size.perS, seconds: (1.5 * deadlineMs) / 1000 });
      await measure(env, size, hostile);
      tell(
        `isolation, hostile ${round}/${size.rounds}: p99 ${summarizeDelays(hostile.delaysMs).p99Ms.toFixed(1)} ms, ${hostile.perS.map(Math.round).join(", ")}/s`,
      );
    }
    const rssGrowthMiB = (await env.system.call("mostMemoryMiB")) - rssMiB;
    const besideHostile = summarize(hostile);
    return {
      hostile: {
        p99Ratio: besideHostile.p99Ms / summary.alone.p99Ms,
        throughputRatio: besideHostile.perS / summary.alone.perS,
        rssGrowthMiB,
        beside: besideHostile,
      },
      p99Ratio: summary.besideHanging.p99Ms / summary.alone.p99Ms,
      throughputRatio: computeMedian(hanging.perS.map((perS, index) => perS / (alone.perS[index] ?? Number.NaN))),
      ...summary,
      besideHealthy: { perS: computeMedian(healthy.perS) },
      deadlineMs,
    };
  } finally {
    await env.remove();
    await harm.end();
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
  await env.subscribe([`${env.urls.http}/hook`, ...others]);
  const { client } = env.database;
  for (;;) {
    const { rows } = await client.query(`select from ancrage.deliveries where state in ('pending', 'retrying') limit 1`);
    if (rows.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const paths = ({ urls }: Environment, path: string): readonly string[] =>
  Array.from({ length: neighbours }, (_, index) => `${urls.http}${path}?${index}`);

const summarize = ({ delaysMs, perS }: Measured): Healthy => ({ ...summarizeDelays(delaysMs), perS: computeMedian(perS) });
