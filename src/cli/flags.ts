import { type Command, Option } from "commander";
import { loadConfig } from "../event/discover.ts";
import { definitionError } from "../event/fault.ts";
import { type CheckedOptions, declaredOptions, type FlagValue, readOptions } from "../options.ts";
import type { CommandContext } from "./command.ts";
import { registerResolveFallback } from "./resolve-fallback.ts";

/** Gives a command the flags of these options, as `options.ts` declares them. */
export function addOptionFlags(command: Command, paths: readonly string[]): Command {
  for (const { path, option } of declaredOptions) {
    if (!paths.includes(path) || option.flag === undefined) continue;
    const flag = new Option(option.flag, `${option.help}${option.env === undefined ? "" : ` [${option.env}]`}`);
    if (Array.isArray(option.default)) flag.argParser((value: string, before: readonly string[] | undefined) => [...(before ?? []), value]);
    command.addOption(flag);
  }
  return command;
}

/** What the user gave on the command line, by the option's path, as `readOptions` takes it. */
export function flagsOf(command: Command): Readonly<Record<string, FlagValue>> {
  const values = command.opts<Record<string, FlagValue>>();
  return Object.fromEntries(
    declaredOptions
      .filter(({ option }) => option.flag !== undefined)
      .map(({ path, option }) => [path, values[new Option(option.flag ?? "").attributeName()]]),
  );
}

/**
 * The options that a command runs with: flags, the environment, and the folder's `ancrage.config.ts`.
 *
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` where the config file cannot be imported, `ANCRAGE_OPTION_INVALID`
 */
export async function loadOptions(
  folder: string,
  context: Pick<CommandContext, "env">,
  flags: Readonly<Record<string, FlagValue>>,
): Promise<CheckedOptions> {
  // Before the first import of what a user wrote: every command that reads definitions comes here first.
  registerResolveFallback();
  const { config, faults } = await loadConfig(folder);
  if (faults.length > 0) throw definitionError(faults);
  return { ...readOptions(config ?? {}, { env: context.env, flags }), events: folder };
}
