import { Command } from "commander";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";

interface SampleFlags extends ServerFlags {
  readonly limit: string;
  readonly format?: string;
  readonly json?: boolean;
}

/** `ancrage sample EVENT` */
export function sampleCommand(context: CommandContext): Command {
  return addServerFlags(new Command("sample").description("Show what an event would send for the newest records."))
    .argument("<event>", "the event's name")
    .option("--limit <number>", "how many, newest first", "3")
    .option("--format <format>", "as a delivery in this format sends it: standard, result, bare, cloudevents")
    .addHelpText(
      "after",
      "\nExamples:\n  $ ancrage sample NewOpportunity\n  $ ancrage sample NewOpportunity --limit 1 --format standard --json",
    )
    .action(async (event: string, flags: SampleFlags) => {
      const { body } = await requestApi(await findServer(context, flags), {
        path: `/v1/events/${encodeURIComponent(event)}/samples`,
        query: { limit: flags.limit, format: flags.format },
      });
      context.print(JSON.stringify(body, undefined, flags.json === true ? undefined : 2));
    });
}
