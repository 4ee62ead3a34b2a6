import type { Duplex, DuplexOptions } from "node:stream";
import pg, { type Submittable } from "pg";
import copyStreams from "pg-copy-streams";
import type { Clock } from "../../clock.ts";
import { formatLsn } from "../../lsn.ts";
import { connectOrEnd, endClient, sessionConfig } from "../../store/database.ts";
import { askSenderWork } from "./busy-sender.ts";
import { computeLiveness, type Liveness } from "./liveness.ts";

/** What the server sends, as the source handles it. `data` is a view of the socket's chunk: decode it before returning. */
export interface StreamHandlers {
  readonly onData: (lsn: bigint, data: Buffer) => void;
  readonly onKeepalive: (lsn: bigint) => void;
  /** Called once, whatever ended a stream that had begun, but for `stop`; nothing comes after it. */
  readonly onEnd: (error: Error) => void;
  /** Everything up to here is in the journal. All that a status ever confirms. */
  readonly confirmedLsn: () => bigint;
}

export interface StreamOptions {
  readonly connectionString: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly startLsn: bigint;
  /** `wal_sender_timeout` of the session. */
  readonly senderTimeoutMs: number;
  readonly clock: Clock;
}

/** `@types/pg-copy-streams` does not know of `both` yet. */
type CopyBoth = Duplex & Submittable;
const { both } = copyStreams as unknown as {
  both(text: string, options: DuplexOptions & { readonly alignOnCopyDataFrame: true }): CopyBoth;
};

/** How often the timer looks; well below half of the timeout. */
const mostTickMs = 1_000;
/** How long the server may take to let the slot go; in the middle of a large transaction it takes longer, and is cut off. */
const goodbyeMs = 1_000;
/** Microseconds between the Unix epoch and PostgreSQL's. */
const postgresEpochUs = 946_684_800_000_000n;

/** The socket of one replication session: frames in, statuses out. It decides nothing. */
export class ReplicationStream {
  readonly #options: StreamOptions;
  readonly #handlers: StreamHandlers;
  readonly #client: pg.Client;
  /** Written by `start`; undefined before. */
  #copy: CopyBoth | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Written by the frames that arrive. */
  #lastReceivedAtMs = 0;
  /** Written by `#writeStatus`, as is what the last one confirmed. */
  #lastSentAtMs = 0;
  #lastConfirmedLsn = 0n;
  /** How far the server had read when it last said so. */
  #keepaliveLsn = 0n;
  #isPaused = false;
  /** It is being asked whether a silent server is at work. */
  #isAsking = false;
  /** The server streams. Until it does, a failure is thrown by `start` and is not an end. */
  #hasBegun = false;
  #hasEnded = false;
  #stopped: Promise<void> | undefined;

  constructor(options: StreamOptions, handlers: StreamHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    const config = sessionConfig({
      connectionString: options.connectionString,
      applicationName: "ancrage replication",
      settings: { wal_sender_timeout: `${options.senderTimeoutMs}ms` },
    });
    this.#client = new pg.Client({ ...config, replication: "database" } as pg.ClientConfig);
    this.#client.on("error", (error) => this.#end(error));
  }

  /** Resolves when the server has begun to stream. Throws what PostgreSQL answered, with its SQLSTATE. */
  async start(): Promise<void> {
    const { slot, publications, startLsn, senderTimeoutMs, clock } = this.#options;
    await connectOrEnd(this.#client);
    const names = publications.map((name) => pg.escapeIdentifier(name)).join(",");
    // Replication commands are known in upper case only.
    const command = `START_REPLICATION SLOT ${pg.escapeIdentifier(slot)} LOGICAL ${formatLsn(startLsn)} (proto_version '1', publication_names ${pg.escapeLiteral(names)}, messages 'true')`;
    const copy = both(command, { alignOnCopyDataFrame: true, readableObjectMode: true, readableHighWaterMark: 256 });
    this.#copy = copy;
    this.#lastReceivedAtMs = clock.monotonicMs();
    await new Promise<void>((resolve, reject) => {
      copy.on("error", (error: Error) => {
        reject(error);
        this.#end(error);
      });
      copy.on("end", () => {
        const error = new Error("the server ended the replication stream");
        reject(error);
        this.#end(error);
      });
      copy.on("data", (frame: Buffer) => this.#receive(frame));
      this.#client.query(copy);
      // A status that the server takes means that it streams; until then writes wait for its CopyBothResponse. It confirms what is
      // journaled: the position to start from may be that of a transaction that was only received.
      this.#writeStatus({
        done: (error) => {
          if (error !== null && error !== undefined) return reject(error);
          this.#hasBegun = true;
          resolve();
        },
      });
    });
    this.#timer = setInterval(() => this.#tick(), Math.min(mostTickMs, senderTimeoutMs / 10));
    this.#timer.unref();
    if (this.#hasEnded) clearInterval(this.#timer);
  }

  pause(): void {
    this.#isPaused = true;
    this.#copy?.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#lastReceivedAtMs = this.#options.clock.monotonicMs();
    this.#copy?.resume();
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Ends the session as if the connection had been lost. */
  interrupt(because: string): void {
    this.#end(new Error(because));
  }

  /** Feedback never waits for the consumer: it also goes out while reading is paused (spiceai #11653). */
  sendStatus({ asks = false } = {}): void {
    if (this.#hasBegun && !this.#hasEnded) this.#writeStatus({ asks });
  }

  /** Says the last confirmed position, lets the slot go and closes. Idempotent. */
  stop(): Promise<void> {
    this.#stopped ??= this.#close();
    return this.#stopped;
  }

  async #close(): Promise<void> {
    this.sendStatus();
    const copy = this.#copy;
    const isStreaming = this.#hasBegun && !this.#hasEnded;
    this.#hasEnded = true;
    clearInterval(this.#timer);
    if (copy !== undefined && isStreaming) {
      // Whoever reads the slot next (this process, reloaded) must not find it in use: the server is asked, and waited for.
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, goodbyeMs);
        const done = (): void => {
          clearTimeout(timer);
          resolve();
        };
        // Not "end": the server says that before it lets the slot go, and is ready for another command after.
        copy.once("finish", done);
        copy.once("error", done);
        copy.once("close", done);
        copy.end();
        copy.resume();
      });
    }
    await endClient(this.#client);
  }

  #writeStatus({ asks = false, done }: { readonly asks?: boolean; readonly done?: (error?: Error | null) => void }): void {
    const { clock } = this.#options;
    const flushedLsn = this.#handlers.confirmedLsn();
    const writtenLsn = this.#keepaliveLsn > flushedLsn ? this.#keepaliveLsn : flushedLsn;
    this.#lastSentAtMs = clock.monotonicMs();
    // A server that shuts down waits until all of its log is flushed here, which it cannot be: the journal is in that server. Where no
    // flushed position is given (0: nothing new) it waits for the written one, which is how far we have read.
    const isNew = flushedLsn !== this.#lastConfirmedLsn;
    this.#lastConfirmedLsn = flushedLsn;
    this.#copy?.write(statusFrame({ writtenLsn, flushedLsn: isNew ? flushedLsn : 0n, nowMs: clock.nowMs(), asks }), done);
  }

