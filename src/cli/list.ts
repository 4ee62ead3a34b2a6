import type { Command } from "commander";
import { addServerFlags, findServer, requestApi, type ServerFlags } from "./client.ts";
import type { CommandContext } from "./command.ts";
import { parseTime } from "./make-job.ts";

export interface ListFlags extends ServerFlags {
  readonly json?: boolean;
  readonly limit: string;
  readonly after?: string;
  readonly project?: string;
  readonly from?: string;
  readonly to?: string;
}

/** What all lists take. */
export function addListFlags(command: Command, { isOfDays }: { readonly isOfDays: boolean }): Command {
  addServerFlags(command)
    .option("--limit <n>", "at most so many, 200 at a time", "50")
    .option("--after <next>", "go on where the page before ended")
    .option("--project <name>", "with a token of all projects: only of this one");
  if (!isOfDays) return command;
  return command
    .option("--from <time>", "committed from then on: 2026-11-24T10:22:00Z, or 90m, 12h, 7d ago; else 7 days before --to")
    .option("--to <time>", "committed before; else now. At most 31 days after --from");
}

interface Listing<Row> {
  readonly path: string;
  readonly query: Readonly<Record<string, string | undefined>>;
  /** A line for a person. */
  readonly format: (row: Row) => string;
  /** Which token it wants, where that is not any one. */
  readonly tokenHint?: string;
}

/** A page of a list, a line each; with `--json` as the API answers it. */
export async function listAll<Row>(
  context: CommandContext,
  flags: ListFlags,
  { path, query, format, ...more }: Listing<Row>,
): Promise<void> {
  const now = Date.now();
  const server = await findServer(context, flags);
  const bounds = {
    from: flags.from === undefined ? undefined : parseTime("--from", flags.from, now),
    to: flags.to === undefined ? undefined : parseTime("--to", flags.to, now),
  };
  const read = async (after: string | undefined): Promise<{ readonly data: readonly Row[]; readonly next: string | null }> => {
    const { body } = await requestApi(server, {
      path,
      ...more,
      query: { ...query, limit: flags.limit, after, project: flags.project, ...bounds },
    });
    return body as { readonly data: readonly Row[]; readonly next: string | null };
  };
  let body = await read(flags.after);
  // A page that found nothing in its time is not the end of the list.
  while (body.data.length === 0 && body.next !== null) body = await read(body.next);
  if (flags.json === true) {
    context.print(JSON.stringify(body));
    return;
  }
  const { data, next } = body;
  // Not an answer: what counts lines is to count none.
  if (data.length === 0) context.note("None.");
  else context.print(data.map(format).join("\n"));
  if (next !== null) context.note(`There are more: --after ${next}`);
}
