import { Command } from "commander";
import type { CommandContext } from "./command.ts";
import { addJobFlags, jobExitCodes, makeJob, type JobFlags } from "./make-job.ts";

interface BackfillFlags extends JobFlags {
  readonly subscription: string;
  readonly where?: string;
}

/** `ancrage backfill EVENT`: messages from rows that were there before. */
export function backfillCommand(context: CommandContext): Command {
  const command = new Command("backfill")
    .description("Send rows that were there before to a subscription, as messages of an event.")
    .argument("<event>", "the event's name; it must have a table")
    .requiredOption("--subscription <id>", "whom to send them to")
    .option("--where <sql>", "an SQL condition on the table, beside the event's own where")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage backfill NewOpportunity --subscription sub_01K9… --dry-run\n  $ ancrage backfill NewOpportunity --subscription sub_01K9… --where "created_at >= '2026-11-01'" --rate 50\n\n--dry-run counts the rows before the event's own where and the project are asked.\n${jobExitCodes}`,
    );
  return addJobFlags(command, { isShaped: true }).action((event: string, flags: BackfillFlags) =>
    makeJob(context, flags, {
      path: "/v1/jobs",
      counted: "rows",
      body: { kind: "backfill", event, subscriptionId: flags.subscription, ...(flags.where === undefined ? {} : { where: flags.where }) },
    }),
  );
}
