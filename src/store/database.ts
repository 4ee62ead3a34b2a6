import type { Socket } from "node:net";
import pg from "pg";
import { AncrageError } from "../errors.ts";

/**
 * Settings that decide how PostgreSQL writes values as text. Every session of ours, the replication session included, pins them:
 * the text of the log follows the *session's* DateStyle and zone, and two sessions that differ would give two bodies for one row.
 */
const pinnedSettings = {
  timezone: "UTC",
  datestyle: "ISO, MDY",
  intervalstyle: "postgres",
  extra_float_digits: "1",
  bytea_output: "hex",
  client_encoding: "UTF8",
  // Bytes and patterns are written as literals with backslashes.
  standard_conforming_strings: "on",
  // `money` is written by it.
  lc_monetary: "C",
  // All that we do was thought through for this one: a database whose default is stricter would fail what waits for a row's lock.
  default_transaction_isolation: "read committed",
};

const asStartupOptions = (settings: Readonly<Record<string, string>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${value.replaceAll(/([\\ ])/g, "\\$1")}`)
    .join(" ");

/** Whatever takes a statement: a pool, or a session of one's own. */
export type Queryable = Pick<pg.ClientBase, "query">;

export interface SessionOptions {
  readonly connectionString: string;
  /** Shown in `pg_stat_activity`; what it is for. */
  readonly applicationName: string;
  /** More settings for this session, beside the pinned ones. */
  readonly settings?: Readonly<Record<string, string>>;
  /** @default 10000 */
  readonly connectTimeoutMs?: number;
  /** A statement fails that has no answer by then: the network may have swallowed it, and TCP tells a quarter of an hour later. Default: none. */
  readonly answerWithinMs?: number | undefined;
}

export function sessionConfig(options: SessionOptions): pg.ClientConfig {
  const { connectionString, given } = takeOptions(options.connectionString);
  const ours = asStartupOptions({ ...pinnedSettings, ...options.settings });
  return {
    connectionString,
    application_name: options.applicationName,
    keepAlive: true,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 10_000,
    query_timeout: options.answerWithinMs,
    // Of two that say the same the last one counts.
    options: given === null ? ours : `${given} ${ours}`,
  };
}

/** `pg` would take the URL's `options` in place of ours (a `search_path`; Neon's `endpoint=…`). */
function takeOptions(connectionString: string): { readonly connectionString: string; readonly given: string | null } {
  if (!URL.canParse(connectionString)) return { connectionString, given: null };
  const url = new URL(connectionString);
  const given = url.searchParams.get("options");
  if (given === null) return { connectionString, given };
  url.searchParams.delete("options");
  return { connectionString: url.href, given };
}

/** More than the statement's own time. */
export const answerGraceMs = 5_000;

export interface PoolOptions extends SessionOptions {
  /** The most sessions at once. */
  readonly size: number;
  /** Takes the errors of idle sessions, which nobody else waits for. */
  readonly onIdleError: (error: Error) => void;
}

export function createPool(options: PoolOptions): pg.Pool {
  const pool = new pg.Pool({
    ...sessionConfig({ ...options, answerWithinMs: answerWithinMs(options) }),
    max: options.size,
    idleTimeoutMillis: 30_000,
  });
  pool.on("error", options.onIdleError);
  // A session that dies while somebody has it would otherwise end the process; whoever has it is told by the statement that fails.
  pool.on("connect", (client) => client.on("error", () => undefined));
  return pool;
}

/** A server ends a statement in its time, and says so. Where nothing is said some seconds later the session is lost. */
function answerWithinMs({ settings }: PoolOptions): number | undefined {
  const statementMs = Number(settings?.["statement_timeout"] ?? 0);
  return statementMs === 0 ? undefined : statementMs + answerGraceMs;
}

/**
 * @param ending breaks it off while it connects
 * @throws AncrageError `ANCRAGE_DATABASE_UNREACHABLE`
 */
export async function connectClient(options: SessionOptions, ending?: AbortSignal): Promise<pg.Client> {
  const client = new pg.Client(sessionConfig(options));
  const breakOff = (): void => destroyClient(client);
  ending?.addEventListener("abort", breakOff);
  try {
    await client.connect();
  } catch (cause) {
    throw unreachable(options.connectionString, cause);
  } finally {
    ending?.removeEventListener("abort", breakOff);
  }
  return client;
}

/**
 * Whether a session was lost, or a pool had none to give in time. `pg` says both by words alone, without a code; a version that words them
 * otherwise makes an answer 500 that should be 503.
 */
export const isLostSession = (error: Error): boolean =>
  /^(?:Connection terminated|timeout exceeded when trying to connect|timeout expired|Query read timeout)/.test(error.message);

/** Connects a client that somebody may end meanwhile: `connect` of `pg` would then never settle. */
export function connectOrEnd(client: pg.Client): Promise<void> {
  return new Promise((resolve, reject) => {
    client.once("end", () => reject(new Error("the session was ended while it connected")));
    client.connect().then(() => resolve(), reject);
  });
}

/**
 * Lets the server end what this session waits for once its process is gone: a statement that waits for a lock would keep its place, and
 * whoever comes after it waits behind it. Servers on Windows cannot, and say so.
 */
export async function endWithClient(db: Queryable): Promise<void> {
  await db.query("set client_connection_check_interval = '1s'").catch(() => undefined);
}

/** How long a server may take to say goodbye. */
const goodbyeMs = 1_000;

/** Ends a session, at most for a second: one behind a cut network would never answer. What it was asked before fails. */
export async function endClient(client: pg.Client): Promise<void> {
  const timer = setTimeout(() => destroyClient(client), goodbyeMs);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
}

/** Breaks a session off without a word. What it was asked fails at once. */
export function destroyClient(client: pg.ClientBase): void {
  socketOf(client)?.destroy();
}

/** Bytes that went either way so far: where they stand still, nothing happens. */
export function bytesMoved(client: pg.Client): number {
  const socket = socketOf(client);
  return socket === undefined ? 0 : socket.bytesRead + socket.bytesWritten - socket.writableLength;
}

/** Asks something of a session; where no answer comes in time, the session is broken off. */
export async function askWithin<Result>(client: pg.Client, ms: number, ask: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const timer = setTimeout(() => destroyClient(client), ms);
  try {
    return await ask(client);
  } finally {
    clearTimeout(timer);
  }
}

/** `pg` has it, its types do not. */
function socketOf(client: pg.ClientBase): Socket | undefined {
  return (client as unknown as { readonly connection?: { readonly stream?: Socket } }).connection?.stream;
}

function unreachable(connectionString: string, cause: unknown): AncrageError {
  return new AncrageError(
    "ANCRAGE_DATABASE_UNREACHABLE",
    `could not connect to ${redactPassword(connectionString)}: ${cause instanceof Error ? cause.message : String(cause)}`,
    { hint: "Check that PostgreSQL runs there and that DATABASE_URL names the right host, port, database, user and password.", cause },
  );
}

export function redactPassword(connectionString: string): string {
  try {
    const url = new URL(connectionString);
    if (url.password !== "") url.password = "…";
    for (const name of ["password", "sslpassword"]) if (url.searchParams.has(name)) url.searchParams.set(name, "…");
    return decodeURI(url.href);
  } catch {
    return "the given database";
  }
}

/** Runs `work` between `begin` and `commit`; rolls back and rethrows what it throws. */
export async function inTransaction<Result>(client: pg.ClientBase, work: () => Promise<Result>): Promise<Result> {
  await client.query("begin");
  try {
    const result = await work();
    await client.query("commit");
    return result;
  } catch (error) {
    // The connection may be gone: its own error must not hide the first one.
    await client.query("rollback").catch(() => undefined);
    throw error;
  }
}

/** Runs `work` in a transaction on a session of the pool. */
export async function inPoolTransaction<Result>(pool: pg.Pool, work: (client: pg.ClientBase) => Promise<Result>): Promise<Result> {
  const client = await pool.connect();
  try {
    const result = await inTransaction(client, () => work(client));
    client.release();
    return result;
  } catch (error) {
    // Its transaction may still be open on the server: never hand this session to somebody else.
    client.release(true);
    throw error;
  }
}
