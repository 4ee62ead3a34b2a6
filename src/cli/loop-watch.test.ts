import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, test } from "vitest";

const child = fileURLToPath(new URL("../../test/loop-watch-child.ts", import.meta.url));

test("code that holds the event loop is named by its file and line while it does, and nothing is said of a loop that turns", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ancrage-loop-"));
  await mkdir(join(folder, "events"));
  const file = join(folder, "events", "Slow.ts");
  await writeFile(
    file,
    "export function hold(ms: number): void {\n  const untilMs = Date.now() + ms;\n  while (Date.now() < untilMs);\n}\n",
  );
  const running = spawn(process.execPath, [child, pathToFileURL(file).href], { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  running.stderr.on("data", (chunk: Buffer) => (log += chunk.toString()));
  expect(await once(running, "close")).toEqual([0, null]);
  await rm(folder, { recursive: true });
  const lines = log
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as object);
  expect(lines).toMatchObject([
    { level: "error", at: expect.stringContaining(`${file}:3:`), msg: expect.stringContaining("held the event loop") },
    { level: "warn", msg: "the event loop turns again" },
  ]);
});
