import { Command } from "commander";
import { requireOptions } from "../options.ts";
import { redactPassword } from "../store/database.ts";
import { type CommandContext } from "./command.ts";
import { addOptionFlags, flagsOf, loadOptions } from "./flags.ts";
import { resolveFolder } from "./folder.ts";

/** `ancrage start FOLDER`: the pipeline and the API in this process, until it is asked to end. */
export function startCommand(context: CommandContext): Command {
  const command = new Command("start")
    .description("Run the pipeline and the API against a database that `ancrage migrate` has prepared.")
    .argument("<folder>", "holds events/, tracking/ and ancrage.config.ts")
    .option("--json", "print one line of JSON when capture streams")
    .addHelpText("after", help);
  addOptionFlags(command, ["database", "port", "host", "publicUrl", "environment", "allowHttp", "allowNetworks", "logLevel"]);
  return command.action(async (argument: string, flags: { readonly json?: boolean }) => {
    const folder = await resolveFolder(context.workingFolder, argument);
    const options = await loadOptions(folder, context, flagsOf(command));
    const { database, token } = requireOptions(options, "database", "token", "secretKey");
    const [{ createAncrage }, { listen }, { watchLoop }] = await Promise.all([
      import("../create-ancrage.ts"),
      import("./listen.ts"),
      import("./loop-watch.ts"),
    ]);
    // From here on there is something to be ended in order.
    const stopping = context.heedStopping();
    const asked = aborted(stopping);
    const stopWatching = watchLoop();
    const ancrage = createAncrage(options);
    // Before the database is touched: a port that is taken should be known at once, and /readyz answers while capture starts.
    const server = await listen({ fetch: ancrage.fetch, host: options.host, port: options.port });
    try {
      // A start may wait for long: for the slot, or for a lease to run out.
      await Promise.race([ancrage.start(), asked]);
      if (stopping.aborted) return;
      if (flags.json === true) {
        const role = await roleOf(ancrage.fetch, server.url, token);
        // What a container prints is kept and read by many: whoever starts it has the token and the password already.
        context.print(JSON.stringify({ ready: true, url: server.url, role, token: null, database: redactPassword(database) }));
      } else context.print(`Ancrage listens on ${server.url}.`);
      const failure = await Promise.race([asked, ancrage.ended]);
      // It would answer requests and do nothing else. Started anew, it is a standby.
      if (failure !== undefined) throw failure;
      context.note(`Asked to end: what is in flight has ${options.shutdown.graceS} s; asked once more, this process goes at once.`);
    } finally {
      await server.close(1_000);
      await ancrage.stop();
      await stopWatching();
    }
  });
}

/** `leading`, or `standby` while another process leads. */
async function roleOf(fetch: (request: Request) => Promise<Response>, url: string, token: string): Promise<string> {
  const answer = await fetch(new Request(`${url}/v1/status`, { headers: { authorization: `Bearer ${token}` } }));
  const { details } = (await answer.json()) as { readonly details?: { readonly role?: string } };
  return details?.role ?? "unknown";
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}

const help = `
Needs DATABASE_URL, ANCRAGE_TOKEN (the operator's bearer token) and ANCRAGE_SECRET_KEY (32 bytes in base64; seals secrets).
Logs are lines of JSON on standard error. With --json one line says that it is ready: {"ready":true,"url":…,"role":"leading"|"standby",
"token":null,"database":…}, the database without its password and no token, since a container's output is kept. SIGTERM and SIGINT finish what is in flight
(shutdown.graceS); a second one ends it at once. Where another process has taken over, or capture and delivery met a fault of their own, it
ends too: let a supervisor (systemd, Kubernetes, Docker) start it again, and it is the standby.

Examples:
  $ ancrage migrate hooks && ancrage start hooks
  $ ancrage start hooks --host 0.0.0.0 --public-url https://hooks.example.com
  $ ancrage start hooks --allow-network 10.20.0.0/16

Exit codes: 0 stopped when asked · 130, 143 ended at once · 1 failed, or another process has taken over · 2 an option or a definition is wrong · 3 the database is not reachable, not migrated, or a copy.`;
