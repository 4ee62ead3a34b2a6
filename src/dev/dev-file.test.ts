import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockDevFolder, readNearestDev } from "./dev-file.ts";

let folder: string;
let state: string;
beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "ancrage-test-")));
  state = join(folder, ".ancrage");
  await mkdir(state);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const address = { url: "http://127.0.0.1:8787", token: "anc_token", database: "postgres://localhost/app" };

test("a dev that serves is found from its folder and from below it, and no longer once it ended", async () => {
  const below = join(folder, "events", "deal");
  await mkdir(below, { recursive: true });
  const lock = await lockDevFolder(state, false);
  expect(await readNearestDev(below)).toBeUndefined();
  await lock.announce(address);
  expect(await readNearestDev(below)).toMatchObject({ ...address, pid: process.pid });
  await lock.release();
  expect(await readNearestDev(below)).toBeUndefined();
  expect(await readdir(state)).toEqual([]);
});

test("the token in the file is for its owner only", async () => {
  const lock = await lockDevFolder(state, false);
  await lock.announce(address);
  expect((await stat(join(state, "dev.json"))).mode & 0o777).toBe(0o600);
});

/** A lock that another process holds, which lives until the test ends it. */
async function heldByAnother(fields: object = {}): Promise<{ readonly pid: number; end(): Promise<void> }> {
  const other = spawn(process.execPath, ["-e", "process.stdin.resume()"], { stdio: ["pipe", "ignore", "ignore"] });
  const words = await readFile(`/proc/${other.pid}/stat`, "utf8");
  const startTicks = words.slice(words.lastIndexOf(")") + 2).split(" ")[19];
  const file = { pid: other.pid, startTicks, isEphemeral: false, ...address, ...fields };
  await writeFile(join(state, "dev.json"), JSON.stringify(file));
  return {
    pid: other.pid ?? 0,
    async end() {
      const ended = once(other, "exit");
      other.kill("SIGKILL");
      await ended;
    },
  };
}

test("a second dev is refused with the process and the address of the first", async () => {
  const other = await heldByAnother();
  await expect(lockDevFolder(state, false)).rejects.toMatchObject({
    code: "ANCRAGE_COMMAND_FAILED",
    message: `an ancrage dev (process ${other.pid}) already runs on ${folder} and serves http://127.0.0.1:8787.`,
    hint: expect.stringContaining("--ephemeral"),
  });
  await other.end();
});

test("what a killed dev left behind is taken over", async () => {
  const other = await heldByAnother();
  await other.end();
  const lock = await lockDevFolder(state, false);
  await lock.announce(address);
  expect(await readNearestDev(folder)).toMatchObject({ pid: process.pid });
});

test("a number of a process that went to another program since holds nothing", async () => {
  const other = await heldByAnother({ startTicks: "1" });
  expect(await readNearestDev(folder)).toBeUndefined();
  await lockDevFolder(state, false);
  await other.end();
});

test("a file that a crash cut short holds nothing", async () => {
  await writeFile(join(state, "dev.json"), '{"pid":');
  await lockDevFolder(state, false);
  expect(JSON.parse(await readFile(join(state, "dev.json"), "utf8"))).toMatchObject({ pid: process.pid });
});

test("an ephemeral dev runs beside any other, and does not touch its file", async () => {
  const other = await heldByAnother();
  const lock = await lockDevFolder(state, true);
  await lock.announce({ ...address, url: "http://127.0.0.1:1" });
  await lock.release();
  expect(await readNearestDev(folder)).toMatchObject({ pid: other.pid, url: address.url });
  await other.end();
});

test("an ephemeral dev keeps nobody from the folder", async () => {
  const other = await heldByAnother({ isEphemeral: true });
  await lockDevFolder(state, false);
  expect(JSON.parse(await readFile(join(state, "dev.json"), "utf8"))).toMatchObject({ pid: process.pid, isEphemeral: false });
  await other.end();
});
