import { Command } from "commander";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";
import { formatTree } from "./format-tree.ts";
import { addListFlags, listAll, type ListFlags } from "./list.ts";
import { addJobFlags, jobExitCodes, makeJob, parseTime, type JobFlags } from "./make-job.ts";

/** `ancrage deliveries`: what was sent to whom, and what can be done about it by hand. */
export function deliveriesCommand(context: CommandContext): Command {
  return new Command("deliveries")
    .description("What was sent to whom: show it, send one again, end what waits.")
    .helpCommand(false)
    .addCommand(listCommand(context))
    .addCommand(showCommand(context))
    .addCommand(resendCommand(context))
    .addCommand(cancelCommand(context));
}

interface DeliveryListFlags extends ListFlags {
  readonly state?: string;
  readonly event?: string;
  readonly subscription?: string;
  readonly message?: string;
  readonly job?: string;
}

interface DeliveryView {
  readonly id: string;
  readonly event: string | null;
  readonly key: string | null;
  readonly state: string;
  readonly subscriptionId: string;
  readonly attempts: readonly { readonly status: number | null; readonly reason: string | null }[];
}

function listCommand(context: CommandContext): Command {
  return addListFlags(new Command("list").description("Show deliveries, those of the newest messages first."), { isOfDays: true })
    .option("--state <state>", "pending, retrying, delivered, exhausted or canceled")
    .option("--event <name>", "only of this one")
    .option("--subscription <id>", "only to this one")
    .option("--message <id>", "only of this one")
    .option("--job <id>", "only those that it made")
    .action((flags: DeliveryListFlags) =>
      listAll<DeliveryView>(context, flags, {
        path: "/v1/deliveries",
        query: {
          state: flags.state,
          event: flags.event,
          subscriptionId: flags.subscription,
          messageId: flags.message,
          jobId: flags.job,
        },
        format: formatDelivery,
      }),
    );
}

function formatDelivery({ id, event, key, state, subscriptionId, attempts }: DeliveryView): string {
  const last = attempts.at(-1);
  const came = last === undefined ? "" : `  ${last.status ?? last.reason ?? ""}`;
  return `${id}  ${state.padEnd(9)}  ${event ?? "–"} ${key ?? "–"} → ${subscriptionId}${came}`;
}

function showCommand(context: CommandContext): Command {
  return addServerFlags(new Command("show").description("Show a delivery with the answers to its attempts."))
    .argument("<id>", "dlv_…")
    .action(async (id: string, flags: ServerFlags & { readonly json?: boolean }) => {
      const { body } = await requestApi(await findServer(context, flags), { path: `/v1/deliveries/${encodeURIComponent(id)}` });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
    });
}

function resendCommand(context: CommandContext): Command {
  return addServerFlags(new Command("resend").description("Send one that is over again, with the same id and bytes."))
    .argument("<id>", "dlv_…")
    .addHelpText(
      "after",
      "\nExit codes: 0 it is pending · 2 no such delivery, or it cannot be sent: the answer says why · 3 not reachable.",
    )
    .action(async (id: string, flags: ServerFlags & { readonly json?: boolean }) => {
      const { body } = await requestApi(await findServer(context, flags), {
        method: "POST",
        path: `/v1/deliveries/${encodeURIComponent(id)}/resend`,
      });
      context.print(flags.json === true ? JSON.stringify(body) : formatTree(body));
    });
}

interface CancelFlags extends JobFlags {
  readonly event?: string;
  readonly subscription?: string;
  readonly from?: string;
  readonly to?: string;
}

function cancelCommand(context: CommandContext): Command {
  const command = new Command("cancel")
    .description("End deliveries that are not over, of an event, a subscription, or both.")
    .option("--event <name>", "only of this one")
    .option("--subscription <id>", "only to this one")
    .option("--from <time>", "of messages committed from then on; else 30 days ago")
    .option("--to <time>", "of messages committed before; else now")
    .addHelpText(
      "after",
      `\nExamples:\n  $ ancrage deliveries cancel --event deal.won --from 2h --dry-run\n  $ ancrage deliveries cancel --event deal.won --from 2h\n${jobExitCodes}`,
    );
  return addJobFlags(command, { isShaped: false }).action((flags: CancelFlags) => {
    const now = Date.now();
    return makeJob(context, flags, {
      path: "/v1/deliveries/cancel",
      counted: "deliveries",
      body: {
        ...(flags.event === undefined ? {} : { event: flags.event }),
        ...(flags.subscription === undefined ? {} : { subscriptionId: flags.subscription }),
        ...(flags.from === undefined ? {} : { from: parseTime("--from", flags.from, now) }),
        ...(flags.to === undefined ? {} : { to: parseTime("--to", flags.to, now) }),
      },
    });
  });
}
