import { channel } from "node:diagnostics_channel";
import type { Clock } from "../clock.ts";
import type { AnswerParser } from "./answer-parser.ts";
import type { Connection, Exchange } from "./connection.ts";
import { describeFailure, describeFault, type Failure } from "./describe-failure.ts";
import { describeShortage } from "./describe-shortage.ts";
import { judgeAnswer } from "./judge-answer.ts";
import type { Outcome, Unsent } from "./outcome.ts";
import { buildRequest, type Attempt, type RequestOptions } from "./request.ts";

/** What the exchanges of a sender have in common. */
export interface ExchangeContext extends RequestOptions {
  readonly clock: Clock;
  /** Milliseconds that an attempt may take in all, its answer included. */
  readonly timeoutMs: number;
}

/** One attempt on the wire, and its deadline. */
export class HttpExchange implements Exchange {
  readonly #context: ExchangeContext;
  readonly #attempt: Attempt;
  readonly #done: (exchange: HttpExchange, outcome: Outcome | Unsent) => void;
  /** Written by `onGranted`; while it waits for a connection, it has no deadline. */
  #connection: Connection | undefined;
  #startedAtMs = 0;
  #isSent = false;

  constructor(context: ExchangeContext, attempt: Attempt, done: (exchange: HttpExchange, outcome: Outcome | Unsent) => void) {
    this.#context = context;
    this.#attempt = attempt;
    this.#done = done;
  }

  onGranted(connection: Connection): void {
    // The first grant counts: one that is granted again had a connection that the receiver had closed before.
    if (this.#connection === undefined) this.#startedAtMs = this.#context.clock.monotonicMs();
    this.#connection = connection;
    this.#isSent = false;
  }

  takeRequest(): Buffer | undefined {
    // What comes of a refusal is told later: whoever asks for the request is in the middle of its own bookkeeping.
    // An acknowledged deletion means that nothing is sent any more, also not what stood in a queue.
    if (!this.#attempt.isWanted()) return void setImmediate(() => this.#done(this, { kind: "unsent", shortage: undefined }));
    try {
      const request = buildRequest(this.#attempt, this.#context, this.#context.clock.nowMs());
      this.#isSent = true;
      if (attempts.hasSubscribers) attempts.publish(this.#attempt);
      return request;
    } catch (error) {
      const words = `not sent: ${error instanceof Error ? error.message : String(error)}`;
      return void setImmediate(() => this.#fail({ reason: "connection", words }, undefined));
    }
  }

  onAnswer(parser: AnswerParser): void {
    const { fault, status } = parser;
    if (fault === undefined) this.#done(this, judgeAnswer(parser.answer, this.#durationMs(), this.#context.clock.nowMs()));
    else this.#fail(describeFault(fault, this.#attempt.subscription.origin), status);
  }

  onError(error: Error, parser: AnswerParser | undefined): void {
    const shortage = this.#isSent ? undefined : describeShortage(error);
    if (shortage !== undefined) return this.#done(this, { kind: "unsent", shortage });
    this.#fail(error === overdue ? this.#describeDeadline() : describeFailure(error, this.#attempt.subscription.origin), parser?.status);
  }

  /** Ends it where its deadline has passed; that is told as any error is. */
  endIfOverdue(nowMs: number): void {
    if (this.#connection === undefined || nowMs - this.#startedAtMs < this.#context.timeoutMs) return;
    this.#connection.abort(overdue);
  }

  #describeDeadline(): Failure {
    const { host } = new URL(this.#attempt.subscription.origin);
    const { timeoutMs } = this.#context;
    return {
      reason: "timeout",
      words: this.#isSent
        ? `no whole answer of ${host} within ${timeoutMs} ms: answer first, and work after that`
        : `no connection to ${host} within ${timeoutMs} ms: check that the server runs and its firewall lets requests in`,
    };
  }

  #fail({ reason, words }: Failure, status: number | undefined): void {
    this.#done(this, { kind: "failed", reason, status, durationMs: this.#durationMs(), response: Buffer.from(words) });
  }

  #durationMs(): number {
    return this.#connection === undefined ? 0 : Math.round(this.#context.clock.monotonicMs() - this.#startedAtMs);
  }
}

/** Tells each attempt as its request is written, the `Attempt` itself; for traces and tests. */
const attempts = channel("ancrage:attempt");

const overdue = new Error("its deadline has passed");
