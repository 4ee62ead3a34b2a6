import { join } from "node:path";
import { AncrageError, type ErrorCode, errorCodes } from "../errors.ts";
import type { CheckedOptions, FlagValue } from "../options.ts";
import { type DevLock, lockDevFolder } from "./dev-file.ts";
import { EmbeddedPostgres } from "./embedded-postgres.ts";
import { forkPipeline } from "./forked-pipeline.ts";
import { formatLogLine } from "./format-log-line.ts";
import { formatWelcome } from "./format-welcome.ts";
import { createDatabase, runSchemaFile } from "./prepare-database.ts";
import type { Fault, ToChild } from "./protocol.ts";
import { type DevState, makeStateFolder, openStateFolder, readDevState, type StateFolder } from "./state-folder.ts";
import { type Pipeline, Supervisor, type SupervisorOptions } from "./supervisor.ts";
import { watchDefinitions } from "./watch-definitions.ts";

export interface DevRun {
  readonly folder: string;
  readonly workingFolder: string;
  /** As the command line, the environment and the config say at the start. */
  readonly options: CheckedOptions;
  readonly flagValues: Readonly<Record<string, FlagValue>>;
  readonly isEphemeral: boolean;
  readonly isJson: boolean;
  readonly childModule: URL;
  readonly print: (text: string) => void;
  readonly note: (text: string) => void;
  readonly stopping: AbortSignal;
}

/**
 * Runs until it is asked to stop. This process owns the lock, the database and the watch; a child of it runs the pipeline and the API.
 * They end in the other order: the pipeline journals its last batch before the database goes.
 */
export async function runDev(run: DevRun): Promise<void> {
  await withCleanUp(async (defer) => {
    const state = await openStateFolder(run.folder, run.isEphemeral);
    defer(() => state.discard());
    // Also where the data is elsewhere: `ancrage status` and the others look for dev.json in the folder.
    const lock = await lockDevFolder(await makeStateFolder(run.folder), run.isEphemeral);
    defer(() => lock.release());
    const kept = await readDevState(state.path);
    let database: DevDatabase | undefined;
    const spawn = (): Pipeline => spawnPipeline(run, () => composePrepare(run, kept, state, database));
    // The first child loads its modules while the database starts: that is half of the time to the first line.
    let first: Pipeline | undefined = spawn();
    defer(async () => void (await first?.stop()));
    database = await openDatabase(run, state, kept.databasePort, defer);
    if (await runSchemaFile(database.url, run.folder)) sayTo(run)("schema.sql was run: the database had no tables.");
    await superviseUntilStopped({
      ...run,
      lock,
      defer,
      database: database.url,
      spawn: () => {
        const next = first ?? spawn();
        first = undefined;
        return next;
      },
    });
  });
}

/** Notes of a run: where standard output is for a program, they go beside it. */
function sayTo(run: Pick<DevRun, "isJson" | "print" | "note">): (text: string) => void {
  return run.isJson ? run.note : run.print;
}

/** The pipeline's process journals what is in flight and ends the database itself, unless it hangs or was not told of it yet. */
const orphanedAfterS = 15;

interface DevDatabase {
  readonly url: string;
  /** The embedded server's process; undefined where the database was given. */
  readonly pid: number | undefined;
}

/** The given database as it is, else one of our own, named `app`. */
async function openDatabase(run: DevRun, state: StateFolder, preferredPort: number, defer: Defer): Promise<DevDatabase> {
  const { options, isEphemeral } = run;
  if (options.database !== undefined && !isEphemeral) return { url: options.database, pid: undefined };
  // It is to leave nothing behind: no migration, no slot, no table.
  const ignored = [
    ...(options.database === undefined ? [] : ["DATABASE_URL (or the database of the config)"]),
    ...(options.replicationUrl === undefined ? [] : ["ANCRAGE_REPLICATION_URL (or the replicationUrl of the config)"]),
  ];
  if (ignored.length > 0)
    sayTo(run)(
      `${ignored.join(" and ")} ${ignored.length === 1 ? "is" : "are"} ignored: ${isEphemeral ? "--ephemeral" : "dev"} takes a database of its own.`,
    );
  const postgres = new EmbeddedPostgres({
    directory: join(state.path, "postgres"),
    preferredPort,
    orphaned: { afterS: orphanedAfterS, remove: isEphemeral ? [state.path] : [] },
  });
  defer(() => postgres.stop());
  await postgres.start();
  await createDatabase(postgres.url(), "app");
  return { url: postgres.url("app"), pid: postgres.pid };
}

