import type pg from "pg";
import { sqlStateOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import { askWithin, bytesMoved, connectClient, destroyClient, endClient } from "../store/database.ts";
import { endHolders, readActivity, tryLock } from "../store/leaders.ts";
import { readEpoch } from "../store/batches.ts";
import type { Lease } from "./lease.ts";
import { superseded } from "./refusal.ts";

export interface JournalSessionOptions {
  readonly connectionString: string;
  readonly sourceId: string;
  /** Which lock it holds, and by what name it is known to the server. */
  readonly lock: string;
  readonly applicationName: string;
  readonly lease: Lease;
  readonly leaseMs: number;
  /** Throws where the database lacks what this process has committed. */
  readonly assertWhole: (client: pg.Client) => Promise<void>;
  readonly log: Logger;
}

/** A host that is gone is found out after 5 + 3 × 2 s, also where this role may not end its sessions. Over a local socket it counts for nothing. */
const keepaliveSettings = {
  tcp_keepalives_idle: "5",
  tcp_keepalives_interval: "2",
  tcp_keepalives_count: "3",
  tcp_user_timeout: "11000",
};

/**
 * A session that the journal is written on. It holds a lock of its own, which only one that leads asks for: once it is ours, nothing that a
 * former leader had sent can land any more.
 */
export class JournalSession {
  readonly #options: JournalSessionOptions;
  #client: pg.Client | undefined;
  #isStopped = false;

  constructor(options: JournalSessionOptions) {
    this.#options = options;
  }

  /** The one that is open now. */
  get client(): pg.Client | undefined {
    return this.#client;
  }

  /** Opens it where there is none, with its lock. Throws while a former session still holds that. */
  async open(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    const client = await this.#connect();
    try {
      await askWithin(client, this.#options.leaseMs, async () => {
        await this.#lock(client);
        await this.#options.assertWhole(client);
        if (this.#isStopped) throw new Error("stopped while it was opened");
      });
    } catch (error) {
      await endClient(client);
      throw error;
    }
    this.#client = client;
    return client;
  }

  /**
   * Does something on the session, and breaks the session off where the network has swallowed what it said or was told.
   *
   * A statement may take its time. What tells a lost one is the server, asked on the lease's session: it waits for us, or knows of no such
   * session, while we wait for it. A server that does not answer there either is given up as well: what was sent is asked for later.
   */
  async watched<Result>(client: pg.Client, work: () => Promise<Result>): Promise<Result> {
    const { leaseMs, log } = this.#options;
    let movedBefore = bytesMoved(client);
    let isSuspect = false;
    const look = async (): Promise<void> => {
      const moved = bytesMoved(client);
      const isStill = moved === movedBefore;
      movedBefore = moved;
      const isWrong = isStill && (await this.#isLost(client));
      if (isWrong && isSuspect) {
        log.warn("the journal's session does not answer; it is broken off, and the batch asked for on another one");
        destroyClient(client);
      }
      isSuspect = isWrong;
    };
    const timer = setInterval(() => void look(), leaseMs / 2);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }

  /** Ends it; the next `open` makes another one. */
  async drop(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client !== undefined) await endClient(client);
  }

  /** Ends it for good. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.drop();
  }

  async #isLost(client: pg.Client): Promise<boolean> {
    const { lease, leaseMs } = this.#options;
    if (lease.silentMs > 2 * leaseMs) return true;
    try {
      return (await lease.ask((asked) => readActivity(asked, pidOf(client)))) !== "working";
    } catch {
      // The lease's own trouble, which its silence tells before long.
      return false;
    }
  }

  async #lock(client: pg.Client): Promise<void> {
    const { lock, log } = this.#options;
    await this.#assertLeads(client);
    if (await tryLock(client, lock)) return this.#assertLeads(client);
    try {
      const ended = await endHolders(client, lock);
      if (ended > 0) log.warn({ ended }, "ended the session of a process that led before and still held the journal");
    } catch (error) {
      if (sqlStateOf(error) !== "42501") throw error;
      throw new Error(
        "the session of a process that led before still holds the journal, and this role may not end it; the server does once it finds that host gone",
        { cause: error },
      );
    }
    if (!(await tryLock(client, lock))) throw new Error("the journal's lock is still held by the session of before");
    await this.#assertLeads(client);
  }

  /** Once with the lock: whoever raises the epoch after this must end this session before it can write. */
  async #assertLeads(client: pg.Client): Promise<void> {
    const { sourceId, lease } = this.#options;
    if ((await readEpoch(client, sourceId)) !== lease.epoch) throw superseded();
  }

  async #connect(): Promise<pg.Client> {
    const client = await connectClient({
      connectionString: this.#options.connectionString,
      applicationName: this.#options.applicationName,
      settings: {
        ...keepaliveSettings,
        // Confirming to the log what is not on disk would lose it; and a timeout would end the wait for a synchronous standby by
        // calling the commit done. The joins of an update must go by the primary key, whatever the statistics say.
        synchronous_commit: "on",
        statement_timeout: "0",
        idle_in_transaction_session_timeout: "0",
        enable_hashjoin: "off",
        enable_mergejoin: "off",
      },
    });
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    if (!this.#isStopped) return client;
    await endClient(client);
    throw new Error("stopped while it connected");
  }
}

/** `pg` has it, its types do not. */
const pidOf = (client: pg.Client): number => (client as unknown as { readonly processID: number }).processID;
