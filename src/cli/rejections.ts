import { Command } from "commander";
import { AncrageError } from "../errors.ts";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { formatTree } from "./format-tree.ts";
import { addListFlags, listAll, type ListFlags } from "./list.ts";
import { addJobFlags, jobExitCodes, makeJob, parseTime, type JobFlags } from "./make-job.ts";

/** `ancrage rejections`: what could not become a message. */
export function rejectionsCommand(context: CommandContext): Command {
  return new Command("rejections")
    .description("What could not become a message: show it, and build it again once the code is mended.")
    .helpCommand(false)
    .addCommand(listCommand(context))
    .addCommand(showCommand(context))
    .addCommand(retryCommand(context));
}

interface RejectionView {
  readonly id: string;
  readonly event: string;
  readonly key: string;
  readonly reason: string;
  readonly error: string;
}

function listCommand(context: CommandContext): Command {
  return addListFlags(new Command("list").description("Show rejections, newest first."), { isOfDays: true })
    .option("--event <name>", "only of this one")
    .action((flags: ListFlags & { readonly event?: string }) =>
      listAll<RejectionView>(context, flags, {
        path: "/v1/rejections",
        query: { event: flags.event },
        format: ({ id, event, key, reason, error }) => `${id}  ${event} ${key}  ${reason}: ${error}`,
      }),
    );
}

function showCommand(context: CommandContext): Command {
  return addServerFlags(new Command("show").description("Show a rejection."))
    .argument("<id>", "rej_…")
    .action(async (id: string, flags: ServerFlags & { readonly json?: boolean }) => {
      const { body } = await requestApi(await findServer(context, flags), { path: `/v1/rejections/${encodeURIComponent(id)}` });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
    });
}

/** One rejection is built again at once, by no job: a dry run that builds and sends would be worse than a refusal. */
function refuseJobFlags(flags: RetryFlags): void {
  const isGiven = {
    "--dry-run": flags.dryRun === true,
    "--event": flags.event !== undefined,
    "--from": flags.from !== undefined,
    "--to": flags.to !== undefined,
    "--project": flags.project !== undefined,
    "--no-wait": !flags.wait,
  };
  const given = Object.entries(isGiven).flatMap(([flag, isThere]) => (isThere ? [flag] : []));
  if (given.length === 0) return;
  throw new AncrageError("ANCRAGE_OPTION_INVALID", `expected the id of a rejection or ${given.join(", ")}, got both.`, {
    hint: "Leave the flags out to retry this one; leave the id out for all that they choose. `ancrage rejections show` shows one.",
  });
}

interface RetryFlags extends JobFlags {
  readonly event?: string;
  readonly from?: string;
  readonly to?: string;
}

function retryCommand(context: CommandContext): Command {
  const command = new Command("retry")
    .description("Build rejections again, with the code as it is now. What works becomes a message under its first id.")
    .argument("[id]", "rej_…, with none of the flags that choose; without it all of --event, or of a range of time")
    .option("--event <name>", "of this event, or of this tracking file")
    .option("--from <time>", "committed from then on; else 30 days ago")
    .option("--to <time>", "committed before; else now")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage rejections retry rej_01K9…\n  $ ancrage rejections retry --event NewOpportunity\n\nA parked event that works again is run again. Those that are rejected again stay, and the code is 1.\n${jobExitCodes}`,
    );
  return addJobFlags(command, { isShaped: false }).action(async (id: string | undefined, flags: RetryFlags) => {
    if (id !== undefined) return retryOne(context, id, flags);
    const now = Date.now();
    await makeJob(context, flags, {
      path: "/v1/jobs",
      counted: "rejections",
      body: {
        kind: "retry",
        ...(flags.event === undefined ? {} : { event: flags.event }),
        ...(flags.from === undefined ? {} : { from: parseTime("--from", flags.from, now) }),
        ...(flags.to === undefined ? {} : { to: parseTime("--to", flags.to, now) }),
      },
    });
  });
}

async function retryOne(context: CommandContext, id: string, flags: RetryFlags): Promise<void> {
  refuseJobFlags(flags);
  const { body } = await requestApi(await findServer(context, flags), {
    method: "POST",
    path: `/v1/rejections/${encodeURIComponent(id)}/retry`,
  });
  context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
  if ((body as { readonly outcome: string }).outcome === "rejected") context.exitWith(exitCodes.failed);
}
