import type { KeyObject } from "node:crypto";
import type { Dispatcher as Undici } from "undici";
import { formatCause } from "../cause.ts";
import type { Clock } from "../clock.ts";
import { contentTypeOf, formatMessage, type Format } from "../format.ts";
import type { Message } from "../message.ts";
import type { Subscription } from "../subscription/registry.ts";
import { createConnector, type ConnectorOptions } from "./connect.ts";
import { describeFailure, type Failure } from "./describe-failure.ts";
import { isSuccess, judgeAnswer, type AnswerHeaders } from "./judge-answer.ts";
import type { Outcome } from "./outcome.ts";
import { createOriginPools } from "./origin-pools.ts";
import { computeSignature } from "./sign.ts";

export interface SenderOptions extends Omit<ConnectorOptions, "timeoutMs"> {
  /** Milliseconds that an attempt may take in all, its answer included. */
  readonly timeoutMs: number;
  readonly version: string;
  readonly clock: Clock;
  /** Connections to one origin, at most. */
  readonly connectionsPerOrigin: number;
  /** Signs the header `ancrage-cause`. */
  readonly causeKey: KeyObject;
}

/** How much of an answer is read, and how much of that is kept. */
const readBytes = 64 * 1024;
const keptBytes = 16 * 1024;
/** How often deadlines are looked at, at most; a tenth of the deadline where that is shorter. */
const deadlineTickMs = 250;

export interface Attempt {
  readonly message: Message;
  readonly subscription: Subscription;
  /** 1 for the first of the round. */
  readonly number: number;
  /** Asked once more when a connection was granted: the subscription may have been deleted while the request waited for one. */
  readonly isWanted: () => boolean;
}

export interface Sender {
  /** Makes one attempt; calls `done` exactly once, never within the call. */
  send(attempt: Attempt, done: (outcome: Outcome) => void): void;
  close(): Promise<void>;
}

/**
 * Signs and posts, on undici's dispatch level: `fetch` follows redirects, decompresses, and costs an order more.
 */
export function createSender(options: SenderOptions): Sender {
  const { timeoutMs, clock } = options;
  const connect = createConnector({ ...options, timeoutMs: Math.min(timeoutMs, 10_000) });
  const pools = createOriginPools({ connect, connections: options.connectionsPerOrigin, clock });
  /** One timer for all: a timer for each request would cost as much as its signature. */
  const live = new Set<Exchange>();
  const tick = setInterval(
    () => {
      const nowMs = clock.monotonicMs();
      for (const exchange of live) exchange.endIfOverdue(nowMs);
    },
    Math.max(5, Math.min(deadlineTickMs, timeoutMs / 10)),
  );
  tick.unref();

  return {
    send(attempt, done) {
      const { message, subscription } = attempt;
      const body = bodyOf(message, subscription.format);
      const timestampS = Math.floor(options.clock.nowMs() / 1000);
      const headers = [
        "content-type",
        contentTypeOf[subscription.format],
        "user-agent",
        `Ancrage/${options.version}`,
        "accept-encoding",
        "identity",
        "webhook-id",
        message.id,
        "webhook-timestamp",
        String(timestampS),
        "webhook-signature",
        computeSignature(subscription.keys, message.id, timestampS, body),
        "ancrage-event",
        message.event,
        "ancrage-attempt",
        String(attempt.number),
        "ancrage-subscription",
        subscription.id,
        "ancrage-cause",
        causeOf(options.causeKey, message, subscription),
      ];
      if (subscription.headers !== undefined) headers.push(...subscription.headers);
      const exchange = new Exchange(options, attempt, (outcome) => {
        live.delete(exchange);
        done(outcome);
      });
      live.add(exchange);
      try {
        pools.of(subscription.origin).dispatch({ path: subscription.path, method: "POST", headers, body }, exchange);
      } catch (error) {
        // `done` is never called within this call: its caller may be in the middle of its own bookkeeping.
        setImmediate(() => exchange.onResponseError(undefined, error instanceof Error ? error : new Error(String(error))));
      }
    },
    async close() {
      clearInterval(tick);
      await pools.close();
    },
  };
}

