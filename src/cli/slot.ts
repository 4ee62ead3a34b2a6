import { Command } from "commander";
import { systemClock } from "../clock.ts";
import { requireOptions } from "../options.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";
import { formatTree } from "./format-tree.ts";

/** `ancrage slot`: what PostgreSQL keeps its log by. */
export function slotCommand(context: CommandContext): Command {
  return new Command("slot")
    .description("The replication slot, by which PostgreSQL keeps its log until it was read.")
    .helpCommand(false)
    .addCommand(statusCommand(context))
    .addCommand(recreateCommand(context));
}

function statusCommand(context: CommandContext): Command {
  const command = new Command("status")
    .description(
      "Show how far the slot is, what it keeps, and whether a start could go on from it. Asks the database; no process need run.",
    )
    .option("--json", "print it as JSON")
    .addHelpText("after", "\nExit codes: 0 a start goes on from it, or the outbox is read · 1 failed · 3 it is lost, or was never made.");
  addOptionFlags(command, ["database"]);
  return command.action(async (flags: { readonly json?: boolean }) => {
    const options = await loadOptions(context.workingFolder, context, flagsOf(command));
    const { database } = requireOptions(options, "database");
    const { readSlotStatus } = await import("../slot-status.ts");
    const status = await readSlotStatus(database, systemClock);
    context.print(flags.json === true ? JSON.stringify(status) : formatTree(status));
    if (status.state === "lost" || status.state === "not-made") context.exitWith(exitCodes.unavailable);
  });
}

function recreateCommand(context: CommandContext): Command {
  const command = new Command("recreate")
    .description("Drop the slot and make it anew at the present end of the log, and note the gap: what lies between is lost.")
    .argument("<folder>", "holds events/: what may have been missed")
    .option("--force", "also where nothing is wrong with the slot")
    .option("--json", "print the gap and the events as JSON")
    .addHelpText(
      "after",
      "\nThe role of DATABASE_URL, or of ANCRAGE_REPLICATION_URL, needs the attribute replication. Restart Ancrage after it." +
        "\n\nExit codes: 0 done · 1 failed, or nothing is wrong with the slot · 2 a definition is wrong · 3 a process reads the slot, or migrate must run first.",
    );
  addOptionFlags(command, ["database", "environment"]);
  return command.action(async (argument: string, flags: { readonly json?: boolean; readonly force?: boolean }) => {
    const options = await loadOptions(await resolveFolder(context.workingFolder, argument), context, flagsOf(command));
    const { database } = requireOptions(options, "database");
    const { recreateSlot, formatRecreated } = await import("../recreate-slot.ts");
    const recreated = await recreateSlot({ ...options, database }, { isForced: flags.force === true });
    context.print(flags.json === true ? JSON.stringify(recreated, bigintAsText) : formatRecreated(recreated));
  });
}

const bigintAsText = (_key: string, value: unknown): unknown => (typeof value === "bigint" ? value.toString() : value);
