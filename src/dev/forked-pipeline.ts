import { type ChildProcess, fork } from "node:child_process";
import { createInterface } from "node:readline";
import type { Fault, FromChild, ToChild } from "./protocol.ts";
import type { Pipeline } from "./supervisor.ts";

/** How long a child may be deaf to what it is asked. */
const mostDeafMs = 5_000;
/** What ending takes beside what is in flight. */
const moreMs = 5_000;

export interface ForkOptions {
  /** The child's module. */
  readonly module: URL;
  /** What it is to prepare, asked for when it is to. */
  readonly prepare: () => Extract<ToChild, { kind: "prepare" }>;
  /** Each line that the child prints, on whichever stream: its log, and what event files say. */
  readonly onLine: (line: string) => void;
  readonly env?: NodeJS.ProcessEnv;
  /**
   * How long a child may take to say that it ends, @default 5000: one that loops for ever hears nothing, and is killed. One that has said
   * so has the time that it asked for. What was in flight in one that is killed is sent again, with the same ids; what its receiver got
   * is gone.
   */
  readonly graceMs?: number;
}

/** A pipeline in a process of its own. It is forked at once, so that it loads its modules while the database starts. */
export function forkPipeline(options: ForkOptions): Pipeline {
  const child = fork(options.module, {
    stdio: ["ignore", "pipe", "pipe", "ipc"],
    ...(options.env === undefined ? {} : { env: options.env }),
  });
  for (const stream of [child.stdout, child.stderr]) {
    if (stream !== null) createInterface({ input: stream, crlfDelay: Infinity }).on("line", options.onLine);
  }
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${String(code)}` : `signal ${signal}`));
  });

  /** From when it has said that it ends. */
  let graceMs = moreMs;

  /** Sends, and waits for an answer of one of these kinds; the end of the process is an answer too. */
  async function ask<Kind extends FromChild["kind"]>(
    message: ToChild,
    ...kinds: readonly Kind[]
  ): Promise<Extract<FromChild, { kind: Kind }> | { kind: "ended"; how: string }> {
    let stopListening = (): void => undefined;
    const answered = new Promise<Extract<FromChild, { kind: Kind }>>((resolve) => {
      const onMessage = (answer: FromChild): void => {
        if (kinds.some((kind) => kind === answer.kind)) resolve(answer as Extract<FromChild, { kind: Kind }>);
      };
      child.on("message", onMessage);
      stopListening = () => child.off("message", onMessage);
    });
    const isSent = send(child, message);
    try {
      // A child that is gone answers nothing, but what it said before it went still counts.
      return await Promise.race([
        answered,
        (isSent ? ended : Promise.resolve("it was gone")).then((how) => ({ kind: "ended" as const, how })),
      ]);
    } finally {
      stopListening();
    }
  }

  return {
    ended,
    async prepare() {
      const answer = await ask(options.prepare(), "prepared", "fault");
      if (answer.kind === "prepared") graceMs = answer.graceS * 1000 + moreMs;
      return answer.kind === "ended" ? crashed(answer.how) : answer;
    },
    async serve(handover) {
      const answer = await ask({ kind: "serve", ...handover }, "ready", "fault");
      return answer.kind === "ended" ? crashed(answer.how) : answer;
    },
    async stop() {
      const kill = (): void => void child.kill("SIGKILL");
      let killing = setTimeout(kill, options.graceMs ?? mostDeafMs);
      child.on("message", ({ kind }: FromChild) => {
        if (kind !== "stopping") return;
        clearTimeout(killing);
        killing = setTimeout(kill, graceMs);
      });
      const answer = await ask({ kind: "stop" }, "stopped");
      await ended;
      clearTimeout(killing);
      return answer.kind === "stopped" ? answer.received : {};
    },
    abandon: () => void child.kill("SIGKILL"),
  };
}

function send(child: ChildProcess, message: ToChild): boolean {
  if (!child.connected) return false;
  // The channel may close under the message: `ended` tells.
  child.send(message, () => undefined);
  return true;
}

function crashed(how: string): Fault {
  return { kind: "fault", code: "ANCRAGE_COMMAND_FAILED", message: `the pipeline's process ended before it was ready (${how}).` };
}
