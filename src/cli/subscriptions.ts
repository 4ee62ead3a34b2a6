import { Command } from "commander";
import { AncrageError } from "../errors.ts";
import { addServerFlags, findServer, requestApi, type ApiRequest, type ServerFlags } from "./client.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { formatTree } from "./format-tree.ts";
import { addListFlags, listAll, type ListFlags } from "./list.ts";

/** `ancrage subscriptions`: over the HTTP API of a running Ancrage. */
export function subscriptionsCommand(context: CommandContext): Command {
  return new Command("subscriptions")
    .description("Events bound to URLs: list, make and change them.")
    .helpCommand(false)
    .addCommand(listCommand(context))
    .addCommand(ofOne(context, "show", "Show a subscription.", () => ({ method: "GET" })))
    .addCommand(ofOne(context, "secret", "Show the secret that its receiver verifies with.", () => ({ method: "GET", path: "/secret" })))
    .addCommand(createCommand(context))
    .addCommand(updateCommand(context))
    .addCommand(ofOne(context, "pause", "Journal its messages and send none, until it is resumed.", () => ({ path: "/pause" })))
    .addCommand(ofOne(context, "resume", "Send what waits since it was paused, and what comes.", () => ({ path: "/resume" })))
    .addCommand(ofOne(context, "enable", "Send again to one that was disabled, from now on.", () => ({ path: "/enable" })))
    .addCommand(ofOne(context, "delete", "End it: what waits is canceled.", () => ({ method: "DELETE" })))
    .addCommand(rotateCommand(context))
    .addCommand(testCommand(context));
}

const path = (id: string, command = ""): string => `/v1/subscriptions/${encodeURIComponent(id)}${command}`;

interface AnswerFlags extends ServerFlags {
  readonly json?: boolean;
}

/** Asks the API and prints the answer. */
async function ask(context: CommandContext, flags: AnswerFlags, request: ApiRequest): Promise<unknown> {
  const { body } = await requestApi(await findServer(context, flags), request);
  context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
  return body;
}

/** A command on one subscription that takes nothing but its id. */
function ofOne(
  context: CommandContext,
  name: string,
  description: string,
  request: () => { readonly method?: "GET" | "DELETE"; readonly path?: string },
): Command {
  return addServerFlags(new Command(name).description(description))
    .argument("<id>", "sub_…")
    .action(async (id: string, flags: AnswerFlags) => {
      const { method = "POST", path: command } = request();
      await ask(context, flags, { method, path: path(id, command) });
    });
}

interface SubscriptionListFlags extends ListFlags {
  readonly event?: string;
  readonly to?: string;
}

function listCommand(context: CommandContext): Command {
  return addListFlags(new Command("list").description("List subscriptions, newest first."), { isOfDays: false })
    .option("--event <name>", "only those to this event")
    .option("--to <url>", "only those to this URL")
    .action(({ to, ...flags }: SubscriptionListFlags) =>
      listAll<ListedSubscription>(context, flags, {
        path: "/v1/subscriptions",
        query: { event: flags.event, url: to },
        format: formatListed,
      }),
    );
}

function formatListed({ id, state, stateReason, project, events, url }: ListedSubscription): string {
  return `${id}  ${stateReason === null ? state : `${state} (${stateReason})`}  ${project}  ${events.join(", ")}  ${url}`;
}

interface ListedSubscription {
  readonly id: string;
  readonly project: string;
  readonly state: string;
  readonly stateReason: string | null;
  readonly events: readonly string[];
  readonly url: string;
}

interface FieldFlags extends AnswerFlags {
  readonly event?: readonly string[];
  readonly description?: string;
  readonly format?: string;
  readonly filter?: string;
  readonly header?: readonly string[];
  readonly order?: string;
  readonly inFlight?: string;
  readonly perSecond?: string;
  readonly expires?: string;
}

const several = (value: string, before: readonly string[] = []): readonly string[] => [...before, value];

function addFieldFlags(command: Command): Command {
  return addServerFlags(command)
    .option("--event <name>", "the event; may be given several times", several)
    .option("--description <text>", "for you")
    .option("--format <format>", "standard, result, bare or cloudevents")
    .option("--filter <json>", 'which payloads it wants, such as {"amount":{"gte":1000}}; null: all')
    .option("--header <line>", 'sent with every request, as "name: value"; may be given several times', several)
    .option("--order <order>", "none, record or all: what a failure holds back")
    .option("--in-flight <number>", "requests at a time, at most")
    .option("--per-second <number>", "requests that begin in a second, at most")
    .option("--expires <time>", "ISO 8601 with its zone; null: never");
}

