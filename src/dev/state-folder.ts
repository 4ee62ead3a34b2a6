import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./embedded-postgres.ts";
import { replaceFile } from "./replace-file.ts";

/** Where `dev` keeps what outlives it: `.ancrage/` in the folder, or a temporary one that goes with it. */
export interface StateFolder {
  readonly path: string;
  /** Removes it if it was temporary. */
  discard(): Promise<void>;
}

export async function openStateFolder(folder: string, isEphemeral: boolean): Promise<StateFolder> {
  if (!isEphemeral) {
    const path = await makeStateFolder(folder);
    return { path, discard: async () => undefined };
  }
  const path = await mkdtemp(join(tmpdir(), "ancrage-dev-"));
  // As root the database runs as another user, who must get through to its own folder in here.
  await chmod(path, 0o711);
  return { path, discard: () => rm(path, { recursive: true, force: true }) };
}

/** Makes `.ancrage/` in a folder, unseen by git: it holds secrets and a database. */
export async function makeStateFolder(folder: string): Promise<string> {
  const path = join(folder, ".ancrage");
  await mkdir(path, { recursive: true });
  await writeFile(join(path, ".gitignore"), "*\n");
  return path;
}

/** What `dev` makes for itself, once for a state folder. */
export interface DevState {
  readonly token: string;
  readonly secretKey: string;
  /** So that the psql of this morning still works. */
  readonly databasePort: number;
}

/** What a state folder keeps, made on the first call. Subscriptions of yesterday are sealed with this key. */
export async function readDevState(stateFolder: string): Promise<DevState> {
  const path = join(stateFolder, "state.json");
  const kept = await readFile(path, "utf8").then(parseState, (error: NodeJS.ErrnoException) => {
    // One that is there and cannot be read is not replaced: what is sealed with its key would be lost.
    if (error.code !== "ENOENT") throw error;
    return undefined;
  });
  if (kept !== undefined) return kept;
  const made: DevState = {
    token: `anc_${randomBytes(32).toString("base64url")}`,
    secretKey: randomBytes(32).toString("base64"),
    databasePort: await freePort(),
  };
  await replaceFile(path, JSON.stringify(made));
  return made;
}

/** @returns undefined for one that was cut short: there is nothing left to be kept */
function parseState(text: string): DevState | undefined {
  try {
    return JSON.parse(text) as DevState;
  } catch {
    return undefined;
  }
}
