import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type ForkOptions, forkPipeline } from "./forked-pipeline.ts";
import type { Pipeline } from "./supervisor.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const made = { token: "t", secretKey: "k" };

/** A real child process whose program is given. */
async function fork(program: string, options: Partial<ForkOptions> = {}): Promise<Pipeline> {
  const path = join(folder, "child.mjs");
  await writeFile(path, program);
  return forkPipeline({
    module: pathToFileURL(path),
    prepare: () => ({
      kind: "prepare",
      folder: "hooks",
      flags: { port: "0" },
      made,
      orphaned: { databasePid: undefined, folder: undefined },
    }),
    onLine: () => undefined,
    ...options,
  });
}

test("messages go there and back, lines of both streams are heard, and it ends when asked", async () => {
  const lines: string[] = [];
  const pipeline = await fork(
    `process.on("message", (message) => {
       if (message.kind === "prepare") { console.log("log " + message.folder); console.error("err"); process.send({ kind: "prepared", events: ["A"], graceS: 1 }); }
       if (message.kind === "serve") process.send({ kind: "ready", url: "http://127.0.0.1:" + message.port, port: message.port, token: "t" });
       if (message.kind === "stop") process.send({ kind: "stopped", received: { demo: [] } }, () => process.exit(0));
     });`,
    { onLine: (line) => lines.push(line) },
  );
  expect(await pipeline.prepare()).toEqual({ kind: "prepared", events: ["A"], graceS: 1 });
  expect(await pipeline.serve({ port: 4000, received: {} })).toEqual({
    kind: "ready",
    url: "http://127.0.0.1:4000",
    port: 4000,
    token: "t",
  });
  expect(await pipeline.stop()).toEqual({ demo: [] });
  expect(await pipeline.ended).toBe("exit code 0");
  await expect.poll(() => lines.toSorted()).toEqual(["err", "log hooks"]);
});

test("one that crashes on its way answers with a fault, and can be stopped then", async () => {
  const pipeline = await fork(`process.on("message", () => { process.exit(7); });`);
  expect(await pipeline.prepare()).toMatchObject({ kind: "fault", message: expect.stringContaining("exit code 7") });
  expect(await pipeline.serve({ port: 1, received: {} })).toMatchObject({ kind: "fault" });
  expect(await pipeline.stop()).toEqual({});
});

test("one that is abandoned while it prepares is gone at once, though it hears nothing", async () => {
  const pipeline = await fork(`process.on("message", () => { for (;;); });`);
  const preparing = pipeline.prepare();
  pipeline.abandon();
  expect(await preparing).toMatchObject({ kind: "fault" });
  expect(await pipeline.stop()).toEqual({});
});

test("one that hears nothing is killed", async () => {
  const pipeline = await fork(`process.on("message", () => { for (;;); });`, { graceMs: 50 });
  const preparing = pipeline.prepare();
  expect(await pipeline.stop()).toEqual({});
  expect(await pipeline.ended).toBe("signal SIGKILL");
  expect(await preparing).toMatchObject({ kind: "fault", message: expect.stringContaining("SIGKILL") });
});

test("one that says that it ends has the time that it asked for, and one that says nothing has not", async () => {
  const answers = (stopping: string): string =>
    `process.on("message", ({ kind }) => {
       if (kind === "prepare") process.send({ kind: "prepared", events: [], graceS: 60 });
       else { ${stopping} }
     });`;
  const slow = await fork(
    answers(`process.send({ kind: "stopping" });
      setTimeout(() => process.send({ kind: "stopped", received: { demo: [] } }, () => process.exit(0)), 1_200);`),
    { graceMs: 1_000 },
  );
  expect(await slow.prepare()).toMatchObject({ kind: "prepared" });
  expect(await slow.stop()).toEqual({ demo: [] });
  const deaf = await fork(answers("for (;;);"), { graceMs: 100 });
  expect(await deaf.prepare()).toMatchObject({ kind: "prepared" });
  expect(await deaf.stop()).toEqual({});
  expect(await deaf.ended).toBe("signal SIGKILL");
});

test("a module that does not exist is a fault", async () => {
  const pipeline = await fork("", { module: pathToFileURL(join(folder, "nothing.mjs")) });
  expect(await pipeline.prepare()).toMatchObject({ kind: "fault", message: expect.stringContaining("exit code 1") });
});
