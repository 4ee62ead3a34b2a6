import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** `ancrage dev` as another program starts it. */
export interface AncrageProcess {
  readonly url: string;
  readonly token: string;
  readonly database: string;
  /** Ends it in order: what is in flight is finished. Resolves with its exit code. */
  stop(): Promise<number | null>;
  /** Resolves when it ends, whoever ended it. */
  readonly ended: Promise<number | null>;
}

const main = fileURLToPath(new URL("../../../src/cli/main.ts", import.meta.url));

/** Runs `ancrage dev <folder> --ephemeral --port 0 --json` until its line of JSON says that it is ready. */
export async function startAncrage(folder: string): Promise<AncrageProcess> {
  const words = ["-C", "ancrage-source", main, "dev", folder, "--ephemeral", "--port", "0", "--json", "--log-level", "warn"];
  // In a group of its own: Ctrl-C would otherwise reach it as well, and a second signal ends it at once.
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"], detached: true, env: ownEnvironment() });
  const endWithUs = (): void => void child.kill("SIGTERM");
  process.once("exit", endWithUs);
  const errors: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    errors.push(line);
    if (errors.length > 20) errors.shift();
  });
  const ended = once(child, "close").then(([code]) => {
    process.off("exit", endWithUs);
    return code as number | null;
  });
  const ready = await Promise.race([firstLine(child), ended]);
  if (typeof ready !== "string") {
    throw new Error(`ancrage dev ended with ${String(ready)} before it was ready:\n${errors.join("\n")}`);
  }
  const address = JSON.parse(ready) as Pick<AncrageProcess, "url" | "token" | "database">;
  return {
    ...address,
    ended,
    stop() {
      child.kill("SIGTERM");
      return ended;
    },
  };
}

/** Nothing of the caller's: a DATABASE_URL that is set for another program must not get the demo's rows. */
function ownEnvironment(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env).filter(([name]) => !/^(DATABASE_URL|PORT|PG.*|ANCRAGE_.*)$/.test(name));
  return Object.fromEntries(entries);
}

function firstLine(child: ChildProcess): Promise<string> {
  const { stdout } = child;
  if (stdout === null) throw new Error("ancrage dev was started without a standard output");
  return new Promise((resolve) => createInterface({ input: stdout }).once("line", resolve));
}
