import { startChild } from "./child.ts";
import { openEnvironment, type Environment } from "./environment.ts";
import type { NeighbourMethods } from "./neighbours.ts";
import { runPaced, summarizeDelays, type Latency } from "./latency.ts";
import { runSystem } from "./round.ts";
import type { Server } from "./server.ts";
import { computeMedian } from "./statistics.ts";

/** A healthy receiver beside others that subscribe to the same event, to what it has alone. */
export interface Isolation {
  /** p99 of commit to arrival, beside ten that hang ÷ alone: the median of what the rounds gave. */
  readonly p99Ratio: number;
  /** Deliveries a second to the healthy one, beside ten that hang ÷ alone. */
  readonly throughputRatio: number;
  readonly alone: Healthy;
  readonly besideHanging: Healthy;
  /** Beside fourteen more that answer at once: what as many more deliveries a row cost in themselves. */
  readonly besideHealthy: Healthy;
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
  /** By how much the most memory that the process had rose over all rounds after the first. */
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

/** Shorter than the default of 15 s, so that deadlines pass, and failures are journaled and retried, within each round. */
const deadlineMs = 2_000;

interface Company {
  readonly name: string;
  readonly urls: readonly string[];
  /** By round. */
  readonly delaysMs: (readonly number[])[];
  readonly perS: number[];
}

/** The times come first: bulk writes leave the database work for its disk, which what is measured after them would wait for. */
export async function measureIsolation(server: Server, size: IsolationSize, tell: (words: string) => void): Promise<Isolation> {
  const env = await openEnvironment(server, { timeoutMs: deadlineMs });
  const neighbours = startChild<NeighbourMethods>(new URL("neighbours.ts", import.meta.url));
  try {
    const { hanging, hostile, healthy } = await neighbours.call("listen");
    const keep = (name: string, urls: readonly string[]): Company => ({ name, urls, delaysMs: [], perS: [] });
    const alone = keep("alone", []);
    const besideHealthy = keep(`beside ${healthy.length} that answer`, healthy);
    const besideHanging = keep(`beside ${hanging.length} that hang`, hanging);
    const besideHostile = keep(`beside ${hostile.length} that do harm`, hostile);
    const companies = [alone, besideHealthy, besideHanging, besideHostile];
    await measureTimes(env, companies, size, tell);
    const rssGrowthMiB = await measureRates(env, companies, size, tell);
    const ratio = (own: readonly number[], toAlone: readonly number[]): number =>
      computeMedian(own.map((value, round) => value / (toAlone[round] ?? Number.NaN)));
    const p99Ratio = (company: Company): number => ratio(p99sOf(company), p99sOf(alone));
    const throughputRatio = (company: Company): number => ratio(company.perS, alone.perS);
    return {
      p99Ratio: p99Ratio(besideHanging),
      throughputRatio: throughputRatio(besideHanging),
      alone: summarize(alone),
      besideHanging: summarize(besideHanging),
      besideHealthy: summarize(besideHealthy),
      deadlineMs,
      hostile: {
        p99Ratio: p99Ratio(besideHostile),
        throughputRatio: throughputRatio(besideHostile),
        rssGrowthMiB,
        beside: summarize(besideHostile),
      },
    };
  } finally {
    await env.remove();
    await neighbours.end();
  }
}

/** Each round has all of them, so that what the machine does meanwhile meets each alike; every other one the other way round. */
const inTurn = (companies: readonly Company[], round: number): readonly Company[] => (round % 2 === 0 ? companies.toReversed() : companies);

async function measureTimes(env: Environment, companies: readonly Company[], size: IsolationSize, tell: (words: string) => void) {
  await subscribeBeside(env, []);
  await runPaced(env, { perS: size.perS, seconds: 1 });
  for (let round = 1; round <= size.rounds; round++) {
    for (const company of inTurn(companies, round)) {
      await subscribeBeside(env, company.urls);
      // Those that hang have run into their deadline once.
      await runPaced(env, { perS: size.perS, seconds: (1.5 * deadlineMs) / 1000 });
      company.delaysMs.push((await runPaced(env, size)).delaysMs);
    }
    tell(`isolation, times ${round}/${size.rounds}: ${companies.map(describeTimes).join(", ")}`);
  }
}

/** @returns by how many MiB the process grew after the first round, which fills what memory is allowed to hold */
async function measureRates(env: Environment, companies: readonly Company[], size: IsolationSize, tell: (words: string) => void) {
  let rssMiB = Number.NaN;
  for (let round = 0; round <= size.rounds; round++) {
    for (const company of inTurn(companies, round)) {
      await subscribeBeside(env, company.urls);
      const { perS } = await runSystem(env, { deliveries: size.deliveries });
      if (round > 0) company.perS.push(perS);
    }
    if (round === 0) rssMiB = await env.system.call("mostMemoryMiB");
    else tell(`isolation, rates ${round}/${size.rounds}: ${companies.map(describeRate).join(", ")}`);
  }
  return (await env.system.call("mostMemoryMiB")) - rssMiB;
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

const summarize = ({ delaysMs, perS }: Company): Healthy => ({ ...summarizeDelays(delaysMs.flat()), perS: computeMedian(perS) });

const p99sOf = ({ delaysMs }: Company): readonly number[] => delaysMs.map((delays) => summarizeDelays(delays).p99Ms);

const describeRate = ({ name, perS }: Company): string => `${name} ${Math.round(perS.at(-1) ?? 0)}/s`;

const describeTimes = (company: Company): string => `p99 ${company.name} ${(p99sOf(company).at(-1) ?? 0).toFixed(1)} ms`;
