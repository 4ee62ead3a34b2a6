import type pg from "pg";
import type { Logger } from "../log.ts";
import { pause } from "../pause.ts";
import { dropSubscriptionsHealth, readSubscriptionHealth, writeSubscriptionHealth } from "../store/subscription-health.ts";
import { healthy, type Health } from "./health.ts";

export interface HealthBookOptions {
  readonly db: pg.Pool;
  readonly log: Logger;
  /** @default 2000 */
  readonly writeMs?: number;
}

const defaultWriteMs = 2_000;

/**
 * Keeps the health of receivers over restarts: "no success for five days" outlives the process that saw the first failure.
 *
 * Written behind what happens, at most every two seconds in two statements: of each subscription the newest only, so that what is not
 * written yet is never more than one entry a subscription. What a crash loses is told again with the next failure.
 */
export class HealthBook {
  readonly #options: HealthBookOptions;
  readonly #failing = new Map<string, Health>();
  /** Changed since the last write. */
  readonly #unwritten = new Set<string>();
  readonly #stopping = new AbortController();
  #writing: Promise<void> | undefined;

  constructor(options: HealthBookOptions) {
    this.#options = options;
  }

  /** What an earlier process has noted. */
  async load(): Promise<void> {
    for (const { subscriptionId, failingSinceMs, failures } of await readSubscriptionHealth(this.#options.db)) {
      this.#failing.set(subscriptionId, { firstFailureAtMs: failingSinceMs, failures });
    }
  }

  start(): void {
    this.#writing = this.#writeAll();
  }

  /** Writes what is not written yet. Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    this.#stopping.abort();
    await this.#writing;
    await this.#write();
  }

  get(id: string): Health | undefined {
    return this.#failing.get(id);
  }

  note(id: string, health: Health): void {
    if (health.firstFailureAtMs === undefined && !this.#failing.has(id)) return;
    if (health.firstFailureAtMs === undefined) this.#failing.delete(id);
    else this.#failing.set(id, health);
    this.#unwritten.add(id);
  }

  /** Somebody enabled it: what failed before counts no more. */
  forgive(id: string): void {
    this.note(id, healthy);
  }

  async #writeAll(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      await pause(this.#options.writeMs ?? defaultWriteMs, this.#stopping.signal);
      await this.#write();
    }
  }

  async #write(): Promise<void> {
    if (this.#unwritten.size === 0) return;
    const ids = [...this.#unwritten];
    this.#unwritten.clear();
    const { db, log } = this.#options;
    const failing = ids.flatMap((subscriptionId) => {
      const health = this.#failing.get(subscriptionId);
      if (health?.firstFailureAtMs === undefined) return [];
      return [{ subscriptionId, failingSinceMs: health.firstFailureAtMs, failures: health.failures }];
    });
    const well = ids.filter((id) => !this.#failing.has(id));
    try {
      if (failing.length > 0) await writeSubscriptionHealth(db, failing);
      if (well.length > 0) await dropSubscriptionsHealth(db, well);
    } catch (error) {
      for (const id of ids) this.#unwritten.add(id);
      log.warn({ err: error }, "could not note how receivers do");
    }
  }
}
