import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AncrageError } from "../errors.ts";
import { replaceFile } from "./replace-file.ts";

/**
 * `.ancrage/dev.json`: says that a `dev` runs on a folder, and how to reach it. It is the lock of the folder and the address book of
 * `ancrage status`, `explain`, `sample` and `trigger`.
 */
export interface DevFile {
  readonly pid: number;
  /** When the process began, in the system's own count; undefined where the system does not tell. Numbers of processes come again. */
  readonly startTicks: string | undefined;
  /** Whether its database goes with it: such a `dev` does not keep others from the folder. */
  readonly isEphemeral: boolean;
  /** These are there once it serves. */
  readonly url?: string;
  readonly token?: string;
  readonly database?: string;
}

/** A `dev` that serves. */
export type RunningDev = DevFile & { readonly url: string; readonly token: string };

export interface DevLock {
  /** Says how to reach it, now that it serves. */
  announce(address: { readonly url: string; readonly token: string; readonly database: string }): Promise<void>;
  /** Removes the file, if it is still ours. */
  release(): Promise<void>;
}

/**
 * Takes a state folder (`.ancrage/`) for this process. What a process that is gone left behind is taken over.
 *
 * A `dev` with an ephemeral database needs no lock. It takes the file where nobody has it, so that the other commands find it.
 *
 * @throws AncrageError `ANCRAGE_COMMAND_FAILED` while another one runs
 */
export async function lockDevFolder(stateFolder: string, isEphemeral: boolean): Promise<DevLock> {
  const path = join(stateFolder, "dev.json");
  const mine: DevFile = { pid: process.pid, startTicks: await readStartTicks(process.pid), isEphemeral };
  const holder = await takeFile(path, mine);
  if (holder !== undefined && !isEphemeral) throw alreadyRunning(stateFolder, holder);
  const isMine = async (): Promise<boolean> => (await readDevFile(path))?.pid === process.pid;
  return {
    async announce(address) {
      if (await isMine()) await replaceFile(path, JSON.stringify({ ...mine, ...address }));
    },
    async release() {
      if (await isMine()) await rm(path, { force: true });
    },
  };
}

/** The nearest `.ancrage/dev.json`, from a folder upwards, of a process that lives and serves. */
export async function readNearestDev(from: string): Promise<RunningDev | undefined> {
  for (let folder = from; ; folder = dirname(folder)) {
    const file = await readDevFile(join(folder, ".ancrage", "dev.json"));
    if (file !== undefined && isServing(file) && (await isAlive(file))) return file;
    if (dirname(folder) === folder) return undefined;
  }
}

function isServing(file: DevFile): file is RunningDev {
  return file.url !== undefined && file.token !== undefined;
}

/** @returns who has the file, if somebody who lives does */
async function takeFile(path: string, mine: DevFile): Promise<DevFile | undefined> {
  for (;;) {
    if (await createFile(path, mine)) return undefined;
    const found = await readDevFile(path);
    if (found !== undefined && (await isAlive(found)) && found.pid !== process.pid) {
      // Its data goes with it, so the folder's own is free.
      if (!found.isEphemeral || mine.isEphemeral) return found;
      await replaceFile(path, JSON.stringify(mine));
      return undefined;
    }
    await removeStale(path);
  }
}

/** Two processes may find the same stale file: what one of them moves away may already be the other's new one, which goes back. */
async function removeStale(path: string): Promise<void> {
  const aside = `${path}.${randomBytes(4).toString("hex")}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (isCode(error, "ENOENT")) return;
    throw error;
  }
  const moved = await readDevFile(aside);
  if (moved !== undefined && moved.pid !== process.pid && (await isAlive(moved))) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
}

/** The token in it is for its owner only. */
const mode = 0o600;

/** A link and not `wx`: whoever finds the file must find all of it, or it would pass for a stale one. */
async function createFile(path: string, file: DevFile): Promise<boolean> {
  const beside = `${path}.${randomBytes(4).toString("hex")}`;
  await writeFile(beside, JSON.stringify(file), { mode });
  try {
    await link(beside, path);
    return true;
  } catch (error) {
    if (isCode(error, "EEXIST")) return false;
    throw error;
  } finally {
    await rm(beside, { force: true });
  }
}

async function readDevFile(path: string): Promise<DevFile | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as DevFile;
  } catch {
    // Not there, or cut short by a crash: nobody holds it.
    return undefined;
  }
}

async function isAlive(file: DevFile): Promise<boolean> {
  try {
    process.kill(file.pid, 0);
  } catch (error) {
    // EPERM: it lives and is another user's.
    if (!isCode(error, "EPERM")) return false;
  }
  return (await readStartTicks(file.pid)) === file.startTicks;
}

/** Field 22 of /proc/<pid>/stat (proc(5)). The second one, the name, may hold spaces: what counts begins after its last bracket. */
async function readStartTicks(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}

function alreadyRunning(stateFolder: string, holder: DevFile): AncrageError {
  const where = holder.url === undefined ? "is starting" : `serves ${holder.url}`;
  return new AncrageError(
    "ANCRAGE_COMMAND_FAILED",
    `an ancrage dev (process ${holder.pid}) already runs on ${dirname(stateFolder)} and ${where}.`,
    {
      hint: "Use that one, or stop it first, or start this one with --ephemeral: a database of its own that goes with it.",
    },
  );
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