const causeOf = (key: KeyObject, { id, origin }: Message, subscription: Subscription): string =>
  formatCause(key, { messageId: id, subscriptionId: subscription.id, depth: (origin?.depth ?? 0) + 1 });

function bodyOf(message: Message, format: Format): Buffer {
  return (message.envelopes[format] ??= formatMessage(format, message));
}

/**
 * One request and its answer. A class, though it is only a value: one is made for each attempt, and closures would cost more than
 * the signature does.
 */
class Exchange implements Undici.DispatchHandler {
  readonly #options: SenderOptions;
  readonly #attempt: Attempt;
  readonly #done: (outcome: Outcome) => void;
  /** The deadline counts from here: first from the wait for a connection, and anew once there is one. */
  #startedAtMs: number;
  #controller: Undici.DispatchController | undefined;
  #status = 0;
  #headers: AnswerHeaders = {};
  #chunks: Buffer[] | undefined;
  #received = 0;
  #isOver = false;

  constructor(options: SenderOptions, attempt: Attempt, done: (outcome: Outcome) => void) {
    this.#options = options;
    this.#attempt = attempt;
    this.#done = done;
    this.#startedAtMs = options.clock.monotonicMs();
  }

  endIfOverdue(nowMs: number): void {
    const { timeoutMs } = this.#options;
    if (nowMs - this.#startedAtMs < timeoutMs) return;
    this.#fail({ reason: "timeout", words: `no whole answer within ${timeoutMs} ms` });
    this.#controller?.abort(new Error("deadline"));
  }

  onRequestStart(controller: Undici.DispatchController): void {
    // It ran out of time while it waited for a connection: its outcome is told, and a request now would be one too many.
    if (this.#isOver) return controller.abort(new Error("its deadline passed before a connection was there"));
    // An acknowledged deletion means that nothing is sent any more, also not what stood in a queue.
    if (!this.#attempt.isWanted()) return controller.abort(new Error("its subscription was deleted"));
    this.#controller = controller;
    this.#startedAtMs = this.#options.clock.monotonicMs();
  }

  onResponseStart(_controller: Undici.DispatchController, status: number, headers: AnswerHeaders): void {
    if (status < 200) return;
    this.#status = status;
    this.#headers = headers;
  }

  onResponseData(controller: Undici.DispatchController, chunk: Buffer): void {
    // A success needs no more of its answer than that it ends.
    if (this.#received < keptBytes && !isSuccess(this.#status)) (this.#chunks ??= []).push(Buffer.from(chunk));
    this.#received += chunk.length;
    if (this.#received < readBytes) return;
    // Enough was read to know the outcome; the connection is not kept for the rest.
    this.#finish();
    controller.abort(new Error("the answer is longer than what is read of it"));
  }

  onResponseEnd(): void {
    this.#finish();
  }

  onResponseError(_controller: Undici.DispatchController | undefined, error: Error): void {
    this.#fail(describeFailure(error, this.#attempt.subscription.origin));
  }

  #finish(): void {
    if (this.#isOver) return;
    const body = this.#chunks === undefined ? undefined : Buffer.concat(this.#chunks).subarray(0, keptBytes);
    this.#done(judgeAnswer({ status: this.#status, headers: this.#headers, body }, this.#over(), this.#options.clock.nowMs()));
  }

  #fail({ reason, words }: Failure): void {
    if (this.#isOver) return;
    const status = this.#status === 0 ? undefined : this.#status;
    this.#done({ kind: "failed", reason, status, durationMs: this.#over(), response: Buffer.from(words, "utf8") });
  }

  #over(): number {
    this.#isOver = true;
    return Math.round(this.#options.clock.monotonicMs() - this.#startedAtMs);
  }
}
