import { Command } from "commander";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";
import { followJob, formatProgress, type JobView } from "./follow-job.ts";
import { formatTree } from "./format-tree.ts";
import { addListFlags, listAll, type ListFlags } from "./list.ts";
import { addJobFlags, jobExitCodes, makeJob, parseTime, type JobFlags } from "./make-job.ts";

/** `ancrage jobs`: long work with progress. */
export function jobsCommand(context: CommandContext): Command {
  return new Command("jobs")
    .description("Long work with progress: recover, replay, and those that other commands make.")
    .helpCommand(false)
    .addCommand(listCommand(context))
    .addCommand(showCommand(context))
    .addCommand(cancelCommand(context))
    .addCommand(recoverCommand(context))
    .addCommand(replayCommand(context));
}

interface JobListFlags extends ListFlags {
  readonly state?: string;
  readonly kind?: string;
  readonly subscription?: string;
}

function listCommand(context: CommandContext): Command {
  return addListFlags(new Command("list").description("Show jobs, newest first."), { isOfDays: false })
    .option("--state <state>", "waiting, running, done, failed or canceled")
    .option("--kind <kind>", "recover, replay, backfill, cancel or retry")
    .option("--subscription <id>", "only of this one")
    .action((flags: JobListFlags) =>
      listAll<JobView>(context, flags, {
        path: "/v1/jobs",
        query: { state: flags.state, kind: flags.kind, subscriptionId: flags.subscription },
        format: (job) => `${job.id}  ${job.state.padEnd(8)}  ${formatProgress(job)}${job.error === null ? "" : `: ${job.error}`}`,
      }),
    );
}

function showCommand(context: CommandContext): Command {
  return addServerFlags(new Command("show").description("Show a job with its progress."))
    .argument("<id>", "job_…")
    .option("--wait", "until it has ended")
    .addHelpText(
      "after",
      "\nExit codes: 0 shown · 1 with --wait: it has failed or was canceled · 2 no such job · 3 not reachable, or with --wait: it goes on.",
    )
    .action(async (id: string, flags: ServerFlags & { readonly json?: boolean; readonly wait?: boolean }) => {
      const server = await findServer(context, flags);
      const { body } = await requestApi(server, { path: `/v1/jobs/${encodeURIComponent(id)}` });
      if (flags.wait === true) await followJob(context, server, body as JobView, flags.json === true);
      else context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
    });
}

function cancelCommand(context: CommandContext): Command {
  return addServerFlags(new Command("cancel").description("End a job, and the deliveries that it made and that are not over."))
    .argument("<id>", "job_…")
    .action(async (id: string, flags: ServerFlags & { readonly json?: boolean }) => {
      const { body } = await requestApi(await findServer(context, flags), {
        method: "POST",
        path: `/v1/jobs/${encodeURIComponent(id)}/cancel`,
      });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
    });
}

function recoverCommand(context: CommandContext): Command {
  const command = new Command("recover")
    .description("Send again what a subscription has not got: what is exhausted, and messages it never had.")
    .argument("<subscription>", "sub_…")
    .requiredOption("--since <time>", "since when: 2026-11-24T10:22:00Z, or 90m, 12h, 7d ago")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage jobs recover sub_01K9… --since 12h --dry-run\n  $ ancrage jobs recover sub_01K9… --since 12h\n${jobExitCodes}`,
    );
  return addJobFlags(command, { isShaped: true }).action((subscriptionId: string, flags: JobFlags & { readonly since: string }) =>
    makeJob(context, flags, {
      path: "/v1/jobs",
      counted: "messages",
      body: { kind: "recover", subscriptionId, since: parseTime("--since", flags.since, Date.now()) },
    }),
  );
}

interface ReplayFlags extends JobFlags {
  readonly from: string;
  readonly to?: string;
  readonly event?: readonly string[];
  readonly again?: boolean;
}

function replayCommand(context: CommandContext): Command {
  const command = new Command("replay")
    .description("Send messages of the journal to a subscription: those it never had, with the same ids and bytes.")
    .argument("<subscription>", "sub_…")
    .requiredOption("--from <time>", "from when on: 2026-11-24T10:22:00Z, or 90m, 12h, 7d ago")
    .option("--to <time>", "until when; else now")
    .option("--event <name...>", "only these; else all that it is subscribed to")
    .option("--again", "also what it has got")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage jobs replay sub_01K9… --from 7d\n  $ ancrage jobs replay sub_01K9… --from 1d --event deal.won --again --rate 50\n${jobExitCodes}`,
    );
  return addJobFlags(command, { isShaped: true }).action((subscriptionId: string, flags: ReplayFlags) => {
    const now = Date.now();
    return makeJob(context, flags, {
      path: "/v1/jobs",
      counted: "messages",
      body: {
        kind: "replay",
        subscriptionId,
        from: parseTime("--from", flags.from, now),
        ...(flags.to === undefined ? {} : { to: parseTime("--to", flags.to, now) }),
        ...(flags.event === undefined ? {} : { events: flags.event }),
        ...(flags.again === true ? { again: true } : {}),
      },
    });
  });
}
