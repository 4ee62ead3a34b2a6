import type { Duplex, DuplexOptions } from "node:stream";
import pg, { type Submittable } from "pg";
import copyStreams from "pg-copy-streams";
import type { Clock } from "../../clock.ts";
import { sessionConfig } from "../../store/database.ts";
import { computeLiveness } from "./liveness.ts";
import { formatLsn } from "../../lsn.ts";

/** What the server sends, as the source handles it. `data` is a view of the socket's chunk: decode it before returning. */
export interface StreamHandlers {
  readonly onData: (lsn: bigint, data: Buffer) => void;
  readonly onKeepalive: (lsn: bigint) => void;
  /** Called once, whatever ended the stream; nothing comes after it. */
  readonly onEnd: (error: Error) => void;
  /** Everything up to here is in the journal. */
  readonly confirmedLsn: () => bigint;
}

export interface StreamOptions {
  readonly connectionString: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly startLsn: bigint;
  readonly clock: Clock;
}

/** `@types/pg-copy-streams` does not know of `both` yet. */
type CopyBoth = Duplex & Submittable;
const { both } = copyStreams as unknown as {
  both(text: string, options: DuplexOptions & { readonly alignOnCopyDataFrame: true }): CopyBoth;
};

/** The manual advises no default of our own; 10 s lets a stale holder of the slot go soon after its host died. */
const senderTimeoutMs = 10_000;
/** How often the timer looks; well below half of the timeout. */
const tickMs = 1_000;
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
  /** Written by `sendStatus`. */
  #lastSentAtMs = 0;
  #isPaused = false;
  #hasEnded = false;

  constructor(options: StreamOptions, handlers: StreamHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    const config = sessionConfig({
      connectionString: options.connectionString,
      applicationName: "ancrage replication",
      settings: { wal_sender_timeout: `${senderTimeoutMs}ms` },
    });
    this.#client = new pg.Client({ ...config, replication: "database" } as pg.ClientConfig);
    this.#client.on("error", (error) => this.#end(error));
  }

  /** Resolves when the server has begun to stream. Throws what PostgreSQL answered, with its SQLSTATE. */
  async start(): Promise<void> {
    const { slot, publications, startLsn, clock } = this.#options;
    await this.#client.connect();
    const names = publications.map((name) => `"${name.replaceAll('"', '""')}"`).join(",");
    // Replication commands are known in upper case only.
    const command = `START_REPLICATION SLOT "${slot}" LOGICAL ${formatLsn(startLsn)} (proto_version '1', publication_names '${names}', messages 'true')`;
    const copy = both(command, { alignOnCopyDataFrame: true, readableObjectMode: true, readableHighWaterMark: 256 });
    this.#copy = copy;
    this.#lastReceivedAtMs = this.#lastSentAtMs = clock.monotonicMs();
    await new Promise<void>((resolve, reject) => {
      copy.once("error", reject);
      copy.on("error", (error: Error) => this.#end(error));
      copy.on("end", () => this.#end(new Error("the server ended the replication stream")));
      copy.on("data", (frame: Buffer) => this.#receive(frame));
      this.#client.query(copy);
      // A status that the server takes means that it streams; until then writes wait for its CopyBothResponse.
      copy.write(statusFrame(startLsn, clock.nowMs()), (error) => (error == null ? resolve() : reject(error)));
    });
    this.#timer = setInterval(() => this.#tick(), tickMs);
    this.#timer.unref();
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

  /** Feedback never waits for the consumer: it also goes out while reading is paused (spiceai #11653). */
  sendStatus(): void {
    if (this.#hasEnded || this.#copy === undefined) return;
    this.#lastSentAtMs = this.#options.clock.monotonicMs();
    this.#copy.write(statusFrame(this.#handlers.confirmedLsn(), this.#options.clock.nowMs()));
  }

  /** Says the last confirmed position and closes. Idempotent. */
  async stop(): Promise<void> {
    if (!this.#hasEnded) this.sendStatus();
    this.#end(new Error("stopped"));
    await this.#client.end().catch(() => undefined);
  }

  #receive(frame: Buffer): void {
    if (this.#hasEnded) return;
    this.#lastReceivedAtMs = this.#options.clock.monotonicMs();
    // XLogData: 'w', start of the change, end of the log, the server's clock, the message.
    if (frame[0] === 0x77) this.#handlers.onData(frame.readBigUInt64BE(1), frame.subarray(25));
    // Keepalive: 'k', end of the log, the server's clock, whether it wants an answer now.
    else if (frame[0] === 0x6b) {
      this.#handlers.onKeepalive(frame.readBigUInt64BE(1));
      if (frame[17] === 1) this.sendStatus();
    }
  }

  #tick(): void {
    const { shouldSend, isDead } = computeLiveness({
      nowMs: this.#options.clock.monotonicMs(),
      lastReceivedAtMs: this.#lastReceivedAtMs,
      lastSentAtMs: this.#lastSentAtMs,
      senderTimeoutMs,
      isPaused: this.#isPaused,
    });
    if (isDead) this.#end(new Error(`the server was silent for ${(2 * senderTimeoutMs) / 1000} s`));
    else if (shouldSend) this.sendStatus();
  }

  #end(error: Error): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearInterval(this.#timer);
    // A half-open connection would never finish a polite goodbye.
    const { connection } = this.#client as unknown as { connection?: { stream?: { destroy(): void } } };
    if (error.message !== "stopped") connection?.stream?.destroy();
    this.#handlers.onEnd(error);
  }
}

/** 'r', written, flushed, applied, our clock, no answer wanted. */
function statusFrame(lsn: bigint, nowMs: number): Buffer {
  const frame = Buffer.alloc(34);
  frame[0] = 0x72;
  frame.writeBigUInt64BE(lsn, 1);
  frame.writeBigUInt64BE(lsn, 9);
  frame.writeBigUInt64BE(lsn, 17);
  frame.writeBigInt64BE(BigInt(Math.trunc(nowMs)) * 1000n - postgresEpochUs, 25);
  return frame;
}
