import { Command, CommanderError } from "commander";
import { AncrageError } from "../errors.ts";
import { type CommandContext, type ExitCode, exitCodeOfError, exitCodes, formatError, formatErrorJson } from "./command.ts";
import { adoptCommand } from "./adopt.ts";
import { backfillCommand } from "./backfill.ts";
import { deliveriesCommand } from "./deliveries.ts";
import { devCommand } from "./dev.ts";
import { doctorCommand } from "./doctor.ts";
import { explainCommand } from "./explain.ts";
import { gapsCommand } from "./gaps.ts";
import { generateCommand } from "./generate.ts";
import { jobsCommand } from "./jobs.ts";
import { migrateCommand } from "./migrate.ts";
import { rejectionsCommand } from "./rejections.ts";
import { sampleCommand } from "./sample.ts";
import { slotCommand } from "./slot.ts";
import { startCommand } from "./start.ts";
import { tokensCommand } from "./tokens.ts";
import { statusCommand } from "./status.ts";
import { subscriptionsCommand } from "./subscriptions.ts";
import { triggerCommand } from "./trigger.ts";
import { version } from "../version.ts";

/** Runs one command line (without the names of node and of the script) and answers with what the process should end with. */
export async function runProgram(words: readonly string[], outside: Omit<CommandContext, "exitWith">): Promise<ExitCode> {
  let exitCode: ExitCode = exitCodes.ok;
  const context: CommandContext = { ...outside, exitWith: (code) => (exitCode = code) };
  const isJson = words.includes("--json");
  try {
    await defineProgram(context, isJson).parseAsync(words, { from: "user" });
    return exitCode;
  } catch (error) {
    // Help and --version end here too; commander has printed what there is to say.
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    context.note(isJson ? formatErrorJson(error) : formatError(error));
    return exitCodeOfError(error);
  }
}

function defineProgram(context: CommandContext, isJson: boolean): Command {
  const writeErr = (text: string): void => context.note(isJson ? formatErrorJson(wrongWords(text)) : text.trimEnd());
  const program = new Command("ancrage")
    .description("Binds what happens in PostgreSQL to URLs: signed webhooks from the write-ahead log.")
    .version(version)
    .configureOutput({ writeOut: (text) => context.print(text.trimEnd()), writeErr })
    .showSuggestionAfterError()
    .helpCommand(false)
    .exitOverride()
    .addHelpText("after", footer);
  const commands = [
    devCommand,
    startCommand,
    migrateCommand,
    generateCommand,
    statusCommand,
    explainCommand,
    sampleCommand,
    triggerCommand,
    subscriptionsCommand,
    backfillCommand,
    deliveriesCommand,
    rejectionsCommand,
    jobsCommand,
    tokensCommand,
    doctorCommand,
    slotCommand,
    gapsCommand,
    adoptCommand,
  ];
  for (const define of commands) {
    program.addCommand(inherit(define(context), program));
  }
  return program;
}

/** Settings of a command count for its own only: they are handed down to those below it. */
function inherit(command: Command, parent: Command): Command {
  command.copyInheritedSettings(parent).exitOverride();
  for (const below of command.commands) inherit(below, command);
  return command;
}

/** What commander says of a command line that it cannot read. */
function wrongWords(text: string): AncrageError {
  return new AncrageError("ANCRAGE_OPTION_INVALID", text.trim().replace(/^error: /, ""));
}

const footer = `
Examples:
  $ ancrage dev examples/crm                      a database, the pipeline and the API, reloaded on change
  $ ancrage trigger NewOpportunity 42             make an event happen for one record
  $ ancrage migrate hooks && ancrage start hooks  in production, with DATABASE_URL set

Exit codes: 0 done · 1 failed · 2 the command line, an option or a definition is wrong · 3 something cannot be reached or is not ready ·
130, 143 ended by ^C or SIGTERM.
With --json the answer on standard output is JSON; notes and logs go to standard error.`;
