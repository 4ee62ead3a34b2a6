import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { AncrageOptions } from "../../src/options.ts";
import type { Asked, Told } from "./model-child.ts";
import type { ModelLog } from "./model-log.ts";

/** The process under test, one after another; the next one is loaded while one runs, so that a start costs little. */
export interface ModelProcess {
  /** All that any of them has ever said. */
  readonly said: () => string;
  start(): Promise<void>;
  /** Ends it in order. */
  end(): Promise<void>;
  kill(): Promise<void>;
  /** Calls the API of the process that runs; undefined where it is killed before it answers. */
  call(method: string, path: string, body?: unknown): Promise<{ readonly status: number; readonly body: any } | undefined>; // oxlint-disable-line typescript/no-explicit-any
  /** Ends what is not over, as retention does with a day; resolves too where the process is killed before. */
  expire(): Promise<void>;
  close(): Promise<void>;
}

const mostStarts = 5;

interface Child {
  readonly process: ChildProcess;
  readonly told: (kind: "ready" | "started") => Promise<void>;
  readonly exited: Promise<number | null>;
}

export function createModelProcess(options: AncrageOptions, log: ModelLog): ModelProcess {
  let said = "";
  let calls = 0;
  let expired: (() => void) | undefined;
  const answers = new Map<number, (answer: (Told & { readonly kind: "answer" }) | undefined) => void>();

  const spawn = (): Child => {
    const child = fork(fileURLToPath(new URL("model-child.ts", import.meta.url)), {
      // Many of them are started: what one has compiled, the next ones need not.
      env: { ...process.env, MODEL_OPTIONS: JSON.stringify(options), MODEL_LOG: log.path, NODE_COMPILE_CACHE: `${log.path}.compiled` },
      execArgv: ["-C", "ancrage-source"],
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    const hear = (chunk: Buffer): void => void (said += chunk.toString());
    child.stdout?.on("data", hear);
    child.stderr?.on("data", hear);
    const heard = new Set<string>();
    const waiting = new Map<string, () => void>();
    child.on("message", (told: Told) => {
      if (told.kind === "answer") {
        answers.get(told.number)?.(told);
        return;
      }
      if (told.kind === "expired") {
        expired?.();
        return;
      }
      heard.add(told.kind);
      waiting.get(told.kind)?.();
    });
    const exited = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
    return {
      process: child,
      exited,
      told: (kind) =>
        new Promise((resolve, reject) => {
          if (heard.has(kind)) return resolve();
          waiting.set(kind, resolve);
          void exited.then((code) =>
            reject(new Error(`the process ended with ${String(code)} before it was ${kind}:\n${said.slice(-4_000)}`)),
          );
        }),
    };
  };

  let next: Child | undefined = spawn();
  let running: Child | undefined;
  const ask = (asked: Asked): void => void running?.process.send(asked, () => undefined);
  const gone = (): void => {
    running = undefined;
    expired?.();
    for (const answer of answers.values()) answer(undefined);
    answers.clear();
  };
  return {
    said: () => said,
    async start() {
      for (let attempt = 1; ; attempt++) {
        running = next ?? spawn();
        next = undefined;
        await running.told("ready");
        next = spawn();
        ask({ kind: "start" });
        const started = await running.told("started").then(
          () => undefined,
          (error: unknown) => error,
        );
        if (started === undefined) return;
        // What watches over a process starts it again: a machine that is very busy answers a first connection late.
        if (running?.process.exitCode !== 1 || attempt === mostStarts) throw started;
        log.append({ e: "killed" });
      }
    },
    async end() {
      if (running === undefined) return;
      ask({ kind: "stop" });
      const code = await running.exited;
      if (code !== 0) throw new Error(`the process ended with ${String(code)}:\n${said.slice(-4_000)}`);
      gone();
      log.append({ e: "ended" });
    },
    async kill() {
      if (running === undefined) return;
      running.process.kill("SIGKILL");
      await running.exited;
      log.append({ e: "killed" });
      gone();
    },
    async call(method, path, body) {
      const number = ++calls;
      const answer = await new Promise<(Told & { readonly kind: "answer" }) | undefined>((resolve) => {
        answers.set(number, resolve);
        ask({ kind: "call", number, method, path, body });
      });
      answers.delete(number);
      return answer === undefined ? undefined : { status: answer.status, body: answer.text === "" ? undefined : JSON.parse(answer.text) };
    },
    async expire() {
      const over = new Promise<void>((resolve) => (expired = resolve));
      ask({ kind: "expire" });
      await over;
    },
    async close() {
      const left = [next, running].filter((one) => one !== undefined);
      for (const one of left) one.process.kill("SIGKILL");
      await Promise.all(left.map((one) => one.exited));
    },
  };
}
