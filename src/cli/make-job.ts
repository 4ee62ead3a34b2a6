import type { Command } from "commander";
import { AncrageError } from "../errors.ts";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";
import { followJob, type JobView } from "./follow-job.ts";
import { formatTree } from "./format-tree.ts";

export interface JobFlags extends ServerFlags {
  readonly json?: boolean;
  readonly dryRun?: boolean;
  readonly wait: boolean;
  readonly rate?: string;
  readonly project?: string;
}

/** What all commands that make a job take. */
export function addJobFlags(command: Command, { isShaped }: { readonly isShaped: boolean }): Command {
  addServerFlags(command)
    .option("--dry-run", "only count what it would do")
    .option("--no-wait", "do not wait for its end")
    .option("--project <name>", "with a token of all projects: only of this one");
  return isShaped ? command.option("--rate <n>", "deliveries a second, at most; else as fast as the receiver takes them") : command;
}

export const jobExitCodes =
  "\nExit codes: 0 done, or counted · 1 it has failed or was canceled · 2 it cannot be done as asked · 3 not reachable, or it goes on.\nEnding the command with ^C leaves the job: `ancrage jobs cancel` ends it.";

interface JobToMake {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** What its total is a number of. */
  readonly counted: "messages" | "rows" | "deliveries" | "rejections";
}

/** Makes a job and shows its progress; with `--dry-run` what it would do. */
export async function makeJob(context: CommandContext, flags: JobFlags, { path, body, counted }: JobToMake): Promise<void> {
  const server = await findServer(context, flags);
  const asked = {
    ...body,
    ...(flags.rate === undefined ? {} : { ratePerSecond: parseRate(flags.rate) }),
    ...(flags.project === undefined ? {} : { project: flags.project }),
    ...(flags.dryRun === true ? { dryRun: true } : {}),
  };
  const answer = await requestApi(server, { method: "POST", path, body: asked });
  const isJson = flags.json === true;
  if (flags.dryRun === true) {
    const { total } = answer.body as { readonly total: number | null };
    context.print(isJson ? JSON.stringify(answer.body) : `It would be ${total ?? "more than 100000"} ${counted}.`);
    return;
  }
  const job = answer.body as JobView;
  if (!flags.wait) context.print(isJson ? JSON.stringify(job) : formatTree(job));
  else await followJob(context, server, job, isJson);
}

function parseRate(text: string): number {
  if (/^[1-9]\d{0,4}(\/s)?$/.test(text)) return Number(text.replace("/s", ""));
  throw new AncrageError("ANCRAGE_OPTION_INVALID", `--rate: expected deliveries a second, from 1 to 10000, got ${JSON.stringify(text)}`);
}

/** A time as people write one: ISO 8601, or so long ago: `90m`, `12h`, `7d`. */
export function parseTime(flag: string, text: string, nowMs: number): string {
  const [, count, unit] = /^(\d{1,5})([mhd])$/.exec(text) ?? [];
  if (count !== undefined)
    return new Date(nowMs - Number(count) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "m" | "h" | "d"]).toISOString();
  const ms = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isNaN(ms)) return new Date(ms).toISOString();
  throw new AncrageError(
    "ANCRAGE_OPTION_INVALID",
    `${flag}: expected a time such as 2026-11-24T10:22:00Z, or 90m, 12h or 7d for so long ago, got ${JSON.stringify(text)}`,
  );
}
