import { spawn } from "node:child_process";
import { Socket } from "node:net";
import { platform } from "node:os";

export interface OrphanWatchOptions {
  /** The cluster's. */
  readonly directory: string;
  /** How long whoever else may end it in order has for that. */
  readonly afterS: number;
  /** What goes with it. */
  readonly remove: readonly string[];
}

export interface OrphanWatch {
  /** There is a server now. */
  tell(pid: number): void;
  /** It is ended in order: nobody is needed any more. */
  release(): void;
}

/**
 * Ends a server whose process of ours is gone without having stopped it: killed, its terminal closed, its test run cut off. Nothing in
 * that process could do it, so a shell outside waits for the end of the pipe between them, which the kernel closes in every case.
 *
 * Windows has no such shell; there it is the next start that ends what was left.
 */
export function watchOrphan({ directory, afterS, remove }: OrphanWatchOptions): OrphanWatch {
  if (platform() === "win32") return { tell: () => undefined, release: () => undefined };
  const shell = spawn("sh", ["-c", script, "sh", String(afterS), directory, ...remove], {
    stdio: ["pipe", "ignore", "ignore"],
    // Out of the terminal's group: what ends this process must not end that one too.
    detached: true,
    cwd: "/",
  });
  // Without it all goes on as it did.
  shell.on("error", () => undefined);
  shell.stdin.on("error", () => undefined);
  shell.unref();
  if (shell.stdin instanceof Socket) shell.stdin.unref();
  return {
    tell: (pid) => void shell.stdin.write(`${pid}\n`),
    release: () => void shell.kill("SIGKILL"),
  };
}

/** Only the server that it was told of: another one may serve the folder by then. */
const script = `
pid=
while read -r line; do pid=$line; done
sleep "$1"
directory=$2
shift 2
if [ -n "$pid" ] && [ "$(head -n 1 "$directory/postmaster.pid" 2>/dev/null)" = "$pid" ]; then
  kill -INT "$pid"
  turns=0
  while kill -0 "$pid" 2>/dev/null && [ "$turns" -lt 10 ]; do sleep 1; turns=$((turns + 1)); done
fi
rm -rf "$@"
`;
