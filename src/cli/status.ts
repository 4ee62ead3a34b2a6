import { Command } from "commander";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { formatTree } from "./format-tree.ts";

const tokenHint = "Give the operator's token (ANCRAGE_TOKEN of the server), or one of all projects, with --token or ANCRAGE_TOKEN.";

/** `ancrage status`: ends with 3 while the server is not ready, so that a script can wait for it. */
export function statusCommand(context: CommandContext): Command {
  return addServerFlags(new Command("status").description("Show what a running Ancrage does, and what needs attention."))
    .addHelpText(
      "after",
      "\nExamples:\n  $ ancrage status\n  $ while ancrage status; [ $? -eq 3 ]; do sleep 1; done\n\nThe token must be the operator's or one of all projects.\n\nExit codes: 0 ready · 1 failed · 2 the token or an option is wrong · 3 not reachable or not ready.",
    )
    .action(async (flags: ServerFlags & { readonly json?: boolean }) => {
      const { body } = await requestApi(await findServer(context, flags), { path: "/v1/status", tokenHint });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
      const isReady = typeof body === "object" && body !== null && "isReady" in body && body.isReady === true;
      if (!isReady) context.exitWith(exitCodes.unavailable);
    });
}
