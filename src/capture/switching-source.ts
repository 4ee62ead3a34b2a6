import { AncrageError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Captured, ChangeSource, ResumePoint } from "./change.ts";
import { computeOutboxResume, endOfTransaction, formatCursor, parseCursor, startOfOutbox } from "./outbox/cursor.ts";
import type { OutboxSource } from "./outbox/source.ts";
import type { WalSource } from "./wal/source.ts";

export interface SwitchingSourceOptions {
  readonly sourceId: string;
  readonly wal: (how: { readonly isFromSwitch: boolean }) => WalSource;
  readonly outbox: () => OutboxSource;
  /** Where a start without a cursor begins. */
  readonly first: "wal" | "outbox";
  /** Called once the end of the log's part is in the journal: nothing reads a slot any more that stands there or before it. */
  readonly onLogLeft: (endLsn: bigint) => Promise<void>;
  readonly log: Logger;
}

const retryMs = 1_000;

/**
 * The log, or the outbox; and from one to the other where `ancrage migrate` has switched.
 *
 * The transaction of the switch has a mark. What was committed before it is where changes were written until then, what is committed
 * after it where they are written from then on; nothing is in both, and nothing in neither. See docs/decisions/0010.
 */
export class SwitchingSource implements ChangeSource {
  readonly sourceId: string;
  readonly #options: SwitchingSourceOptions;
  #wal: WalSource | undefined;
  #outbox: OutboxSource | undefined;
  /** The last one that was to read. While it begins, `stop` finds it here alone: it may wait for the slot, or for a dead network. */
  #starting: ChangeSource | undefined;
  /** Of what was taken last. */
  #cursor: string | undefined;
  /** What the log's part ended with; what is confirmed from there on lets the slot go. */
  #logEndLsn: bigint | undefined;
  #leaving: Promise<void> | undefined;
  /** Runs after a change of source that failed: nothing is work until then. */
  #timer: NodeJS.Timeout | undefined;
  #listener: (() => void) | undefined;
  #isStopped = false;

  constructor(options: SwitchingSourceOptions) {
    this.#options = options;
    this.sourceId = options.sourceId;
  }

