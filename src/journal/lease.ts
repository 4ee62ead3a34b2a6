import type pg from "pg";
import type { Clock } from "../clock.ts";
import { AncrageError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { pause } from "../pause.ts";
import { askWithin, connectClient, destroyClient, endClient } from "../store/database.ts";
import { giveLeaseBack, leaseLock, noteSession, raiseEpoch, readLeader, tryLock, unlock, type LeaderRow } from "../store/leaders.ts";
import { isGranted, leaseWaitMs, nextQuiet, type Grant, type Quiet } from "./lease-time.ts";
import { superseded } from "./refusal.ts";

export interface LeaseOptions {
  readonly connectionString: string;
  readonly sourceId: string;
  readonly processName: string;
  readonly leaseMs: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** It holds again: what waited may go on. */
  readonly onRenewed: () => void;
  /** Another process leads. Called once, and nothing is renewed after. */
  readonly onSuperseded: () => void;
}

/**
 * Who may send: the process whose session holds a lock, for as long as that session answers.
 *
 * ```
 *            takes the lock, raises the epoch            no answer for leaseMs
 *   waiting ──────────────────────────────────► held ───────────────────────────► run out
 *                                                 ▲                                  │
 *                                                 │ answers, or took the lock anew   │
 *                                                 └──────────────────────────────────┤
 *                                                                                    │ the epoch was raised
 *                                                                                    ▼
 *                                                                                superseded
 * ```
 *
 * A renewal is a question on a session of its own: it waits behind no batch, and writes nothing. The server ends that session once it was
 * silent for a lease (`idle_session_timeout`): a process that was stopped, or whose host is gone, loses the lock without anybody's doing.
 * Whoever finds the lock free waits for a lease, unless it was given back. See docs/decisions/0011.
 */
export class Lease {
  readonly #options: LeaseOptions;
  /** Undefined while there is none. Made by the loops below, one after the other; its own loss makes it undefined. */
  #session: { readonly client: pg.Client; hasLock: boolean } | undefined;
  /** Undefined before the first. */
  #grant: Grant | undefined;
  #epoch = 0n;
  #superseded: AncrageError | undefined;
  /** The server's clock less our monotonic one, as of the last answer. Undefined before the first. Written by `#look`. */
  #serverAheadMs: number | undefined;
  #keeping: Promise<void> | undefined;
  /** Callers of `held`. */
  #waiting: (() => void)[] = [];
  readonly #stopping = new AbortController();

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  /** That under which this process leads; 0 before it does. */
  get epoch(): bigint {
    return this.#epoch;
  }

  /** Asked before each send and each commit. */
  get isHeld(): boolean {
    // Whoever finds it given back leads at once.
    return this.#superseded === undefined && !this.#isStopped && isGranted(this.#grant, this.#now(), this.#options.leaseMs);
  }

  /** How long the server has not answered; what a session beside this one may be judged by. */
  get silentMs(): number {
    return this.#grant === undefined ? 0 : this.#now().monotonicMs - this.#grant.monotonicMs;
  }

  /** The server's clock, which moves on with our monotonic one between two answers: this host's own may be wrong, or jump. */
  get serverNowMs(): number {
    const { clock } = this.#options;
    return this.#serverAheadMs === undefined ? clock.nowMs() : Math.round(clock.monotonicMs() + this.#serverAheadMs);
  }

  /**
   * Waits until no other process leads, takes the lead, and keeps it.
   *
   * @param onStandby called once if another process leads; from then on it outlives restarts of the database
   */
  async acquire(onStandby: () => void): Promise<"acquired" | "stopped"> {
    const { log, leaseMs } = this.#options;
    let quiet: Quiet | undefined;
    /** Set once a start is no longer to fail for what a database does that restarts. */
    let isPatient = false;
    let isStandby = false;
    while (!this.#isStopped) {
      let waitMs = leaseMs / 16;
      try {
        const seen = await this.#onSession(({ client }) => this.#look(client));
        if (seen.isHeld && !isStandby) onStandby();
        isStandby ||= seen.isHeld;
        quiet = nextQuiet(quiet, seen, this.#now().monotonicMs);
        const leftMs = quiet === undefined ? waitMs : leaseWaitMs(quiet, seen, this.#now().monotonicMs, leaseMs);
        if (leftMs === 0 && (await this.#take(seen))) return "acquired";
        if (quiet !== undefined && leftMs > 0 && !isStandby && !isPatient) {
          log.info({ former: seen.process }, `the process that led before did not end in order; its lease runs out within ${leaseMs} ms`);
        }
        isPatient = true;
        waitMs = Math.min(waitMs, Math.max(1, leftMs));
      } catch (error) {
        this.#drop();
        quiet = undefined;
        if (this.#isStopped) break;
        if (!isPatient) throw error;
        log.warn({ err: error }, "this standby could not ask for the lead; asking again");
      }
      await pause(waitMs, this.#stopping.signal);
    }
    return "stopped";
  }

  /**
   * Resolves as soon as the lease is held, or `stop` was called.
   *
   * @throws AncrageError `ANCRAGE_SUPERSEDED`
   */
  async held(): Promise<void> {
    while (!this.isHeld && !this.#isStopped) {
      if (this.#superseded !== undefined) throw this.#superseded;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** Another process has taken over; it is never held again. */
  get isSuperseded(): boolean {
    return this.#superseded !== undefined;
  }

  /** Asks the server something beside all that waits. Fails where there is no answer for a lease. */
  async ask<Result>(question: (client: pg.Client) => Promise<Result>): Promise<Result> {
    if (this.#session === undefined) throw new Error("the lease has no session now");
    return askWithin(this.#session.client, this.#options.leaseMs, question);
  }

  /** Ends the session; where nobody has taken over, the next process need not wait. Nothing may be sent after. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake();
    await this.#keeping;
    const session = this.#session;
    this.#session = undefined;
    if (session === undefined) return;
    const { client, hasLock } = session;
    if (hasLock && this.#superseded === undefined) {
      // Where it cannot be said, the next one waits until the lease has run out.
      await askWithin(client, goodbyeMs, (asked) => giveLeaseBack(asked, this.#place)).catch(() => undefined);
    }
    await endClient(client);
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  get #place(): { readonly source: string; readonly epoch: bigint } {
    return { source: this.#options.sourceId, epoch: this.#epoch };
  }

  #now(): Grant {
    const { clock } = this.#options;
    return { monotonicMs: clock.monotonicMs(), wallMs: clock.nowMs() };
  }

  async #look(client: pg.Client): Promise<LeaderRow> {
    const askedMs = this.#now().monotonicMs;
    const seen = await readLeader(client, this.#options.sourceId);
    this.#serverAheadMs = seen.atMs - askedMs;
    return seen;
  }

  async #take(seen: LeaderRow): Promise<boolean> {
    const { sourceId: source, processName: process } = this.#options;
    const askedAt = this.#now();
    const isTaken = await this.#onSession(async (session) => {
      if (!(await tryLock(session.client, leaseLock(source)))) return false;
      const epoch = await raiseEpoch(session.client, { source, process, seen });
      if (epoch === undefined) {
        await unlock(session.client, leaseLock(source));
        return false;
      }
      this.#epoch = epoch;
      session.hasLock = true;
      return true;
    });
    if (!isTaken) return false;
    this.#grant = askedAt;
    this.#keeping = this.#keep();
    return true;
  }

  /** Renews a few times a lease: one answer that is late costs nothing. */
  async #keep(): Promise<void> {
    const { leaseMs, log, onRenewed, onSuperseded } = this.#options;
    for (let failures = 0; ;) {
      await pause(failures === 0 ? leaseMs / 4 : leaseMs / 16, this.#stopping.signal);
      if (this.#isStopped) return;
      try {
        const askedAt = this.#now();
        await this.#renew();
        this.#grant = askedAt;
        if (failures > 0) log.info("the lease is renewed");
        failures = 0;
        this.#wake();
        onRenewed();
      } catch (error) {
        this.#drop();
        if (this.#isStopped) return;
        if (error instanceof AncrageError && error.code === "ANCRAGE_SUPERSEDED") {
          this.#superseded = error;
          this.#wake();
          return onSuperseded();
        }
        if (failures++ === 0) log.warn({ err: error }, "the lease could not be renewed; once it has run out nothing is sent");
      }
    }
  }

  /** On the session that there is; else the lock is taken anew, which the leader's row must tell before it counts. */
  async #renew(): Promise<void> {
    const { sourceId } = this.#options;
    await this.#onSession(async (session) => {
      const { epoch } = await this.#look(session.client);
      if (epoch !== this.#epoch) throw superseded();
      if (session.hasLock) return;
      // The server has not ended the session of before yet; or a standby is about to raise the epoch.
      if (!(await tryLock(session.client, leaseLock(sourceId)))) throw new Error("the lease's lock is held by another session");
      if (!(await noteSession(session.client, this.#place))) throw superseded();
      session.hasLock = true;
    });
  }

  async #onSession<Result>(work: (session: { readonly client: pg.Client; hasLock: boolean }) => Promise<Result>): Promise<Result> {
    const session = (this.#session ??= { client: await this.#connect(), hasLock: false });
    return askWithin(session.client, this.#options.leaseMs, () => work(session));
  }

  async #connect(): Promise<pg.Client> {
    const { connectionString, leaseMs } = this.#options;
    const client = await connectClient({
      connectionString,
      applicationName: "ancrage lease",
      connectTimeoutMs: Math.max(1_000, leaseMs),
      settings: {
        idle_session_timeout: String(Math.ceil(leaseMs)),
        // The one statement that writes, at a take-over, must not wait for an absent standby: the commits of batches do that.
        synchronous_commit: "local",
        statement_timeout: "0",
      },
    });
    client.on("error", () => {
      if (this.#session?.client === client) this.#session = undefined;
    });
    if (!this.#isStopped) return client;
    await endClient(client);
    throw new Error("stopped while it connected");
  }

  #drop(): void {
    if (this.#session !== undefined) destroyClient(this.#session.client);
    this.#session = undefined;
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** How long the database may take to note that the lease is given back. */
const goodbyeMs = 1_000;
