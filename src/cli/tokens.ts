import { Command } from "commander";
import { AncrageError } from "../errors.ts";
import { addServerFlags, findServer, requestApi, type ApiRequest, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";
import { formatTree } from "./format-tree.ts";
import { addListFlags, listAll, type ListFlags } from "./list.ts";

const tokenHint = "Give the operator's token (ANCRAGE_TOKEN of the server), or one of all projects, with --token or ANCRAGE_TOKEN.";

/** `ancrage tokens`: over the HTTP API of a running Ancrage. */
export function tokensCommand(context: CommandContext): Command {
  return new Command("tokens")
    .description("Bearer tokens of the API, of one project or of all: list, make and revoke them.")
    .helpCommand(false)
    .addCommand(listCommand(context))
    .addCommand(ofOne(context, "show", "Show a token, but never itself.", "GET"))
    .addCommand(createCommand(context))
    .addCommand(ofOne(context, "revoke", "End a token: it is refused from the next request on.", "DELETE"));
}

interface TokenView {
  readonly id: string;
  readonly name: string;
  readonly project: string | null;
  readonly expiresAt: string | null;
  readonly lastUsedAt: string | null;
}

function listCommand(context: CommandContext): Command {
  return addListFlags(new Command("list").description("Show tokens, newest first, without those that were revoked."), {
    isOfDays: false,
  }).action((flags: ListFlags) => listAll<TokenView>(context, flags, { path: "/v1/tokens", query: {}, tokenHint, format: formatToken }));
}

function formatToken({ id, name, project, expiresAt, lastUsedAt }: TokenView): string {
  const parts = [id, project ?? "all projects", name, lastUsedAt === null ? "never used" : `used ${lastUsedAt.slice(0, 13)}h`];
  if (expiresAt !== null) parts.push(Date.parse(expiresAt) > Date.now() ? `until ${expiresAt}` : `expired ${expiresAt}`);
  return parts.join("  ");
}

interface CreateFlags extends ServerFlags {
  readonly project?: string;
  readonly allProjects?: boolean;
  readonly expires?: string;
  readonly json?: boolean;
}

function createCommand(context: CommandContext): Command {
  return addServerFlags(new Command("create").description("Make a token. It is shown this once: only its hash is stored."))
    .argument("<name>", "whose it is; subscriptions that it creates are not told of what the actor of this name did")
    .option("--project <name>", "good for this project alone")
    .option("--all-projects", "good for all of them, and for making tokens")
    .option("--expires <time>", "ISO 8601 with its zone; else never")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage tokens create integration:zapier --project acme\n  $ TOKEN=$(ancrage tokens create ci --project acme --json | jq -r .token)\n\nThe token that makes it must be the operator's or one of all projects.`,
    )
    .action(async (name: string, flags: CreateFlags) => {
      if ((flags.project === undefined) === (flags.allProjects !== true)) {
        throw new AncrageError("ANCRAGE_OPTION_INVALID", "expected either --project <name> or --all-projects, got both or none");
      }
      const body = { name, project: flags.project ?? null, ...(flags.expires === undefined ? {} : { expiresAt: flags.expires }) };
      await ask(context, flags, { method: "POST", path: "/v1/tokens", body });
      if (flags.json !== true) context.note("Keep it now: nothing shows it again.");
    });
}

function ofOne(context: CommandContext, name: string, description: string, method: "GET" | "DELETE"): Command {
  return addServerFlags(new Command(name).description(description))
    .argument("<id>", "tok_…, as `tokens list` shows it")
    .action((id: string, flags: ServerFlags & { readonly json?: boolean }) =>
      ask(context, flags, { method, path: `/v1/tokens/${encodeURIComponent(id)}` }),
    );
}

async function ask(context: CommandContext, flags: ServerFlags & { readonly json?: boolean }, request: ApiRequest): Promise<void> {
  const { body } = await requestApi(await findServer(context, flags), { ...request, tokenHint });
  context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
}