/** What is wrong with a value the server says, with all else that is: only what is no JSON and no number is told here. */
function fieldsOf(flags: FieldFlags): Record<string, unknown> {
  const { event: events, description, format, order, expires } = flags;
  const limits = { ...numberOf("inFlight", "--in-flight", flags.inFlight), ...numberOf("perSecond", "--per-second", flags.perSecond) };
  const fields = {
    events,
    description,
    format,
    order,
    filter: flags.filter === undefined ? undefined : parseJson("--filter", flags.filter),
    headers: flags.header === undefined ? undefined : Object.fromEntries(flags.header.map(parseHeader)),
    limits: Object.keys(limits).length === 0 ? undefined : limits,
    expiresAt: expires === "null" ? null : expires,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function createCommand(context: CommandContext): Command {
  return addFieldFlags(
    new Command("create").description("Bind events to a URL. The answer has the secret that its receiver verifies with."),
  )
    .argument("<to>", "the URL to send to")
    .option("--project <name>", "where the token is for all projects")
    .addHelpText("after", "\nExample:\n  $ ancrage subscriptions create https://example.com/hook --event NewOpportunity")
    .action(async (to: string, flags: FieldFlags & { readonly project?: string }) => {
      const project = flags.project === undefined ? {} : { project: flags.project };
      await ask(context, flags, { method: "POST", path: "/v1/subscriptions", body: { url: to, ...project, ...fieldsOf(flags) } });
    });
}

function updateCommand(context: CommandContext): Command {
  return addFieldFlags(new Command("update").description("Change what is given, and nothing else."))
    .argument("<id>", "sub_…")
    .option("--to <url>", "the URL to send to")
    .option("--set <json>", "a merge patch: what no other flag says, such as null for a default")
    .addHelpText("after", `\nExample:\n  $ ancrage subscriptions update sub_… --filter '{"amount":{"gte":1000}}'`)
    .action(async (id: string, flags: FieldFlags & { readonly to?: string; readonly set?: string }) => {
      const set = flags.set === undefined ? {} : parseJson("--set", flags.set);
      const body = { ...(set as object), ...(flags.to === undefined ? {} : { url: flags.to }), ...fieldsOf(flags) };
      await ask(context, flags, { method: "PATCH", path: path(id), body });
    });
}

function rotateCommand(context: CommandContext): Command {
  return addServerFlags(new Command("rotate-secret").description("Give it a new secret; the one before signs too for a while."))
    .argument("<id>", "sub_…")
    .option("--grace-hours <number>", "how long the one before signs too, 0 to 168", "24")
    .action(async (id: string, flags: AnswerFlags & { readonly graceHours: string }) => {
      const body = numberOf("graceHours", "--grace-hours", flags.graceHours);
      await ask(context, flags, { method: "POST", path: path(id, "/rotate-secret"), body });
    });
}

function testCommand(context: CommandContext): Command {
  return addServerFlags(new Command("test").description("Send it one signed message with a sample, and show what came of it."))
    .argument("<id>", "sub_…")
    .option("--event <name>", "which event; default: its first one")
    .addHelpText("after", "\nExit codes: 0 delivered · 1 it failed · 2 no such subscription or event · 3 not reachable.")
    .action(async (id: string, flags: AnswerFlags & { readonly event?: string }) => {
      const body = flags.event === undefined ? {} : { event: flags.event };
      const result = await ask(context, flags, { method: "POST", path: path(id, "/test"), body });
      if (!(result as { readonly isDelivered: boolean }).isDelivered) context.exitWith(exitCodes.failed);
    });
}

function numberOf(name: string, flag: string, text: string | undefined): Record<string, number> {
  if (text === undefined) return {};
  const number = text.trim() === "" ? Number.NaN : Number(text);
  if (!Number.isNaN(number)) return { [name]: number };
  throw new AncrageError("ANCRAGE_OPTION_INVALID", `${flag}: expected a number, got ${JSON.stringify(text)}`);
}

function parseJson(flag: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new AncrageError("ANCRAGE_OPTION_INVALID", `${flag}: expected JSON, got ${JSON.stringify(text)}`, {
      hint: `Quote it for the shell: ${flag} '{"amount":{"gte":1000}}'.`,
      cause,
    });
  }
}

/** The value stays out of the message: it is the receiver's own credentials as a rule. */
function parseHeader(line: string): readonly [string, string] {
  const colon = line.indexOf(":");
  if (colon > 0) return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  throw new AncrageError("ANCRAGE_OPTION_INVALID", `--header: expected "name: value", got a text without a name before a colon`);
}