  #receive(frame: Buffer): void {
    if (this.#hasEnded) return;
    this.#lastReceivedAtMs = this.#options.clock.monotonicMs();
    // XLogData: 'w', start of the change, end of the log, the server's clock, the message.
    if (frame[0] === 0x77) this.#handlers.onData(frame.readBigUInt64BE(1), frame.subarray(25));
    // Keepalive: 'k', end of the log, the server's clock, whether it wants an answer now.
    else if (frame[0] === 0x6b) {
      this.#keepaliveLsn = frame.readBigUInt64BE(1);
      this.#handlers.onKeepalive(this.#keepaliveLsn);
      if (frame[17] === 1) this.sendStatus();
    }
  }

  get #liveness(): Liveness {
    const { senderTimeoutMs, clock } = this.#options;
    return computeLiveness({
      nowMs: clock.monotonicMs(),
      lastReceivedAtMs: this.#lastReceivedAtMs,
      lastSentAtMs: this.#lastSentAtMs,
      senderTimeoutMs,
      isPaused: this.#isPaused,
    });
  }

  #tick(): void {
    const { shouldSend, shouldAsk, isDead } = this.#liveness;
    if (shouldSend) this.sendStatus({ asks: shouldAsk });
    if (isDead && !this.#isAsking) void this.#endUnlessBusy();
  }

  /**
   * Reading a large transaction back and forth from its disk, a server answers nothing for as long as that takes. To connect anew would
   * make it begin again, and again. So it goes on being asked while the question has no answer, up to a bound.
   */
  async #endUnlessBusy(): Promise<void> {
    const { connectionString, senderTimeoutMs, clock } = this.#options;
    const silentSinceMs = this.#lastReceivedAtMs;
    this.#isAsking = true;
    const { processID: pid } = this.#client as unknown as { processID?: number };
    const work = pid === undefined ? "waiting" : await askSenderWork({ connectionString, pid, withinMs: senderTimeoutMs });
    this.#isAsking = false;
    // It spoke meanwhile, or we have stopped listening.
    if (this.#isPaused || this.#lastReceivedAtMs > silentSinceMs) return;
    if (work === "busy") this.#lastReceivedAtMs = clock.monotonicMs();
    else if (work === "waiting" || this.#liveness.isGivenUp) {
      const silentMs = clock.monotonicMs() - silentSinceMs;
      this.#end(new Error(`the server was silent for ${(silentMs / 1000).toFixed(1)} s`));
    }
  }

  #end(error: Error): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearInterval(this.#timer);
    // A half-open connection would never finish a polite goodbye.
    const { connection } = this.#client as unknown as { connection?: { stream?: { destroy(): void } } };
    connection?.stream?.destroy();
    if (this.#hasBegun) this.#handlers.onEnd(error);
  }
}

interface Status {
  readonly writtenLsn: bigint;
  readonly flushedLsn: bigint;
  readonly nowMs: number;
  readonly asks: boolean;
}

/** 'r', written, flushed, applied, our clock, whether an answer is wanted. Only what is flushed is confirmed. */
function statusFrame(status: Status): Buffer {
  const frame = Buffer.alloc(34);
  frame[0] = 0x72;
  frame.writeBigUInt64BE(status.writtenLsn, 1);
  frame.writeBigUInt64BE(status.flushedLsn, 9);
  frame.writeBigUInt64BE(status.flushedLsn, 17);
  frame.writeBigInt64BE(BigInt(Math.trunc(status.nowMs)) * 1000n - postgresEpochUs, 25);
  frame[33] = status.asks ? 1 : 0;
  return frame;
}
