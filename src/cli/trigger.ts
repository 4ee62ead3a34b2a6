import { Command } from "commander";
import { AncrageError } from "../errors.ts";
import { rejectionFaults } from "../payload/reject.ts";
import { addServerFlags, findServer, requestApi, type Server, type ServerFlags } from "./client.ts";
import { type CommandContext, exitCodes } from "./command.ts";
import { formatTree } from "./format-tree.ts";

/** What the server waits at most; a longer wait would end in silence. */
const mostWaitSeconds = 25;

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
    .option("--wait <seconds>", "wait so long for the message and show it, at most 25", "5")
    .option("--no-wait", "do not wait for the message")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage trigger NewOpportunity 42\n  $ ancrage trigger PasswordReset 7 --data '{"by":"support"}' --no-wait\n\nExit codes: 0 it happened · 1 it was rejected · 2 no such event, record or data · 3 not reachable, or not journaled in the time of --wait: it may still happen.`,
    )
    .action(async (event: string, key: string, flags: TriggerFlags) => {
      const data = flags.data === undefined ? undefined : parseData(flags.data);
      const waitSeconds = flags.wait === false ? 0 : parseWait(flags.wait);
      const server = await findServer(context, flags);
      const { status, body } = await requestApi(server, {
        method: "POST",
        path: `/v1/events/${encodeURIComponent(event)}/trigger`,
        body: { key, data },
        ...(waitSeconds > 0 ? { headers: { prefer: `wait=${waitSeconds}` } } : {}),
        // The server answers after its wait; the rest is for the way.
        timeoutMs: (waitSeconds + 30) * 1000,
      });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
      if (status !== 202 || waitSeconds === 0) return;
      const came = readOutcome(body);
      if (came.outcome === "rejected") {
        const rejection = await findRejection(server, event, came.rejectionId);
        context.note(`It was rejected${rejection === undefined ? "" : ` (${rejection.reason}): ${rejection.error}`}.`);
        // Whoever gave a key or data that are none is told so apart from an event whose code fails.
        context.exitWith(isCallersFault(rejection?.reason) ? exitCodes.usage : exitCodes.failed);
      } else if (came.outcome === "nothing") context.note("Nothing is sent: the payload function returned undefined.");
      else {
        context.note(`It is not journaled after ${waitSeconds} s. \`ancrage explain ${event} ${key}\` tells more.`);
        context.exitWith(exitCodes.unavailable);
      }
    });
}

interface Outcome {
  readonly outcome?: string;
  readonly rejectionId?: string;
}

function readOutcome(body: unknown): Outcome {
  return typeof body === "object" && body !== null ? body : {};
}

interface Rejection {
  readonly id: string;
  readonly reason: string;
  readonly error: string;
}

/** It is among the newest: it was made a moment ago. */
async function findRejection(server: Server, event: string, id: string | undefined): Promise<Rejection | undefined> {
  const { body } = await requestApi(server, { path: "/v1/rejections", query: { event, limit: "50" } });
  return (body as { readonly data: readonly Rejection[] }).data.find((rejection) => rejection.id === id);
}

function isCallersFault(reason: string | undefined): boolean {
  return Object.entries(rejectionFaults).some(([known, fault]) => known === reason && fault === "caller");
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
  if (/^\d{1,2}$/.test(text) && Number(text) <= mostWaitSeconds) return Number(text);
  throw new AncrageError(
    "ANCRAGE_OPTION_INVALID",
    `--wait: expected a whole number of seconds from 0 to ${mostWaitSeconds}, got ${JSON.stringify(text)}`,
  );
}
