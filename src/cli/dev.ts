import { Command } from "commander";
import { AncrageError } from "../errors.ts";
import type { CommandContext } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";

interface DevFlags {
  readonly ephemeral?: boolean;
  readonly json?: boolean;
}

/** `ancrage dev FOLDER` */
export function devCommand(context: CommandContext): Command {
  const command = new Command("dev")
    .description("Run everything for development: a database, the pipeline, the API, a receiver; reloaded on change.")
    .argument("<folder>", "holds events/, tracking/, schema.sql and ancrage.config.ts")
    .option("--ephemeral", "keep nothing: a database in a temporary folder that goes with this process, whatever DATABASE_URL says")
    .option("--json", "print one line of JSON when capture streams, and the log as JSON on standard error")
    .addHelpText("after", help);
  addOptionFlags(command, ["database", "port", "host", "publicUrl", "environment", "allowHttp", "allowNetworks", "logLevel"]);
  return command.action(async (argument: string, flags: DevFlags) => {
    const folder = await resolveFolder(context.workingFolder, argument);
    const flagValues = flagsOf(command);
    if (flags.ephemeral === true && flagValues["database"] !== undefined) {
      throw new AncrageError("ANCRAGE_OPTION_INVALID", "expected --ephemeral or --database, got both.", {
        hint: "--ephemeral takes a database of its own and removes it; leave it out to use the given one.",
      });
    }
    const options = await loadOptions(folder, context, flagValues);
    const { runDev } = await import("../dev/run-dev.ts");
    await runDev({
      folder,
      options,
      flagValues,
      isEphemeral: flags.ephemeral === true,
      isJson: flags.json === true,
      childModule,
      ...context,
      stopping: context.heedStopping(),
    });
  });
}

/** In the package it is JavaScript; a string is not rewritten by the compiler as an import is. */
const childModule = new URL(import.meta.url.endsWith(".ts") ? "./dev-child.ts" : "./dev-child.js", import.meta.url);

const help = `
Without DATABASE_URL a PostgreSQL of its own is started, with its data in <folder>/.ancrage/. A given database is used as it is, and
migrated. <folder>/schema.sql is run while the database has no tables. http: URLs and loopback addresses are allowed.

A change under events/ or tracking/, or of ancrage.config.ts, starts the pipeline anew. The new definitions are checked first: while
they have a fault, the pipeline that runs stays as it is. What they import from elsewhere is not watched.

Examples:
  $ ancrage dev examples/crm
  $ ancrage dev examples/crm --ephemeral --port 0 --json
  $ DATABASE_URL=postgres://localhost/app ancrage dev hooks

Exit codes: 0 stopped when asked · 1 failed, or another dev runs on the folder · 2 an option or (with --json) a definition is wrong ·
3 the database is not reachable.`;