function spawnPipeline(run: DevRun, prepare: () => Extract<ToChild, { kind: "prepare" }>): Pipeline {
  const say = sayTo(run);
  return forkPipeline({
    module: run.childModule,
    prepare,
    onLine: (line) => {
      const shown = run.isJson ? line : formatLogLine(line);
      if (shown !== undefined) say(shown);
    },
  });
}

/** What `dev` brings itself goes with the flags, before the environment and the config. */
function composePrepare(
  run: DevRun,
  { token, secretKey }: DevState,
  state: StateFolder,
  database: DevDatabase | undefined,
): Extract<ToChild, { kind: "prepare" }> {
  return {
    kind: "prepare",
    folder: run.folder,
    flags: {
      ...run.flagValues,
      database: database?.url,
      // Another one is of the server that it is for, where a slot would be made and left.
      ...(database?.pid === undefined ? {} : { replicationUrl: database.url }),
    },
    made: { token, secretKey },
    orphaned: { databasePid: database?.pid, folder: run.isEphemeral ? state.path : undefined },
  };
}

interface Supervised extends DevRun {
  readonly lock: DevLock;
  readonly database: string;
  readonly spawn: () => Pipeline;
  readonly defer: Defer;
}

async function superviseUntilStopped(run: Supervised): Promise<void> {
  const { folder, defer } = run;
  const say = sayTo(run);
  const stopped = Promise.withResolvers<void>();
  let wasReady = false;

  const announce = async ({ url, token, events }: Parameters<SupervisorOptions["onReady"]>[0], isFirst: boolean): Promise<void> => {
    const address = { url, token, database: run.database };
    await run.lock.announce(address);
    if (!isFirst) return say(`Reloaded: ${events.join(", ") || "no events"}.`);
    run.print(
      run.isJson
        ? JSON.stringify({ ready: true, ...address })
        : formatWelcome({ ...address, folder, workingFolder: run.workingFolder, events }),
    );
  };
  const supervisor = new Supervisor({
    port: undefined,
    spawn: run.spawn,
    onReady: (ready) => {
      announce(ready, !wasReady).catch(stopped.reject);
      wasReady = true;
    },
    onFault: (fault, isServing) => {
      // A program that waits for the line of JSON would wait for ever; and no change of a file frees a port.
      if (!wasReady && (run.isJson || fault.code !== "ANCRAGE_DEFINITION_INVALID")) stopped.reject(asError(fault));
      else
        run.note(
          `${asError(fault).toString()}\n${isServing ? "The pipeline goes on as it was before." : "Nothing runs until this is mended; the files are watched."}`,
        );
    },
    onCrash: (how) => run.note(`The pipeline's process ended (${how}); it is started again.`),
  });
  defer(() => supervisor.stop());
  const watch = watchDefinitions({
    folder,
    onChange: (files) => {
      say(`${files.join(", ")} changed.`);
      supervisor.reload().catch(stopped.reject);
    },
  });
  defer(async () => watch.close());
  supervisor.reload().catch(stopped.reject);
  run.stopping.addEventListener("abort", () => stopped.resolve(), { once: true });
  if (run.stopping.aborted) stopped.resolve();
  await stopped.promise;
}

function asError(fault: Fault): AncrageError {
  const code = Object.hasOwn(errorCodes, fault.code) ? (fault.code as ErrorCode) : "ANCRAGE_COMMAND_FAILED";
  return new AncrageError(code, fault.message, fault.hint === undefined ? {} : { hint: fault.hint });
}

type Defer = (cleanUp: () => Promise<void>) => void;

/** Runs the clean-ups in reverse order, each whatever became of the others. */
async function withCleanUp(work: (defer: Defer) => Promise<void>): Promise<void> {
  const stack: (() => Promise<void>)[] = [];
  const faults: unknown[] = [];
  await work((cleanUp) => void stack.push(cleanUp)).catch((error: unknown) => faults.push(error));
  for (const cleanUp of stack.toReversed()) await cleanUp().catch((error: unknown) => faults.push(error));
  if (faults.length > 0) throw faults[0];
}
