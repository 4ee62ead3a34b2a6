import { Command } from "commander";
import { AncrageError } from "../errors.ts";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { formatTree } from "./format-tree.ts";

interface TriggerFlags extends ServerFlags {
  readonly data?: string;
  readonly wait: string | false;
  readonly json?: boolean;
}

/** `ancrage trigger EVENT KEY` */
export function triggerCommand(context: CommandContext): Command {
  return addServerFlags(new Command("trigger").description("Make an event happen for one record, whatever its rules say."))
    .argument("<event>", "the event's name")
    .argument("<key>", "the record's primary key; a JSON array of texts where it has several columns")
    .option("--data <json>", "what the payload function finds in context.data")
    .option("--wait <seconds>", "wait so long for the message and show it", "5")
    .option("--no-wait", "do not wait for the message")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage trigger NewOpportunity 42\n  $ ancrage trigger PasswordReset 7 --data '{"by":"support"}' --no-wait\n\nExit codes: 0 it happened · 1 it was rejected · 2 no such event, or the key is none · 3 not reachable.`,
    )
    .action(async (event: string, key: string, flags: TriggerFlags) => {
      const data = flags.data === undefined ? undefined : parseData(flags.data);
      const waitSeconds = flags.wait === false ? 0 : parseWait(flags.wait);
      const { status, body } = await requestApi(await findServer(context, flags), {
        method: "POST",
        path: `/v1/events/${encodeURIComponent(event)}/trigger`,
        body: { key, data },
        ...(waitSeconds > 0 ? { headers: { prefer: `wait=${waitSeconds}` } } : {}),
        // The server answers after its wait; the rest is for the way.
        timeoutMs: (waitSeconds + 30) * 1000,
      });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
      if (status !== 202 || waitSeconds === 0) return;
      const came = outcomeOf(body);
      context.note(`${noMessage[came] ?? `It is not journaled after ${waitSeconds} s.`} \`ancrage explain ${event} ${key}\` tells more.`);
      if (came === "rejected") context.exitWith(exitCodes.failed);
    });
}

/** By what the server says came of it, where that is no message. */
const noMessage: Readonly<Record<string, string>> = {
  rejected: "It could not become a message.",
  nothing: "Nothing is sent: the payload function returned undefined.",
};

function outcomeOf(body: unknown): string {
  return typeof body === "object" && body !== null && "outcome" in body && typeof body.outcome === "string" ? body.outcome : "pending";
}

function parseData(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new AncrageError("ANCRAGE_OPTION_INVALID", `--data: expected JSON, got ${JSON.stringify(text)}`, {
      hint: `Quote it for the shell: --data '{"by":"support"}'.`,
      cause,
    });
  }
}

function parseWait(text: string): number {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  throw new AncrageError("ANCRAGE_OPTION_INVALID", `--wait: expected a whole number of seconds, got ${JSON.stringify(text)}`);
}
