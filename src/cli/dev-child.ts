import { rm } from "node:fs/promises";
import { type Ancrage, createAncrage } from "../create-ancrage.ts";
import { type Attempted, describeAttempt, describeCaptured } from "../dev/describe-activity.ts";
import type { Captured } from "../capture/change.ts";
import type { TestSignal } from "../test-signal.ts";
import type { FromChild, Handover, ToChild } from "../dev/protocol.ts";
import { createDevReceiver, type DevReceiver } from "../dev/receiver.ts";
import { AncrageError } from "../errors.ts";
import type { Catalogue } from "../event/catalogue.ts";
import { isOperationalEvent } from "../event/operational.ts";
import { createLogger, type Logger } from "../log.ts";
import { migrate } from "../migrate.ts";
import { type CheckedOptions, requireOptions } from "../options.ts";
import { formatError } from "./command.ts";
import { loadOptions } from "./flags.ts";
import { atMost } from "../pause.ts";
import { type Listening, listen } from "./listen.ts";
import { checkDefinitions, readDatabaseShape, writeFolderTypes } from "./read-definitions.ts";

/**
 * The child of `ancrage dev`: the pipeline and the API. It does what its parent says over the channel between them, one thing after
 * the other: prepare, serve, stop. Its log goes to standard error, which the parent reads.
 */
interface State {
  readonly options: ReturnType<typeof withMade>;
  readonly log: Logger;
  readonly ancrage: Ancrage;
  readonly server?: Listening;
  readonly receiver?: DevReceiver;
}

let state: State | undefined;
let orphaned: Extract<ToChild, { kind: "prepare" }>["orphaned"] | undefined;
let work: Promise<void> = Promise.resolve();

/** How long what is being done may take once the parent is gone: the import of an event file may never end. */
const mostLeftMs = 5_000;

// A Ctrl-C, and the end of the terminal itself, goes to the whole group. The parent says when this process ends, or is gone.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => undefined);
process.on("message", (message: ToChild) => {
  if (message.kind === "stop") say({ kind: "stopping" });
  work = work.then(() => obey(message));
});
process.on("disconnect", () => void atMost(mostLeftMs, work).then(endAlone));

async function obey(message: ToChild): Promise<void> {
  try {
    if (message.kind === "prepare") await prepare(message);
    else if (message.kind === "serve") await serve(message);
    else await stop();
  } catch (error) {
    say(
      error instanceof AncrageError
        ? { kind: "fault", code: error.code, message: error.message, hint: error.hint }
        : { kind: "fault", code: "ANCRAGE_COMMAND_FAILED", message: formatError(error) },
    );
  }
}

async function prepare(message: Extract<ToChild, { kind: "prepare" }>): Promise<void> {
  orphaned = message.orphaned;
  const given = withMade(await loadOptions(message.folder, { env: process.env }, message.flags), message.made);
  const shape = await readDatabaseShape(requireOptions(given, "database").database);
  await writeFolderTypes(message.folder, shape);
  const { catalogue, source } = await checkDefinitions(message.folder, shape);
  // What is saved from here on is for the next reload: the pipeline before this one has ended when it serves.
  const options = { ...given, events: source };
  const log = createLogger({ level: options.logLevel, secrets: [options.token, options.secretKey] });
  state = { options, log, ancrage: createAncrage(options, { log, signal: tellActivity(catalogue, log) }) };
  const events = [...catalogue.events.keys()].filter((name) => !isOperationalEvent(name));
  say({ kind: "prepared", events, graceS: options.shutdown.graceS });
}

/** Receivers are on this machine in development; the one of `dev` is. */
const loopback = ["127.0.0.0/8", "::1/128"];

function withMade(given: CheckedOptions, made: Extract<ToChild, { kind: "prepare" }>["made"]): CheckedOptions & typeof made {
  return {
    ...given,
    token: given.token ?? made.token,
    secretKey: given.secretKey ?? made.secretKey,
    allowHttp: true,
    allowNetworks: [...given.allowNetworks, ...loopback],
  };
}

/** One line a change and an attempt: in development one wants to see why nothing happened as much as what did. */
function tellActivity(catalogue: Catalogue, log: Logger): TestSignal {
  return (name, detail) => {
    if (name === "captured") for (const line of describeCaptured(detail as readonly Captured[], catalogue)) log.info(line);
    if (name === "attempted") log.info(describeAttempt(detail as Attempted, Date.now()));
  };
}

async function serve({ port, received }: Handover): Promise<void> {
  if (state === undefined) throw new AncrageError("ANCRAGE_COMMAND_FAILED", "the pipeline was to serve before it was prepared.");
  const { options, ancrage, log } = state;
  const receiver = createDevReceiver({ received, nowMs: Date.now });
  const fetch = async (request: Request): Promise<Response> => (await receiver.handle(request)) ?? ancrage.fetch(request);
  const server = await listen({ fetch, host: options.host, port: port ?? options.port });
  state = { ...state, server, receiver };
  const { ran } = await migrate(options);
  for (const step of ran) log.info(`migrated: ${step}`);
  await ancrage.start();
  // It would answer requests and do nothing else. Started anew, it is a standby of the process that took over.
  void ancrage.ended.then(() => process.exit(1));
  say({ kind: "ready", url: server.url, port: server.port, token: options.token });
}

async function stop(): Promise<void> {
  await state?.server?.close(1000);
  await state?.ancrage.stop();
  await new Promise<void>((resolve) => {
    const last: FromChild = { kind: "stopped", received: state?.receiver?.received() ?? {} };
    if (process.send === undefined || !process.connected) resolve();
    else process.send(last, () => resolve());
  });
  process.exit(0);
}

/** The parent was killed. It cannot end the database any more, so this does: nobody else knows of it. */
async function endAlone(): Promise<void> {
  await state?.server?.close(1000);
  await state?.ancrage.stop().catch(() => undefined);
  if (orphaned?.databasePid !== undefined) process.kill(orphaned.databasePid, "SIGINT");
  if (orphaned?.folder !== undefined) await rm(orphaned.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  process.exit(1);
}

function say(message: FromChild): void {
  process.send?.(message);
}
