#!/usr/bin/env node
import { Console } from "node:console";
import { formatError } from "./command.ts";
import { lastWords } from "./last-words.ts";
import { runProgram } from "./program.ts";

const stopping = new AbortController();
/** Somebody looks at `stopping`. Written by `heedStopping`. */
let isHeeded = false;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // Whoever asks a second time does not want to wait for what is in flight.
    if (stopping.signal.aborted || !isHeeded) process.exit(signal === "SIGINT" ? 130 : 143);
    stopping.abort();
  });
}

// A promise that nobody waits for comes here as well.
process.on("uncaughtException", (error) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n${formatError(lastWords(error))}\n`, () =>
    process.exit(1),
  );
});

// `ancrage … | head` closes the pipe when it has seen enough: that is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

// What definitions say is no answer of ours: a program reads that from standard output.
globalThis.console = new Console(process.stderr, process.stderr);

process.exitCode = await runProgram(process.argv.slice(2), {
  env: process.env,
  workingFolder: process.cwd(),
  print: (text) => void process.stdout.write(`${text}\n`),
  note: (text) => void process.stderr.write(`${text}\n`),
  // One line that is written over; a log would keep each of them.
  ...(process.stderr.isTTY ? { progress: (text: string) => void process.stderr.write(`\r\u001B[K${text}`) } : {}),
  heedStopping: () => {
    isHeeded = true;
    return stopping.signal;
  },
});
// Sessions behind a cut network would keep the process for as long as the kernel believes in them.
setTimeout(() => process.exit(), 2_000).unref();
