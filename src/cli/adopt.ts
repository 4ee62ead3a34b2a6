import { Command } from "commander";
import { requireOptions } from "../options.ts";
import type { CommandContext } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";

/** `ancrage adopt FOLDER` */
export function adoptCommand(context: CommandContext): Command {
  const command = new Command("adopt")
    .description("Let a copied database (a dump, a snapshot, another environment) capture and send on its own.")
    .argument("<folder>", "holds events/: what is tracked decides what is published")
    .option("--keep-sending", "keep subscriptions enabled and unfinished deliveries: the database has moved, and the first one is off")
    .option("--json", "print what was found and done as JSON")
    .addHelpText("after", help);
  addOptionFlags(command, ["database", "environment"]);
  return command.action(async (argument: string, flags: { readonly json?: boolean; readonly keepSending?: boolean }) => {
    const options = await loadOptions(await resolveFolder(context.workingFolder, argument), context, flagsOf(command));
    const { database } = requireOptions(options, "database");
    const { adopt } = await import("../adopt.ts");
    const onStep = (step: string): void => context.note(`done: ${step}`);
    const adopted = await adopt({ ...options, database }, { keepsSending: flags.keepSending === true, onStep });
    if (flags.json === true) return context.print(JSON.stringify({ ...adopted, found: adopted.found ?? null }));
    if (adopted.found === undefined) return context.print("Nothing to adopt: this database is its own.");
    context.print(
      [
        `Found: ${adopted.found}`,
        "It is its own database from now on.",
        flags.keepSending === true
          ? `Subscriptions, jobs and unfinished deliveries were kept${adopted.keptDeliveries === 0 ? "" : `, ${adopted.keptDeliveries} of which the first process had only in memory`}: no process may run on the first database.`
          : `${adopted.pausedSubscriptions} subscriptions were paused and ${adopted.canceledDeliveries} unfinished deliveries and ${adopted.canceledJobs} jobs canceled: they are the first database's. Resume those that are to hear from this one.`,
      ].join("\n"),
    );
  });
}

const help = `
Run it as the owner of the tracked tables, as \`ancrage migrate\`, with no process of Ancrage on this database. It pauses the subscriptions
of the copy and cancels what it was about to send, and its jobs, unless --keep-sending says that the first database sends no more.

Examples:
  $ ANCRAGE_ENVIRONMENT=staging ancrage adopt hooks
  $ ancrage adopt hooks --keep-sending                  after a move to another server

Exit codes: 0 done, or nothing to adopt · 1 failed · 2 a definition is wrong · 3 not reachable, not migrated, or a process runs on it.`;
