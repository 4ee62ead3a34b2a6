import type { Clock } from "../clock.ts";
import type { Connector, Target } from "./connect.ts";
import { Connection, type ConnectionOwner, type Exchange } from "./connection.ts";

export interface ConnectionsOptions {
  readonly connect: Connector;
  readonly clock: Clock;
  /** Connections to one origin, at most. */
  readonly perOrigin: number;
}

/** Connections by origin, opened when they are asked for and used again. */
export interface Connections {
  /**
   * Gives an exchange a connection to an origin, such as `https://example.com:8443`; it waits while all are taken. The exchange is
   * told what comes of it, never within the call.
   */
  post(origin: string, exchange: Exchange): void;
  /** Lets go of connections that have been idle, or have lived, for too long. To be called now and then. */
  sweep(nowMs: number): void;
  /** Lets go of all that carry nothing: descriptors and ports have run out. */
  endIdle(): void;
  /** Ends all; exchanges under way and waiting are told so. */
  close(): void;
}

const sweepMs = 1_000;

export function createConnections(options: ConnectionsOptions): Connections {
  const origins = new Map<string, Origin>();
  let isClosed = false;
  let sweptAtMs = 0;
  return {
    post(origin, exchange) {
      if (isClosed) return void setImmediate(() => exchange.onError(closed(), undefined));
      let found = origins.get(origin);
      if (found === undefined) {
        found = new Origin(options, parseOrigin(origin));
        origins.set(origin, found);
      }
      found.post(exchange);
    },
    sweep(nowMs) {
      if (nowMs - sweptAtMs < sweepMs) return;
      sweptAtMs = nowMs;
      for (const [name, origin] of origins) if (!origin.sweep(nowMs)) origins.delete(name);
    },
    endIdle() {
      for (const origin of origins.values()) origin.endIdle();
    },
    close() {
      isClosed = true;
      for (const origin of origins.values()) origin.close();
    },
  };
}

class Origin implements ConnectionOwner {
  readonly #options: ConnectionsOptions;
  readonly #target: Target;
  readonly #all = new Set<Connection>();
  /** Used from its end: the ones that are not needed grow old at its beginning. */
  #idle: Connection[] = [];
  readonly #waiting: Exchange[] = [];

  constructor(options: ConnectionsOptions, target: Target) {
    this.#options = options;
    this.#target = target;
  }

  post(exchange: Exchange): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      if (connection.isFit(nowMs)) {
        if (!connection.take(exchange)) this.#idle.push(connection);
        return;
      }
      connection.abort(closed());
    }
    if (this.#all.size < this.#options.perOrigin) this.#open(exchange);
    else this.#waiting.push(exchange);
  }

  onFree(connection: Connection): void {
    if (!connection.isFit(this.#options.clock.monotonicMs())) return connection.abort(closed());
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) if (connection.take(next)) return;
    this.#idle.push(connection);
  }

  onUnsent(exchange: Exchange): void {
    this.post(exchange);
  }

  onClosed(connection: Connection): void {
    this.#all.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index !== -1) this.#idle.splice(index, 1);
    const next = this.#waiting.shift();
    if (next !== undefined) this.#open(next);
  }

  /** @returns whether it has any connection left */
  sweep(nowMs: number): boolean {
    for (const connection of this.#idle.filter((one) => !one.isFit(nowMs))) connection.abort(closed());
    return this.#all.size > 0;
  }

  endIdle(): void {
    for (const connection of this.#idle.splice(0)) connection.abort(closed());
  }

  close(): void {
    for (const exchange of this.#waiting.splice(0)) exchange.onError(closed(), undefined);
    for (const connection of this.#all) connection.abort(closed());
  }

  #open(exchange: Exchange): void {
    let connection: Connection;
    try {
      connection = new Connection({ ...this.#options, target: this.#target, owner: this });
    } catch (error) {
      setImmediate(() => exchange.onError(error instanceof Error ? error : new Error(String(error)), undefined));
      return;
    }
    this.#all.add(connection);
    connection.take(exchange);
  }
}

function parseOrigin(origin: string): Target {
  const { protocol, hostname, port } = new URL(origin);
  const isTls = protocol === "https:";
  return { isTls, hostname: hostname.replace(/^\[|\]$/g, ""), port: port === "" ? (isTls ? 443 : 80) : Number(port) };
}

function closed(): Error {
  return Object.assign(new Error("the connection was closed here"), { code: "ECONNABORTED" });
}
