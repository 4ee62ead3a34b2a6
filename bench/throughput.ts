import { largestWindow } from "../src/deliver/window.ts";
import { nowMs } from "./clock.ts";
import { openEnvironment, type Environment } from "./environment.ts";
import { runCeiling, runSystem, type CeilingWork, type Round, type Work } from "./round.ts";
import type { Server } from "./server.ts";
import { computeMedian, computeSpread } from "./statistics.ts";

/** One kind of work, beside the ceiling of the same kind. */
export interface Compared {
  /** Of a round to the ceiling's round right before it; the median of these. */
  readonly ratio: number;
  /** Deliveries a second, of rows committed in one transaction: from its commit to the last arrival. */
  readonly perS: number;
  /** Requests a second that bare undici signs and posts in the same minutes. */
  readonly ceilingPerS: number;
  /** Of Ancrage's process, until the journal has all outcomes. */
  readonly cpuUsPerDelivery: number;
  readonly ceilingCpuUsPerDelivery: number;
  readonly postgresCpuUsPerDelivery: number | undefined;
  /** How far the rounds lie apart, as a part of their median. */
  readonly spread: number;
  readonly rounds: number;
  readonly bodyBytes: number;
}

/** The first kind is one subscription, bodies of 500 bytes, a receiver that answers at once, HTTP. Each other one differs in one thing. */
export interface Throughput extends Compared {
  /** Rows committed each in a transaction of its own: from the begin of the first one, so with what writing costs. */
  readonly small: {
    readonly perS: number;
    readonly ratio: number;
    readonly cpuUsPerDelivery: number;
    /** How fast the application wrote; no figure can be above it. */
    readonly committedPerS: number;
  };
  readonly https: Compared;
  readonly fanOut10: Compared;
  readonly body8KiB: Compared;
  readonly after100Ms: Compared;
  readonly after1S: Compared;
}

export interface ThroughputSize {
  readonly rounds: number;
  readonly deliveries: number;
  /** No round of a kind begins after this: on a busy machine there are fewer of them. */
  readonly budgetMs: number;
}

export async function measureThroughput(server: Server, size: ThroughputSize, tell: (words: string) => void): Promise<Throughput> {
  const env = await openEnvironment(server);
  try {
    const { deliveries } = size;
    const few = { ...size, rounds: Math.ceil(size.rounds / 2), budgetMs: size.budgetMs / 3 };
    const compare = (name: string, kind: Kind, kindSize = few): Promise<Rounds> => compareRounds(env, name, kind, kindSize, tell);
    const first = await compare("at once", { path: "/hook", deliveries, hasSmall: true }, size);
    return {
      ...summarize(first),
      small: summarizeSmall(first),
      https: summarize(await compare("HTTPS", { path: "/hook", isHttps: true, deliveries })),
      fanOut10: summarize(await compare("fan-out 10", { path: "/hook", deliveries, fanOut: 10 })),
      body8KiB: summarize(await compare("8 KiB", { path: "/hook", deliveries: deliveries / 4, noteBytes: 8_028 })),
      // As many as a lane's full window answers in three seconds, whose window the warm-up has opened.
      after100Ms: summarize(await compare("after 100 ms", { path: "/late/100", deliveries: 30 * largestWindow })),
      after1S: summarize(await compare("after 1 s", { path: "/late/1000", deliveries: 3 * largestWindow })),
    };
  } finally {
    await env.remove();
  }
}

interface Kind extends Work {
  readonly path: string;
  readonly isHttps?: boolean;
  readonly hasSmall?: boolean;
}

interface Rounds {
  readonly ceilings: readonly Round[];
  readonly bulks: readonly Round[];
  readonly smalls: readonly Round[];
}

/** Alternates rounds, so that a neighbour's noise meets all of them. The first round of each only warms up. */
async function compareRounds(
  env: Environment,
  name: string,
  kind: Kind,
  size: ThroughputSize,
  tell: (words: string) => void,
): Promise<Rounds> {
  const { path, isHttps = false, fanOut = 1, hasSmall = false, ...work } = kind;
  const url = (isHttps ? env.urls.https : env.urls.http) + path;
  await env.subscribe(Array.from({ length: fanOut }, (_, index) => `${url}?${index}`));
  const [ceilings, bulks, smalls]: [Round[], Round[], Round[]] = [[], [], []];
  const endsAtMs = nowMs() + size.budgetMs;
  for (let round = 0; round <= size.rounds; round++) {
    if (ceilings.length > 0 && nowMs() > endsAtMs) break;
    const bulk = await runSystem(env, { ...work, fanOut });
    const ceilingWork: CeilingWork = { url, count: work.deliveries, bodyBytes: Math.round(bulk.bodyBytes), inFlight: largestWindow };
    const ceiling = await runCeiling(env, ceilingWork);
    const small = hasSmall ? await runSystem(env, { ...work, shape: "small" }) : undefined;
    const place = round === 0 ? "warm-up" : `${round}/${size.rounds}`;
    const words = [
      `ceiling ${describe(ceiling)}`,
      `Ancrage ${describe(bulk)}`,
      ...(small === undefined ? [] : [`one by one ${describe(small)}`]),
    ];
    tell(`throughput, ${name}, ${place}: ${words.join("; ")}`);
    if (round === 0) continue;
    ceilings.push(ceiling);
    bulks.push(bulk);
    if (small !== undefined) smalls.push(small);
  }
  return { ceilings, bulks, smalls };
}

const describe = ({ perS, cpuUs }: Round): string => `${Math.round(perS)}/s at ${Math.round(cpuUs)} µs`;

function summarize({ ceilings, bulks }: Rounds): Compared {
  const postgres = bulks.flatMap(({ postgresCpuUs }) => (postgresCpuUs === undefined ? [] : [postgresCpuUs]));
  return {
    ratio: medianRatio(bulks, ceilings),
    perS: medianOf(bulks, "perS"),
    ceilingPerS: medianOf(ceilings, "perS"),
    cpuUsPerDelivery: medianOf(bulks, "cpuUs"),
    ceilingCpuUsPerDelivery: medianOf(ceilings, "cpuUs"),
    postgresCpuUsPerDelivery: postgres.length === 0 ? undefined : computeMedian(postgres),
    spread: computeSpread(bulks.map(({ perS }) => perS)),
    rounds: bulks.length,
    bodyBytes: Math.round(medianOf(bulks, "bodyBytes")),
  };
}

function summarizeSmall({ ceilings, smalls }: Rounds): Throughput["small"] {
  return {
    perS: medianOf(smalls, "perS"),
    ratio: medianRatio(smalls, ceilings),
    cpuUsPerDelivery: medianOf(smalls, "cpuUs"),
    committedPerS: medianOf(smalls, "committedPerS"),
  };
}

const medianOf = (rounds: readonly Round[], name: "perS" | "cpuUs" | "committedPerS" | "bodyBytes"): number =>
  computeMedian(rounds.map((round) => round[name]));

const medianRatio = (rounds: readonly Round[], ceilings: readonly Round[]): number =>
  computeMedian(rounds.map(({ perS }, index) => perS / (ceilings[index]?.perS ?? Number.NaN)));
