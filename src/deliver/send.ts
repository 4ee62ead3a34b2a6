import { createConnections } from "./connections.ts";
import { createConnector, type ConnectorOptions } from "./connect.ts";
import { HttpExchange, type ExchangeContext } from "./exchange.ts";
import type { Outcome, Unsent } from "./outcome.ts";
import type { Attempt } from "./request.ts";

export type { Attempt } from "./request.ts";

export interface SenderOptions extends ConnectorOptions, ExchangeContext {
  /** Connections to one origin, at most. */
  readonly connectionsPerOrigin: number;
}

export interface Sender {
  /** Makes one attempt; calls `done` exactly once, never within the call. */
  send(attempt: Attempt, done: (outcome: Outcome | Unsent) => void): void;
  close(): Promise<void>;
}

/** How often deadlines are looked at, at most; a tenth of the deadline where that is shorter. */
const deadlineTickMs = 250;

/** Signs and posts, on sockets of its own: `docs/decisions/0007-a-sender-of-our-own.md`. */
export function createSender(options: SenderOptions): Sender {
  const { timeoutMs, clock } = options;
  const connections = createConnections({ connect: createConnector(options), clock, perOrigin: options.connectionsPerOrigin });
  /** One timer for all: a timer for each request would cost as much as its signature. */
  const live = new Map<HttpExchange, (outcome: Outcome | Unsent) => void>();
  /** Something could not be sent for want of what idle connections hold. */
  let isShort = false;
  const tick = setInterval(
    () => {
      const nowMs = clock.monotonicMs();
      for (const exchange of live.keys()) exchange.endIfOverdue(nowMs);
      if (isShort) connections.endIdle();
      isShort = false;
      connections.sweep(nowMs);
    },
    Math.max(5, Math.min(deadlineTickMs, timeoutMs / 10)),
  );
  tick.unref();

  const onDone = (exchange: HttpExchange, outcome: Outcome | Unsent): void => {
    isShort ||= outcome.kind === "unsent" && outcome.shortage !== undefined;
    const done = live.get(exchange);
    live.delete(exchange);
    done?.(outcome);
  };

  return {
    send(attempt, done) {
      const exchange = new HttpExchange(options, attempt, onDone);
      live.set(exchange, done);
      connections.post(attempt.subscription.origin, exchange);
    },
    close() {
      clearInterval(tick);
      connections.close();
      return Promise.resolve();
    },
  };
}
