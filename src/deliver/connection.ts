import type { Socket } from "node:net";
import type { Clock } from "../clock.ts";
import { AnswerParser } from "./answer-parser.ts";
import type { Connector, Target } from "./connect.ts";

/** One request and what comes of it, as a connection sees it. */
export interface Exchange {
  /** A connection, or the making of one, is this exchange's from now on: its deadline begins. */
  onGranted(connection: Connection): void;
  /** What to write, asked for right before that; `undefined` where it is not to be sent any more. */
  takeRequest(): Buffer | undefined;
  /** Exactly one of the two is called, once: the whole answer is there, or what was received of it cannot be one. */
  onAnswer(parser: AnswerParser): void;
  onError(error: Error, parser: AnswerParser | undefined): void;
}

/** What a connection tells its origin. */
export interface ConnectionOwner {
  /** It can take another exchange. */
  onFree(connection: Connection): void;
  onClosed(connection: Connection): void;
  /** The exchange is to be given to another connection: of its request no byte was sent. */
  onUnsent(exchange: Exchange): void;
}

export interface ConnectionOptions {
  readonly target: Target;
  readonly connect: Connector;
  readonly clock: Clock;
  readonly owner: ConnectionOwner;
}

/** Most answers fit; a longer one is read in several turns. Its own for each socket, and used again for each answer. */
const bufferBytes = 4 * 1024;
/** A receiver that keeps connections for less than it says would reset a request: one is given up a second before. */
const idleMarginMs = 1_000;
const longestIdleMs = 30_000;
/**
 * A connection is given up at this age: a name that rebinds must not ride an old one for ever, and an operator's deny rule must take
 * effect.
 */
const mostAgeMs = 60_000;

/** One socket to a receiver, which carries one exchange at a time. */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #openedAtMs: number;
  readonly #socket: Socket;
  /** Written by `take`; undefined while it is idle. */
  #exchange: Exchange | undefined;
  #parser: AnswerParser | undefined;
  #isOpen = false;
  #isClosed = false;
  /** Answers so far. */
  #answerCount = 0;
  #idleUntilMs = 0;

  /** Begins to connect, for an exchange. Throws where the target is an address that is not allowed. */
  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#openedAtMs = options.clock.monotonicMs();
    const buffer = Buffer.allocUnsafe(bufferBytes);
    this.#socket = options.connect(options.target, {
      onread: {
        buffer,
        callback: (count) => {
          this.#read(buffer.subarray(0, count));
          return true;
        },
      },
      onOpen: () => {
        this.#isOpen = true;
        this.#idleUntilMs = options.clock.monotonicMs() + longestIdleMs;
        if (this.#exchange !== undefined && !this.#write(this.#exchange)) options.owner.onFree(this);
      },
      onError: (error) => this.#fail(error),
    });
    this.#socket.on("end", () => this.#endOfAnswers());
    this.#socket.on("close", () => this.#fail(closedError()));
  }

  /** Whether it may carry one more exchange. */
  isFit(nowMs: number): boolean {
    return !this.#isClosed && this.#socket.writable && nowMs < this.#idleUntilMs && nowMs - this.#openedAtMs < mostAgeMs;
  }

  /** @returns whether it took the exchange; where it did not, nobody wants that any more */
  take(exchange: Exchange): boolean {
    exchange.onGranted(this);
    this.#exchange = exchange;
    return !this.#isOpen || this.#write(exchange);
  }

  /** Ends at once; its exchange is told the error. */
  abort(error: Error): void {
    this.#fail(error);
  }

  #write(exchange: Exchange): boolean {
    const request = exchange.takeRequest();
    if (request === undefined) {
      this.#exchange = undefined;
      return false;
    }
    this.#parser = new AnswerParser();
    this.#socket.write(request);
    // Refused within the call: the receiver had reset an idle connection before, and no byte of this request left. It is no attempt
    // of the receiver's. Whatever fails later may have arrived.
    if (this.#socket.errored !== null && this.#answerCount > 0) {
      this.#exchange = undefined;
      this.#close();
      this.#options.owner.onUnsent(exchange);
    }
    return true;
  }

  #read(chunk: Buffer): void {
    const parser = this.#parser;
    // A word that nobody asked for: what comes next would be taken for the answer to another request.
    if (parser === undefined) return this.#close();
    parser.feed(chunk);
    if (parser.state !== "more") this.#finish(parser);
  }

  #endOfAnswers(): void {
    const parser = this.#parser;
    if (parser === undefined) return this.#isOpen ? this.#close() : this.#fail(closedError());
    parser.end();
    this.#finish(parser);
  }

  #finish(parser: AnswerParser): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    this.#parser = undefined;
    this.#answerCount++;
    const idleMs = parser.idleLimitS === undefined ? longestIdleMs : Math.min(parser.idleLimitS * 1_000 - idleMarginMs, longestIdleMs);
    // An answer that came before the whole request was written: what is left of that would be read as the next request.
    if (!parser.isReusable || idleMs <= 0 || this.#socket.writableLength > 0) this.#close();
    else {
      this.#idleUntilMs = this.#options.clock.monotonicMs() + idleMs;
      this.#options.owner.onFree(this);
    }
    // Last: whoever is told may send at once, and finds this connection free.
    exchange?.onAnswer(parser);
  }

  #fail(error: Error): void {
    const exchange = this.#exchange;
    const parser = this.#parser;
    this.#exchange = undefined;
    this.#close();
    exchange?.onError(error, parser);
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#parser = undefined;
    this.#socket.destroy();
    this.#options.owner.onClosed(this);
  }
}

function closedError(): Error {
  return Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" });
}
