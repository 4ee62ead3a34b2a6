import { nowMs } from "./clock.ts";
import type { Environment } from "./environment.ts";
import { computeMedian, computeSpread } from "./statistics.ts";

export interface Throughput {
  /** Requests a second that bare undici signs and posts in the same run. */
  readonly ceilingPerS: number;
  readonly ceilingCpuUsPerDelivery: number;
  /** Deliveries a second, of rows committed in one transaction: from its commit to the last arrival. */
  readonly perS: number;
  /** Of a round to the ceiling's round right before it; the median of these. */
  readonly ratio: number;
  /** Of Ancrage's process, until the journal has all outcomes. */
  readonly cpuUsPerDelivery: number;
  readonly postgresCpuUsPerDelivery: number | undefined;
  /** How far the rounds lie apart, as a part of their median. */
  readonly spread: number;
  readonly rounds: number;
  /**
   * The same, of rows committed each in a transaction of its own: from the begin of the first one, so with what writing costs.
   * `committedPerS` is how fast the application wrote; no figure can be above it.
   */
  readonly small: {
    readonly perS: number;
    readonly ratio: number;
    readonly cpuUsPerDelivery: number;
    readonly committedPerS: number;
  };
  readonly bodyBytes: number;
}

export interface ThroughputSize {
  readonly rounds: number;
  readonly deliveries: number;
  /** No round begins after this: on a busy machine there are fewer of them. */
  readonly budgetMs: number;
}

interface Round {
  readonly perS: number;
  readonly committedPerS: number;
  readonly cpuUs: number;
  readonly postgresCpuUs: number | undefined;
  readonly bodyBytes: number;
}

/** Alternates rounds, so that a neighbour's noise meets all of them, and takes medians. The first round of each only warms up. */
export async function measureThroughput(env: Environment, size: ThroughputSize, tell: (words: string) => void): Promise<Throughput> {
  const { deliveries } = size;
  const ceilings: Round[] = [];
  const bulks: Round[] = [];
  const smalls: Round[] = [];
  let bodyBytes = 500;
  const endsAtMs = nowMs() + size.budgetMs;
  for (let round = 0; round <= size.rounds; round++) {
    if (ceilings.length > 0 && nowMs() > endsAtMs) break;
    const bulk = await runSystem(env, deliveries, "bulk");
    bodyBytes = Math.round(bulk.bodyBytes);
    const ceiling = await runCeiling(env, deliveries, bodyBytes);
    const small = await runSystem(env, deliveries, "small");
    tell(
      `throughput ${round === 0 ? "warm-up" : `${round}/${size.rounds}`}: ceiling ${Math.round(ceiling.perS)}/s, bulk ${Math.round(bulk.perS)}/s at ${Math.round(bulk.cpuUs)} µs, small ${Math.round(small.perS)}/s at ${Math.round(small.cpuUs)} µs`,
    );
    if (round === 0) continue;
    ceilings.push(ceiling);
    bulks.push(bulk);
    smalls.push(small);
  }
  const ratioOf = (rounds: readonly Round[]): number => computeMedian(rounds.map(({ perS }, index) => perS / (ceilings[index]?.perS ?? 0)));
  const perSOf = (rounds: readonly Round[]): number => computeMedian(rounds.map(({ perS }) => perS));
  const cpuOf = (rounds: readonly Round[]): number => computeMedian(rounds.map(({ cpuUs }) => cpuUs));
  const postgres = bulks.flatMap(({ postgresCpuUs }) => (postgresCpuUs === undefined ? [] : [postgresCpuUs]));
  return {
    ceilingPerS: perSOf(ceilings),
    ceilingCpuUsPerDelivery: cpuOf(ceilings),
    perS: perSOf(bulks),
    ratio: ratioOf(bulks),
    cpuUsPerDelivery: cpuOf(bulks),
    postgresCpuUsPerDelivery: postgres.length === 0 ? undefined : computeMedian(postgres),
    spread: computeSpread(bulks.map(({ perS }) => perS)),
    rounds: bulks.length,
    small: {
      perS: perSOf(smalls),
      ratio: ratioOf(smalls),
      cpuUsPerDelivery: cpuOf(smalls),
      committedPerS: computeMedian(smalls.map(({ committedPerS }) => committedPerS)),
    },
    bodyBytes,
  };
}

/** How many deliveries the journal of each environment holds by now. */
const journaledBefore = new WeakMap<Environment, number>();

export async function runSystem(env: Environment, deliveries: number, shape: "bulk" | "small"): Promise<Round> {
  const { receiver, system, writer } = env;
  await receiver.call("reset");
  const arrived = receiver.call("until", deliveries);
  const systemCpuUs = await system.call("cpuUs");
  let postgresCpuUs = await env.postgresCpuUs();
  const written = await writer.call(shape === "bulk" ? "writeBulk" : "writeSmall", deliveries);
  const startedAtMs = shape === "bulk" ? written.committedAtMs : written.startedAtMs;
  // What PostgreSQL did for the application's own rows is not counted, where it was done before.
  if (shape === "bulk") postgresCpuUs = await env.postgresCpuUs();
  const { lastAtMs } = await env.inTime(arrived);
  const total = (journaledBefore.get(env) ?? 0) + deliveries;
  journaledBefore.set(env, total);
  await env.inTime(env.journaled(total));
  const postgresEndUs = await env.postgresCpuUs();
  const cpuUs = (await system.call("cpuUs")) - systemCpuUs;
  const { count, bodyBytes } = await receiver.call("until", 0);
  if (count !== deliveries) throw new Error(`expected ${deliveries} requests, got ${count}: something was sent twice.`);
  return {
    perS: (deliveries * 1000) / (lastAtMs - startedAtMs),
    committedPerS: (deliveries * 1000) / (written.committedAtMs - written.startedAtMs),
    cpuUs: cpuUs / deliveries,
    postgresCpuUs: postgresCpuUs === undefined || postgresEndUs === undefined ? undefined : (postgresEndUs - postgresCpuUs) / deliveries,
    bodyBytes,
  };
}

async function runCeiling(env: Environment, count: number, bodyBytes: number): Promise<Round> {
  const { receiver, receiverUrl, ceiling } = env;
  await receiver.call("reset");
  const arrived = receiver.call("until", count);
  const { startedAtMs, cpuUs } = await ceiling.call("run", { url: receiverUrl, count, bodyBytes });
  const { lastAtMs } = await arrived;
  return { perS: (count * 1000) / (lastAtMs - startedAtMs), committedPerS: 0, cpuUs: cpuUs / count, postgresCpuUs: undefined, bodyBytes };
}
