import type pg from "pg";
import type { Logger } from "../../log.ts";
import { KeptSession } from "../../store/kept-session.ts";
import { readOutboxSizes, truncateOutbox, turnOutbox, type OutboxSizes } from "../../store/outbox.ts";

export interface OutboxTurnsOptions {
  readonly connectionString: string;
  /** Throws where the database is not the one of before: what was consumed is another one's. */
  readonly check: (client: pg.Client) => Promise<void>;
  readonly log: Logger;
}

/** A truncation waits for nobody; what has no answer by then has none coming. */
const answerWithinMs = 60_000;
/** Above this the other one is written, so that this one can be emptied: both together, with indexes, stay well under 20 MB. */
const turnBytes = 4 * 1024 * 1024;
/** What an empty table with its indexes takes, and some. */
const emptyBytes = 32 * 1024;
const tidyMs = 200;
/** The one that was written is emptied as soon as its last writers are through: what is written meanwhile goes into the other. */
const soonMs = 20;
const soonTimes = 10;
/** While the other cannot be emptied, a turn leads there only for a moment. */
const blockedTurnBytes = 6 * 1024 * 1024;

export type TurnStep = { readonly kind: "truncate"; readonly turn: "a" | "b" } | { readonly kind: "turn" } | { readonly kind: "nothing" };

/**
 * What to do about two tables of these sizes.
 *
 * A transaction that stays open keeps the one that it wrote from being emptied, for as long as it likes. Then the other is written for
 * most of the time, and the blocked one only while that is emptied.
 *
 * @param isBlocked the one that is not written could not be emptied a moment ago
 */
export function nextTurnStep({ turn, a, b }: OutboxSizes, isBlocked: boolean): TurnStep {
  const other = turn === "a" ? "b" : "a";
  const [written, unwritten] = turn === "a" ? [a, b] : [b, a];
  if (unwritten > emptyBytes && !isBlocked) return { kind: "truncate", turn: other };
  return written > (isBlocked ? blockedTurnBytes : turnBytes) ? { kind: "turn" } : { kind: "nothing" };
}

/** Keeps the outbox small: empties the one of its two tables that nobody writes, and lets them change places. */
export class OutboxTurns {
  readonly #options: OutboxTurnsOptions;
  readonly #session: KeptSession;
  /** All that is visible in it is in the journal. */
  #consumed: string | undefined;
  #failures = 0;
  #timer: NodeJS.Timeout | undefined;
  #tidying: Promise<void> | undefined;
  #isStopped = false;

  constructor(options: OutboxTurnsOptions) {
    this.#options = options;
    const { connectionString, check } = options;
    this.#session = new KeptSession({ connectionString, applicationName: "ancrage outbox turns", answerWithinMs, check });
  }

  start(): void {
    this.#tidyLater(tidyMs);
  }

  /** @param snapshot all that is visible in it is in the journal */
  consumed(snapshot: string): void {
    this.#consumed = snapshot;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    // What it was asked may have no answer for as long as `answerWithinMs`. Once more for one that was made meanwhile.
    await this.#session.end();
    await this.#tidying;
    await this.#session.end();
  }

  #tidyLater(ms: number): void {
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => {
      this.#tidying = this.#tidy();
    }, ms).unref();
  }

  async #tidy(): Promise<void> {
    try {
      const wasSoon = this.#consumed !== undefined && (await this.#step(this.#consumed));
      this.#tidyLater(wasSoon ? soonMs : tidyMs);
    } catch (error) {
      if (this.#isStopped) return;
      this.#options.log.warn({ err: error }, "the outbox could not be tidied; trying again");
      await this.#session.end();
      this.#tidyLater(5 * tidyMs);
    }
  }

  /** @returns whether to look again soon */
  async #step(consumed: string): Promise<boolean> {
    const db = await this.#session.get();
    const sizes = await readOutboxSizes(db);
    let step = nextTurnStep(sizes, false);
    if (step.kind === "truncate") {
      if (await truncateOutbox(db, step.turn, consumed)) {
        this.#failures = 0;
        return true;
      }
      this.#failures++;
      if (this.#failures < soonTimes) return true;
      step = nextTurnStep(sizes, true);
    }
    if (step.kind !== "turn") return false;
    await turnOutbox(db);
    this.#failures = 0;
    return true;
  }
}