  async start(resume: ResumePoint): Promise<void> {
    const { cursor, journaled } = resume;
    this.#cursor = cursor;
    if (cursor === undefined ? this.#options.first === "wal" : computeOutboxResume(parseCursor(cursor), journaled).isSwitched === true) {
      await this.#startWal(resume, cursor !== undefined);
    } else {
      await this.#startOutbox(resume);
      // Where the log comes next, its slot is the one that was made for that.
      if (cursor !== undefined && this.#options.first === "outbox") this.#leaving = this.#options.onLogLeft(resume.endLsn);
    }
  }

  hasWork(): boolean {
    if (this.#timer !== undefined) return false;
    return this.#source?.hasWork() === true || this.#wal?.switched !== undefined || this.#isOutboxOver;
  }

  onWork(listener: () => void): void {
    this.#listener = listener;
    this.#source?.onWork(() => this.#wake());
  }

  async take(limit: number): Promise<readonly Captured[]> {
    if (this.#timer !== undefined) return [];
    const wal = this.#wal;
    if (wal !== undefined) {
      if (wal.switched !== undefined) return await this.#toOutbox(wal);
      const wasBefore = this.#cursor !== undefined;
      // The mark's transaction alone: with it the journal says that the outbox is left.
      const items = await wal.take(wasBefore ? 1 : limit);
      if (items.length > 0) this.#cursor = undefined;
      return items;
    }
    if (this.#isOutboxOver) return await this.#toWal();
    const outbox = this.#outbox;
    if (outbox === undefined) return [];
    const items = await outbox.take(limit);
    this.#cursor = outbox.cursor();
    return items;
  }

  confirm(lsn: bigint): void {
    // Until the mark of the switch is in the journal, that is the outbox's: confirmed to the log, it could lie behind the mark.
    if (this.#wal === undefined || this.#cursor === undefined) this.#source?.confirm(lsn);
    if (this.#logEndLsn === undefined || lsn < this.#logEndLsn) return;
    this.#leaving = this.#options.onLogLeft(this.#logEndLsn);
    this.#logEndLsn = undefined;
  }

  idleLsn(): bigint | undefined {
    // Before the mark the log's positions are of what the outbox has.
    return this.#wal?.isBeforeSwitch === true ? undefined : this.#source?.idleLsn();
  }

  cursor(): string | undefined {
    return this.#outbox?.cursor() ?? this.#cursor;
  }

  get reads(): "log" | "outbox" {
    if (this.#wal !== undefined) return "log";
    return this.#outbox === undefined && this.#options.first === "wal" ? "log" : "outbox";
  }

  get ignoredMarks(): number {
    return (this.#wal ?? this.#outbox)?.ignoredMarks ?? 0;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#starting?.stop();
    await this.#wal?.stop();
    await this.#outbox?.stop();
    await this.#leaving;
  }

  /** Undefined where a start found its slot lost: delivery goes on, and asks all the same. */
  get #source(): ChangeSource | undefined {
    return this.#wal ?? this.#outbox;
  }

  get #isOutboxOver(): boolean {
    return this.#outbox?.switched !== undefined && !this.#outbox.hasWork();
  }

  /** @returns the end of the transaction that switched: in the journal it says, with the cursor, that the outbox goes on */
  async #toOutbox(wal: WalSource): Promise<readonly Captured[]> {
    const { switched } = wal;
    if (switched === undefined) return [];
    const { commitLsn } = switched.transaction;
    const cursor = formatCursor({ from: startOfOutbox(switched.endLsn) });
    const at = { commitLsn, changeLsn: endOfTransaction, ordinal: 0 };
    return await this.#change(async () => {
      await this.#startOutbox({ endLsn: switched.endLsn, journaled: at, cursor });
      this.#wal = undefined;
      this.#cursor = cursor;
      this.#logEndLsn = switched.endLsn;
      await wal.stop();
      this.#options.log.info("changes are read from the outbox from here on");
      return [switched];
    });
  }

  async #toWal(): Promise<readonly Captured[]> {
    const outbox = this.#outbox as OutboxSource;
    return await this.#change(async () => {
      await this.#startWal({ endLsn: 0n, journaled: outbox.endPosition }, true);
      this.#outbox = undefined;
      await outbox.stop();
      this.#options.log.info("changes are read from the log from here on");
      return [];
    });
  }

  async #change(work: () => Promise<readonly Captured[]>): Promise<readonly Captured[]> {
    try {
      return await work();
    } catch (error) {
      if (this.#isStopped) return [];
      if (error instanceof AncrageError && error.code === "ANCRAGE_SLOT_LOST") throw error;
      this.#options.log.warn({ err: error }, "could not go on where changes were switched to; trying again");
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#wake();
      }, retryMs).unref();
      return [];
    }
  }

  async #startWal(resume: ResumePoint, isFromSwitch: boolean): Promise<void> {
    const wal = this.#options.wal({ isFromSwitch });
    // Where the outbox ended may lie behind the mark: the log is asked from where its slot stands.
    await this.#begin(wal, isFromSwitch ? { ...resume, endLsn: 0n } : resume);
    this.#wal = wal;
  }

  async #startOutbox(resume: ResumePoint): Promise<void> {
    const outbox = this.#options.outbox();
    await this.#begin(outbox, resume);
    this.#outbox = outbox;
  }

  /** @throws where `stop` was called meanwhile: then nothing holds the slot any more, or a session */
  async #begin(source: ChangeSource, resume: ResumePoint): Promise<void> {
    if (this.#isStopped) throw stoppedMeanwhile();
    this.#starting = source;
    try {
      await source.start(resume);
      if (this.#isStopped) throw stoppedMeanwhile();
    } catch (error) {
      await source.stop();
      throw error;
    }
  }

  #wake(): void {
    const listener = this.#listener;
    this.#listener = undefined;
    listener?.();
  }
}

const stoppedMeanwhile = (): Error => new Error("the source was stopped before it could begin to read");
