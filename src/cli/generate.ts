import { Command } from "commander";
import { requireOptions } from "../options.ts";
import type { CommandContext } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";

/** `ancrage generate FOLDER` */
export function generateCommand(context: CommandContext): Command {
  const command = new Command("generate")
    .description("Write ancrage.d.ts: the types of the database's tables and of the folder's events.")
    .argument("<folder>", "holds events/, tracking/ and ancrage.config.ts")
    .option("--json", "print what was written as JSON")
    .addHelpText(
      "after",
      "\nWithout DATABASE_URL it reads the database of the `ancrage dev` that runs here. `ancrage dev` writes the file by itself." +
        "\n\nExamples:\n  $ ancrage generate hooks\n\nExit codes: 0 done · 1 failed · 2 an option is wrong · 3 the database is not reachable.",
    );
  addOptionFlags(command, ["database"]);
  return command.action(async (argument: string, flags: { readonly json?: boolean }) => {
    const folder = await resolveFolder(context.workingFolder, argument);
    const options = await loadOptions(folder, context, flagsOf(command));
    const [{ readNearestDev }, { readDatabaseShape, writeFolderTypes }] = await Promise.all([
      import("../dev/dev-file.ts"),
      import("./read-definitions.ts"),
    ]);
    const database = options.database ?? (await readNearestDev(folder))?.database ?? requireOptions(options, "database").database;
    const written = await writeFolderTypes(folder, await readDatabaseShape(database));
    context.print(
      flags.json === true ? JSON.stringify(written) : `${written.path} ${written.isChanged ? "was written" : "was up to date"}.`,
    );
  });
}
