import type { Clock } from "../../clock.ts";
import type { Catalogue } from "../../event/catalogue.ts";
import type { Logger } from "../../log.ts";
import { repeat } from "../../pause.ts";
import type { Footing } from "../../store/capture-state.ts";
import type { Queryable } from "../../store/database.ts";
import { readSlotFacts } from "../../store/slot-facts.ts";
import { readCapturePlan } from "../check.ts";
import { computeHealth, healthProblems, remember, type HealthProblem, type History, type SlotHealth } from "../health.ts";
import { changedFooting, readFooting } from "./footing.ts";
import type { CaptureNames } from "./slot.ts";

export interface CaptureWatchOptions {
  readonly db: Queryable;
  readonly names: CaptureNames;
  readonly catalogue: Catalogue;
  /** Where the log ended when everything was last seen to be right. */
  readonly seenRight: SeenRight;
  readonly isCapturing: () => boolean;
  /** Something was taken from under capture: changes after `since` may be missing. */
  readonly onAltered: (what: string, since: SeenRight) => void;
  readonly onLook?: (() => void | Promise<void>) | undefined;
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface SeenRight {
  readonly lsn: bigint;
  readonly at: Date;
}

/**
 * In the process that leads: looks at the slot, and at what capture stands on, every few seconds. PostgreSQL 18 decodes on without a
 * publication that was dropped, and no version says that a table was taken out of one.
 */
export class CaptureWatch {
  readonly #options: CaptureWatchOptions;
  readonly #stopping = new AbortController();
  #history: History = [];
  #seenRight: SeenRight;
  /** Undefined before the first look that was right. */
  #footing: Footing | undefined;
  /** Codes of the problems that were logged. */
  #known = new Set<string>();
  #watching: Promise<void> | undefined;

  constructor(options: CaptureWatchOptions) {
    this.#options = options;
    this.#seenRight = options.seenRight;
  }

  /** Undefined before the first look. */
  get health(): SlotHealth | undefined {
    return computeHealth(this.#history);
  }

  get problems(): readonly HealthProblem[] {
    const { health } = this;
    return health === undefined ? [] : healthProblems(health);
  }

  start(): void {
    const { intervalMs: everyMs, onLook } = this.#options;
    const look = async (): Promise<void> => {
      try {
        await this.#look();
      } finally {
        await onLook?.();
      }
    };
    this.#watching = repeat(look, {
      everyMs,
      signal: this.#stopping.signal,
      // A database that does not answer is said by everything else; what was right last still counts.
      onFault: (error) => this.#options.log.debug({ err: error }, "could not look at the replication slot"),
    });
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#watching;
  }

  async #look(): Promise<void> {
    const { db, names, clock } = this.#options;
    // First the end of the log: what is right after it was read was right for all that is before it.
    const facts = await readSlotFacts(db, names.slot, clock.monotonicMs());
    this.#history = remember(this.#history, facts);
    this.#logChanges();
    if (!this.#options.isCapturing()) return;
    const what = await this.#alteration();
    if (this.#stopping.signal.aborted || !this.#options.isCapturing()) return;
    if (what === undefined) this.#seenRight = { lsn: facts.currentLsn, at: new Date(clock.nowMs()) };
    else this.#options.onAltered(what, this.#seenRight);
  }

  /** What was altered, in words; undefined where nothing was. */
  async #alteration(): Promise<string | undefined> {
    const { db, catalogue, names } = this.#options;
    // A slot that is gone is for the source to say: it knows up to where it has read.
    const lacks = (await readCapturePlan(db, catalogue, names)).filter(({ isNeeded, makesSlot }) => isNeeded && !makesSlot);
    const footing = await readFooting(db, catalogue, names);
    const changed = changedFooting(this.#footing ?? footing, footing);
    this.#footing = footing;
    if (lacks.length > 0)
      return `what capture stands on was changed while it ran; it lacks:\n${lacks.map(({ sql }) => `  ${sql};`).join("\n")}\n`;
    if (changed.length > 0) return `${changed.join(", ")}: a publication, or a table in it, was taken away and put back while capture ran.`;
    return undefined;
  }

  #logChanges(): void {
    const { log } = this.#options;
    const problems = this.problems;
    for (const { code, message, hint } of problems) if (!this.#known.has(code)) log.warn({ problem: code }, `${message} ${hint}`);
    const now = new Set<string>(problems.map(({ code }) => code));
    for (const code of this.#known) if (!now.has(code)) log.info({ problem: code }, "this has passed");
    this.#known = now;
  }
}
