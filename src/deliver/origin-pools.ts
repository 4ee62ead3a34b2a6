import { Pool } from "undici";
import type { buildConnector } from "undici";
import type { Clock } from "../clock.ts";

export interface OriginPoolsOptions {
  readonly connect: buildConnector.connector;
  /** Connections to one origin, at most. */
  readonly connections: number;
  readonly clock: Clock;
}

/** Connections by origin, made when they are asked for. */
export interface OriginPools {
  /** The pool of an origin, such as `https://example.com:8443`. */
  of(origin: string): Pool;
  close(): Promise<void>;
}

interface Entry {
  readonly pool: Pool;
  readonly madeAtMs: number;
  /** Written by `of`. */
  usedAtMs: number;
}

const maxHeaderBytes = 16 * 1024;
const idleMs = 60_000;
/**
 * A pool is replaced at this age: a name that rebinds must not ride an old connection for ever, and an operator's deny rule must take
 * effect. (undici's own `clientTtl` reads the clock for each busy connection at each dispatch: 9 % of a delivery [M].)
 */
const mostAgeMs = 60_000;

export function createOriginPools({ connect, connections, clock }: OriginPoolsOptions): OriginPools {
  const entries = new Map<string, Entry>();
  /** Those that take no more requests and have some under way. */
  const retired = new Set<Pool>();
  const sweep = setInterval(() => {
    const nowMs = clock.monotonicMs();
    for (const [origin, entry] of entries) if (nowMs - entry.usedAtMs > idleMs) retire(origin, entry);
  }, idleMs);
  sweep.unref();

  /** Takes no more requests; those under way end by their own deadline. */
  function retire(origin: string, entry: Entry): void {
    entries.delete(origin);
    retired.add(entry.pool);
    void entry.pool
      .close()
      .catch(() => undefined)
      .then(() => retired.delete(entry.pool));
  }

  return {
    of(origin) {
      const nowMs = clock.monotonicMs();
      let entry = entries.get(origin);
      if (entry !== undefined && nowMs - entry.madeAtMs > mostAgeMs) {
        retire(origin, entry);
        entry = undefined;
      }
      if (entry === undefined) {
        const pool = new Pool(origin, {
          connect,
          connections,
          pipelining: 1,
          // The one deadline is the exchange's own.
          headersTimeout: 0,
          bodyTimeout: 0,
          maxHeaderSize: maxHeaderBytes,
          keepAliveTimeout: 30_000,
        });
        entry = { pool, madeAtMs: nowMs, usedAtMs: nowMs };
        entries.set(origin, entry);
      }
      entry.usedAtMs = nowMs;
      return entry.pool;
    },
    async close() {
      clearInterval(sweep);
      await Promise.all([...[...entries.values()].map(({ pool }) => pool), ...retired].map((pool) => pool.destroy()));
    },
  };
}
