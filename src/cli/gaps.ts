import { Command } from "commander";
import { describeGap } from "../capture/loss.ts";
import { explainDenied } from "../capture/rights.ts";
import { formatLsn } from "../lsn.ts";
import { requireOptions } from "../options.ts";
import { connectClient } from "../store/database.ts";
import { readAllGaps, resolveGaps, type Gap } from "../store/gaps.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";

/** `ancrage gaps`: stretches of the log that were lost before they were read. Asked of the database, so that no process need run. */
export function gapsCommand(context: CommandContext): Command {
  const command = new Command("gaps").description("Stretches of the log that were lost before they were read.").helpCommand(false);
  return command.addCommand(listCommand(context)).addCommand(resolveCommand(context));
}

function listCommand(context: CommandContext): Command {
  const command = new Command("list")
    .description("Show them all, with the events that may lack changes of that time.")
    .option("--json", "print them as JSON");
  addOptionFlags(command, ["database"]);
  return command.action(async (flags: { readonly json?: boolean }) => {
    const gaps = await withDatabase(context, command, readAllGaps);
    if (flags.json === true) context.print(JSON.stringify({ data: gaps.map(viewGap) }));
    else context.print(gaps.length === 0 ? "No gap was ever noted." : gaps.map(formatGap).join("\n"));
  });
}

function resolveCommand(context: CommandContext): Command {
  const command = new Command("resolve")
    .description("Say that what was missed is dealt with: the status shows it no more.")
    .argument("[id...]", "of the gaps, as `gaps list` shows them")
    .option("--all", "all that have ended")
    .option("--json", "print the ids as JSON")
    .addHelpText("after", "\nExit codes: 0 done · 1 none of them could be resolved (unknown, resolved, or still going on).");
  addOptionFlags(command, ["database"]);
  return command.action(async (ids: readonly string[], flags: { readonly json?: boolean; readonly all?: boolean }) => {
    if (ids.length === 0 && flags.all !== true) command.error("error: name the gaps, or give --all");
    if (ids.some((id) => !/^\d{1,18}$/.test(id))) command.error(`error: <id>: expected numbers, got ${ids.join(" ")}`);
    const resolved = await withDatabase(context, command, (db) => resolveGaps(db, flags.all === true ? undefined : ids));
    if (flags.json === true) context.print(JSON.stringify({ resolved }));
    else
      context.print(
        resolved.length === 0 ? "None could be resolved: one that goes on is ended first." : `Resolved: ${resolved.join(", ")}.`,
      );
    if (resolved.length === 0) context.exitWith(exitCodes.failed);
  });
}

async function withDatabase<Result>(
  context: CommandContext,
  command: Command,
  work: (client: Awaited<ReturnType<typeof connectClient>>) => Promise<Result>,
): Promise<Result> {
  const options = await loadOptions(context.workingFolder, context, flagsOf(command));
  const { database } = requireOptions(options, "database");
  const client = await connectClient({ connectionString: database, applicationName: "ancrage gaps" });
  try {
    return await explainDenied(client, () => work(client));
  } finally {
    await client.end();
  }
}

const formatGap = (gap: Gap): string => `${gap.id}  ${gap.resolvedAt === undefined ? "open    " : "resolved"}  ${describeGap(gap)}`;

const viewGap = (gap: Gap): object => ({
  id: gap.id,
  reason: gap.reason,
  fromLsn: formatLsn(gap.fromLsn),
  fromAt: gap.fromAt,
  toLsn: gap.toLsn === undefined ? null : formatLsn(gap.toLsn),
  toAt: gap.toAt ?? null,
  resolvedAt: gap.resolvedAt ?? null,
});
