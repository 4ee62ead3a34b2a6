import { pause } from "../pause.ts";
import { requestApi, type Server } from "./client.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { formatTree } from "./format-tree.ts";

/** A job as the API shows it. */
export interface JobView {
  readonly id: string;
  readonly kind: string;
  readonly state: "waiting" | "running" | "done" | "failed" | "canceled";
  readonly total: number | null;
  readonly done: number;
  readonly failed: number;
  readonly exhausted?: number;
  readonly unfinished?: number;
  readonly error: string | null;
}

const pollMs = 500;
/** Where nobody watches a bar move, in a log. */
const linesMs = 10_000;

/**
 * Shows a job's progress until it has ended, then the job. Whoever ends the command leaves the job as it is.
 *
 * The code is 0 where it is done, 1 where it has failed or was canceled, or rejections stayed what they were, 3 where it goes on.
 */
export async function followJob(context: CommandContext, server: Server, made: JobView, isJson: boolean): Promise<void> {
  const stopping = context.heedStopping();
  let job = made;
  let saidAtMs = Number.NEGATIVE_INFINITY;
  let said = "";
  while ((job.state === "waiting" || job.state === "running") && !stopping.aborted) {
    const progress = formatProgress(job);
    if (context.progress !== undefined) context.progress(progress);
    else if (progress !== said && performance.now() - saidAtMs >= linesMs) {
      context.note(progress);
      said = progress;
      saidAtMs = performance.now();
    }
    await pause(pollMs, stopping);
    if (stopping.aborted) break;
    job = (await requestApi(server, { path: `/v1/jobs/${job.id}` })).body as JobView;
  }
  context.progress?.("");
  if (job.state === "waiting" || job.state === "running") {
    context.note(
      `${job.id} goes on without this command. \`ancrage jobs show ${job.id}\` shows it, \`ancrage jobs cancel ${job.id}\` ends it.`,
    );
    context.exitWith(exitCodes.unavailable);
    return;
  }
  context.print(isJson ? JSON.stringify(job) : formatTree(job));
  if (job.failed > 0) context.note(`${job.failed} are rejections: \`ancrage rejections list\` says why.`);
  // As where one is built again: whoever mended the code wants to know that it still fails.
  if (job.state !== "done" || (job.kind === "retry" && job.failed > 0)) context.exitWith(exitCodes.failed);
}

const barWidth = 24;

/** @example formatProgress(job) // "replay  [████████░░░░░░░░░░░░░░░░]  1200 of 3600, 12 unfinished" */
export function formatProgress({ kind, state, total, done, failed, unfinished = 0, exhausted = 0 }: JobView): string {
  if (state === "waiting") return `${kind}  waits for its turn`;
  const parts = [total === null ? `${done}` : `${done} of ${total}`];
  if (failed > 0) parts.push(`${failed} rejected`);
  if (unfinished > 0) parts.push(`${unfinished} unfinished`);
  if (exhausted > 0) parts.push(`${exhausted} exhausted`);
  // What came meanwhile may make it more than was counted.
  const share = state === "done" ? 1 : total === null || total === 0 ? 0 : Math.min(1, done / total);
  const filled = Math.floor(share * barWidth);
  const bar = total === null ? "" : `[${"█".repeat(filled)}${"░".repeat(barWidth - filled)}]  `;
  return `${kind}  ${bar}${parts.join(", ")}`;
}
