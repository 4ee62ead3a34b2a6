import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));

/** The command line in a process of its own. */
export interface AncrageProcess {
  /** Lines of standard output so far, and of standard error. */
  readonly out: readonly string[];
  readonly err: readonly string[];
  /** Resolves with the first line of either that matches, also one that was there before; fails when the process ends first. */
  line(pattern: RegExp): Promise<string>;
  send(signal: NodeJS.Signals): void;
  /** To it and all that it has started, as a terminal does; for one with a group of its own. */
  sendToGroup(signal: NodeJS.Signals): void;
  /** Sends a signal; resolves with the exit code once all is over. */
  end(signal: NodeJS.Signals): Promise<number | null>;
  readonly ended: Promise<number | null>;
}

/** Nothing of the surrounding environment that says which database or server is meant reaches it, only what is given. */
export function startAncrage(
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  {
    workingFolder = process.cwd(),
    descriptors,
    hasOwnGroup = false,
  }: { readonly workingFolder?: string; readonly descriptors?: number; readonly hasOwnGroup?: boolean } = {},
): AncrageProcess {
  const cleared = { DATABASE_URL: "", PORT: "", ANCRAGE_TOKEN: "", ANCRAGE_SECRET_KEY: "", ANCRAGE_URL: "" };
  const command = [process.execPath, main, ...words];
  // The hard limit too: Node raises its own to that.
  const [program = "", ...given] =
    descriptors === undefined ? command : ["sh", "-c", `ulimit -n ${descriptors} && exec "$@"`, "sh", ...command];
  const child = spawn(program, given, {
    env: { ...process.env, ...cleared, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    cwd: workingFolder,
    detached: hasOwnGroup,
  });
  const out: string[] = [];
  const err: string[] = [];
  const waiting = new Set<() => void>();
  for (const [stream, lines] of [
    [child.stdout, out],
    [child.stderr, err],
  ] as const) {
    createInterface({ input: stream }).on("line", (text) => {
      lines.push(text);
      for (const look of waiting) look();
    });
  }
  const ended = once(child, "close").then(([code]) => code as number | null);
  return {
    out,
    err,
    ended,
    line: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = [...out, ...err].find((text) => pattern.test(text));
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
        void ended.then((code) =>
          reject(new Error(`ended with ${String(code)} without ${String(pattern)}:\n${[...out, ...err].join("\n")}`)),
        );
      }),
    send: (signal) => void child.kill(signal),
    sendToGroup: (signal) => void process.kill(-(child.pid ?? 0), signal),
    async end(signal) {
      child.kill(signal);
      return ended;
    },
  };
}
