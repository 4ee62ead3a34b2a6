import type { Environment } from "./environment.ts";

/** One measured stretch of work. */
export interface Round {
  readonly perS: number;
  /** How fast the application wrote; no figure can be above it. */
  readonly committedPerS: number;
  /** Of the process that sends, a delivery. */
  readonly cpuUs: number;
  /** Of PostgreSQL, a delivery; undefined where it cannot be told. */
  readonly postgresCpuUs: number | undefined;
  readonly bodyBytes: number;
}

export interface Work {
  readonly deliveries: number;
  /** Subscriptions that each row goes to. */
  readonly fanOut?: number;
  readonly noteBytes?: number;
  /** All rows in one transaction, or each in its own. */
  readonly shape?: "bulk" | "small";
}

/** From a committed row to the last arrival; the CPU until the journal has all outcomes. */
export async function runSystem(env: Environment, { deliveries, fanOut = 1, noteBytes, shape = "bulk" }: Work): Promise<Round> {
  const { server, system, writer, receiver } = env;
  const { all } = await env.arrivals(deliveries);
  const systemCpuUs = await system.call("cpuUs");
  let postgresCpuUs = await server.cpuUs();
  const rows = deliveries / fanOut;
  const written = shape === "bulk" ? await writer.call("writeBulk", rows, noteBytes) : await writer.call("writeSmall", rows);
  const startedAtMs = shape === "bulk" ? written.committedAtMs : written.startedAtMs;
  // What PostgreSQL did for the application's own rows is not counted, where it was done before.
  if (shape === "bulk") postgresCpuUs = await server.cpuUs();
  const { lastAtMs } = await all;
  await env.settled();
  const postgresEndUs = await server.cpuUs();
  const cpuUs = (await system.call("cpuUs")) - systemCpuUs;
  const { count, bodyBytes } = await receiver.call("until", 0);
  if (count !== deliveries) throw new Error(`expected ${deliveries} requests, got ${count}: something was sent twice.`);
  return {
    perS: (deliveries * 1000) / (lastAtMs - startedAtMs),
    committedPerS: (rows * 1000) / (written.committedAtMs - written.startedAtMs),
    cpuUs: cpuUs / deliveries,
    postgresCpuUs: postgresCpuUs === undefined || postgresEndUs === undefined ? undefined : (postgresEndUs - postgresCpuUs) / deliveries,
    bodyBytes,
  };
}

export interface CeilingWork {
  readonly url: string;
  readonly count: number;
  readonly bodyBytes: number;
  readonly inFlight: number;
}

/** The same with nothing read, built or journaled. */
export async function runCeiling(env: Environment, work: CeilingWork): Promise<Round> {
  const { all } = await env.arrivals(work.count);
  const { startedAtMs, cpuUs } = await env.ceiling.call("run", work);
  const { lastAtMs } = await all;
  return {
    perS: (work.count * 1000) / (lastAtMs - startedAtMs),
    committedPerS: 0,
    cpuUs: cpuUs / work.count,
    postgresCpuUs: undefined,
    bodyBytes: work.bodyBytes,
  };
}
