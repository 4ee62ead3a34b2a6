import { Command } from "commander";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";

/** `ancrage explain EVENT KEY` */
export function explainCommand(context: CommandContext): Command {
  return addServerFlags(
    new Command("explain").description("Say whether an event would happen for a record, to whom it would go, and why not."),
  )
    .argument("<event>", "the event's name")
    .argument("<key>", "the record's primary key; a JSON array of texts where it has several columns")
    .addHelpText("after", "\nExamples:\n  $ ancrage explain NewOpportunity 42\n  $ ancrage explain deal.won 42 --json")
    .action(async (event: string, key: string, flags: ServerFlags & { readonly json?: boolean }) => {
      const { body } = await requestApi(await findServer(context, flags), {
        path: `/v1/events/${encodeURIComponent(event)}/explain`,
        query: { key },
      });
      context.print(flags.json === true ? JSON.stringify(body) : (body as { readonly findings: readonly string[] }).findings.join("\n"));
    });
}
