import { Command } from "commander";
import { systemClock } from "../clock.ts";
import type { Finding } from "../doctor/finding.ts";
import { AncrageError } from "../errors.ts";
import { requireOptions } from "../options.ts";
import { type CommandContext, exitCodes, type ExitCode } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";

/** `ancrage doctor [FOLDER]` */
export function doctorCommand(context: CommandContext): Command {
  const command = new Command("doctor")
    .description("Check everything that capture needs, and say for each fault what mends it.")
    .argument("[folder]", "holds events/; without it only the server and the roles are checked")
    .option("--fix", "do what `ancrage migrate` does where it lacks; nothing else is changed")
    .option("--json", "print the findings as JSON")
    .addHelpText("after", help);
  addOptionFlags(command, ["database", "environment"]);
  return command.action(async (argument: string | undefined, flags: { readonly json?: boolean; readonly fix?: boolean }) => {
    if (flags.fix === true && argument === undefined) {
      throw new AncrageError("ANCRAGE_OPTION_INVALID", "--fix: expected a folder, got none.", {
        hint: "Name the folder that holds events/: it says what `ancrage migrate` is to make.",
      });
    }
    const folder = argument === undefined ? undefined : await resolveFolder(context.workingFolder, argument);
    const options = await loadOptions(folder ?? context.workingFolder, context, flagsOf(command));
    const { database } = requireOptions(options, "database");
    const [{ examine, fix }, { worstOf }] = await Promise.all([import("../doctor/doctor.ts"), import("../doctor/finding.ts")]);
    const run = { options: { ...options, database }, folder: argument, clock: systemClock };
    let findings = await examine(run);
    if (flags.fix === true && findings.some(({ isFixable }) => isFixable)) {
      await fix(findings, run, (step) => context.note(`done: ${step}`));
      findings = await examine(run);
    }
    const worst = worstOf(findings);
    context.print(flags.json === true ? JSON.stringify({ worst, findings }) : formatFindings(findings));
    context.exitWith(exitOf[worst]);
  });
}

const exitOf: Readonly<Record<Finding["severity"], ExitCode>> = {
  ok: exitCodes.ok,
  warning: exitCodes.failed,
  error: exitCodes.unavailable,
};

const signs: Readonly<Record<Finding["severity"], string>> = { ok: "ok     ", warning: "WARNING", error: "ERROR  " };

function formatFindings(findings: readonly Finding[]): string {
  const lines = findings.flatMap(({ severity, message, mend }) => [
    `${signs[severity]}  ${message.trimEnd()}`,
    ...mend.filter((line) => line !== "").map((line) => `         → ${line}`),
  ]);
  const count = (severity: Finding["severity"]): number => findings.filter((finding) => finding.severity === severity).length;
  const [errors, warnings] = [count("error"), count("warning")];
  const end =
    errors > 0
      ? `${errors} to mend before Ancrage can start: do what the arrows say, from the top, and run doctor again.`
      : warnings > 0
        ? `Ancrage can start. ${warnings} to look at.`
        : "All is well.";
  return [...lines, "", end].join("\n");
}

const help = `
Give DATABASE_URL of the role that will run \`ancrage start\`, and ANCRAGE_REPLICATION_URL if another one reads the log.
--fix needs the rights of the owner, as \`ancrage migrate\` does.

Examples:
  $ ancrage doctor hooks
  $ ancrage doctor hooks --fix
  $ ancrage doctor --json | jq '.findings[] | select(.severity != "ok")'

Exit codes: 0 all is well · 1 warnings only, or the check itself failed · 2 an option or a definition is wrong · 3 errors: \`start\` would refuse, or changes would be missed.`;
