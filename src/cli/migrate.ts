import { Command } from "commander";
import { requireOptions } from "../options.ts";
import type { CommandContext } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";

/** `ancrage migrate FOLDER` */
export function migrateCommand(context: CommandContext): Command {
  const command = new Command("migrate")
    .description("Prepare the database: the schema `ancrage`, replica identities, publications and the replication slot.")
    .argument("<folder>", "holds events/, tracking/ and ancrage.config.ts: what is tracked decides what is published")
    .option("--grant-to <role>", "also grant a role what `ancrage start` needs, on what is made later too")
    .option("--json", "print what ran as JSON")
    .addHelpText(
      "after",
      "\nRun it as the owner of the tracked tables. It may be run at any time; where nothing is to do it does nothing." +
        "\n\nExamples:\n  $ DATABASE_URL=postgres://owner@db/app ancrage migrate hooks\n  $ ancrage migrate hooks --grant-to hooks_app" +
        "\n\nExit codes: 0 done · 1 failed · 2 a definition is wrong · 3 the database is not reachable, lacks what no migration makes, or is a copy.",
    );
  addOptionFlags(command, ["database", "environment"]);
  return command.action(async (argument: string, flags: { readonly json?: boolean; readonly grantTo?: string }) => {
    const options = await loadOptions(await resolveFolder(context.workingFolder, argument), context, flagsOf(command));
    requireOptions(options, "database");
    const { migrate } = await import("../migrate.ts");
    // A replica identity or an index of a large table takes its time: each step is told as it is done.
    const { ran } = await migrate(options, { onStep: (step) => context.note(`done: ${step}`), grantTo: flags.grantTo });
    if (flags.json === true) context.print(JSON.stringify({ ran }));
    else if (ran.length === 0) context.print("Nothing to do: the database is up to date.");
  });
}
