import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { readOptions } from "../src/options.ts";
import { openEnvironment, type Environment } from "./environment.ts";
import type { Server } from "./server.ts";
import { computeMedian } from "./statistics.ts";
import type { SystemOptions } from "./system.ts";

/** What capture costs the application's own inserts: how much longer they take, in percent. Null where it is not measured. */
export interface InsertCost {
  /** One row a transaction, while Ancrage reads and matches the log of it beside. */
  readonly walPercent: number;
  /** The same with the triggers of `capture: "outbox"`. */
  readonly outboxPercent: number | null;
  /** Of a transaction of many rows: hardly any disk to wait for, that would hide the cost. */
  readonly bulk: { readonly walPercent: number; readonly outboxPercent: number | null };
  readonly transactionsPerS: { readonly without: number; readonly wal: number; readonly outbox: number | null };
  readonly writer: "pgbench" | "the bench's own";
  readonly rounds: number;
}

export interface InsertCostSize {
  readonly rounds: number;
  readonly seconds: number;
}

const bulkRows = 20_000;
const bulkRuns = 3;
const run = promisify(execFile);

/** Without capture, beside the log's, beside the outbox's, and again: medians of the pairs. No change makes a message. */
export async function measureInsertCost(server: Server, size: InsertCostSize, tell: (words: string) => void): Promise<InsertCost> {
  const pgbench = await findPgbench();
  const wal = await openEnvironment(server, { isIdle: true });
  const outbox = canCaptureByOutbox() ? await openEnvironment(server, { isIdle: true, capture: "outbox" }) : undefined;
  try {
    await wal.system.call("stop");
    await outbox?.system.call("stop");
    const [without, besideWal, besideOutbox]: [Inserts[], Inserts[], Inserts[]] = [[], [], []];
    for (let round = 0; round <= size.rounds; round++) {
      const inserts = (env: Environment): Promise<Inserts> => measureInserts(env, { ...size, pgbench });
      const these = {
        without: await inserts(wal),
        wal: await beside(wal, { isIdle: true }, inserts),
        outbox: outbox === undefined ? undefined : await beside(outbox, { isIdle: true, capture: "outbox" }, inserts),
      };
      const words = Object.entries(these).flatMap(([name, one]) =>
        one === undefined ? [] : [`${name} ${Math.round(one.perS)}/s, ${one.bulkUsPerRow.toFixed(1)} µs a row`],
      );
      tell(`insert cost, ${round === 0 ? "warm-up" : `${round}/${size.rounds}`}: ${words.join("; ")}`);
      if (round === 0) continue;
      without.push(these.without);
      besideWal.push(these.wal);
      if (these.outbox !== undefined) besideOutbox.push(these.outbox);
    }
    const perS = (all: readonly Inserts[]): number => computeMedian(all.map((one) => one.perS));
    const hasOutbox = besideOutbox.length > 0;
    return {
      walPercent: percent(besideWal, without, (one) => 1 / one.perS),
      outboxPercent: hasOutbox ? percent(besideOutbox, without, (one) => 1 / one.perS) : null,
      bulk: {
        walPercent: percent(besideWal, without, (one) => one.bulkUsPerRow),
        outboxPercent: hasOutbox ? percent(besideOutbox, without, (one) => one.bulkUsPerRow) : null,
      },
      transactionsPerS: { without: perS(without), wal: perS(besideWal), outbox: hasOutbox ? perS(besideOutbox) : null },
      writer: pgbench ? "pgbench" : "the bench's own",
      rounds: without.length,
    };
  } finally {
    await wal.remove();
    await outbox?.remove();
  }
}

interface Inserts {
  /** Transactions of one row, from one session. */
  readonly perS: number;
  readonly bulkUsPerRow: number;
}

async function measureInserts(env: Environment, { seconds, pgbench }: InsertCostSize & { readonly pgbench: boolean }): Promise<Inserts> {
  const perS = pgbench ? await runPgbench(env.database.url, seconds) : await runWriter(env, seconds);
  const bulksUs: number[] = [];
  for (let i = 0; i < bulkRuns; i++) {
    const { startedAtMs, committedAtMs } = await env.writer.call("writeBulk", bulkRows);
    bulksUs.push(((committedAtMs - startedAtMs) * 1000) / bulkRows);
  }
  return { perS, bulkUsPerRow: computeMedian(bulksUs) };
}

/** The median of what each round took longer than the one without, in percent. */
function percent(rounds: readonly Inserts[], without: readonly Inserts[], timeOf: (inserts: Inserts) => number): number {
  const ratios = rounds.map((one, index) => timeOf(one) / timeOf(without[index] ?? { perS: Number.NaN, bulkUsPerRow: Number.NaN }));
  return (computeMedian(ratios) - 1) * 100;
}

/** While Ancrage runs, and has read what was written before. */
async function beside<Result>(env: Environment, options: SystemOptions, work: (env: Environment) => Promise<Result>): Promise<Result> {
  const { system, database } = env;
  await system.call("start", database.url, options);
  if (options.capture !== "outbox") await env.caughtUp();
  try {
    return await work(env);
  } finally {
    await system.call("stop");
  }
}

/** An application that nobody here wrote. */
async function findPgbench(): Promise<boolean> {
  return run("pgbench", ["--version"]).then(
    () => true,
    () => false,
  );
}

async function runPgbench(url: string, seconds: number): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "ancrage-pgbench-"));
  try {
    const script = join(folder, "insert.sql");
    await writeFile(script, `insert into item (note) values ('${"x".repeat(336)}');\n`);
    const { stdout } = await run("pgbench", ["-n", "-c", "1", "-T", String(seconds), "-f", script, url]);
    const tps = /tps = ([\d.]+)/.exec(stdout)?.[1];
    if (tps === undefined) throw new Error(`expected pgbench to say its tps, got ${stdout}`);
    return Number(tps);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function runWriter({ writer }: Environment, seconds: number): Promise<number> {
  const rows = 500 * seconds;
  const { startedAtMs, committedAtMs } = await writer.call("writeSmall", rows, 1);
  return (rows * 1000) / (committedAtMs - startedAtMs);
}

/** A version that knows no outbox refuses the option. */
function canCaptureByOutbox(): boolean {
  try {
    readOptions({ capture: "outbox" as "wal" });
    return true;
  } catch {
    return false;
  }
}
