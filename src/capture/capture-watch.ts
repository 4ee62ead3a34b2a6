import type { Clock } from "../clock.ts";
import type { Catalogue } from "../event/catalogue.ts";
import type { Logger } from "../log.ts";
import { repeat } from "../pause.ts";
import type { Footing } from "../store/capture-state.ts";
import type { Queryable } from "../store/database.ts";
import { readSettings } from "../store/settings.ts";
import { readSlotFacts } from "../store/slot-facts.ts";
import { readCapturePlan, readOutboxPlan } from "./check.ts";
import { changedFooting, readFooting, type Reads } from "./footing.ts";
import {
  computeHealth,
  formatDuration,
  healthProblems,
  remember,
  type HealthLimits,
  type HealthProblem,
  type History,
  type SlotHealth,
} from "./health.ts";
import type { CaptureNames, PlanStep } from "./wal/slot.ts";

export interface CaptureWatchOptions {
  readonly db: Queryable;
  readonly names: CaptureNames;
  readonly catalogue: Catalogue;
  /** Where changes are read now: `ancrage migrate` may switch while it runs. */
  readonly reads: () => Reads;
  /** Where the log ended when everything was last seen to be right. */
  readonly seenRight: SeenRight;
  readonly isCapturing: () => boolean;
  /** Something was taken from under capture: changes after `since` may be missing. */
  readonly onAltered: (what: string, since: SeenRight) => void;
  readonly onLook?: (() => void | Promise<void>) | undefined;
  readonly intervalMs: number;
  /** Default: the usual ones. */
  readonly limits?: Partial<HealthLimits> | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface SeenRight {
  readonly lsn: bigint;
  readonly at: Date;
}

/**
 * In the process that leads: looks at the slot, and at what capture stands on, every few seconds. PostgreSQL 18 decodes on without a
 * publication that was dropped, and no version says that a table was taken out of one, or that a trigger does not fire any more.
 */
export class CaptureWatch {
  readonly #options: CaptureWatchOptions;
  readonly #stopping = new AbortController();
  #history: History = [];
  #seenRight: SeenRight;
  /** Of the last look. */
  #reads: Reads | undefined;
  /** That of the log at the last look; undefined before the first, which compares with what a start, or a switch, has certified. */
  #footing: Footing | undefined;
  /** Partitions whose rows bring no old values, as of the last look. */
  #partial: readonly PlanStep[] = [];
  /** When the last look that came to its end began, or the first is made. */
  #lookedAtMs: number;
  /** Whether it was said that they fail. */
  #isBlind = false;
  /** Codes of the problems that were logged. */
  #known = new Set<string>();
  #watching: Promise<void> | undefined;

  constructor(options: CaptureWatchOptions) {
    this.#options = options;
    this.#seenRight = options.seenRight;
    this.#lookedAtMs = options.clock.monotonicMs();
  }

  /** Undefined before the first look. */
  get health(): SlotHealth | undefined {
    // Three looks tell a rate.
    return computeHealth(this.#history, 2 * this.#options.intervalMs);
  }

  get problems(): readonly HealthProblem[] {
    const { health } = this;
    const blindS = this.#blindMs / 1000;
    return [
      ...(health === undefined ? [] : [...healthProblems(health, this.#options.limits), ...partitionProblems(this.#partial)]),
      ...(blindS < blindAfterS ? [] : [captureUnwatched(blindS)]),
    ];
  }

  start(): void {
    const { intervalMs: everyMs, onLook, clock } = this.#options;
    const look = async (): Promise<void> => {
      const beganAtMs = clock.monotonicMs();
      try {
        await this.#look();
        this.#lookedAtMs = beganAtMs;
        if (this.#isBlind) this.#options.log.info("what capture stands on is looked at again");
        this.#isBlind = false;
      } finally {
        await onLook?.();
      }
    };
    this.#watching = repeat(look, {
      everyMs,
      signal: this.#stopping.signal,
      onFault: (error) => this.#noteFault(error),
    });
  }

  /** Idempotent, and safe before `start`. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#watching;
  }

  get #blindMs(): number {
    return this.#options.clock.monotonicMs() - this.#lookedAtMs;
  }

  /** A database that does not answer for a moment is said by everything else; what was right last still counts. */
  #noteFault(error: unknown): void {
    const isNew = !this.#isBlind && this.#blindMs / 1000 >= blindAfterS;
    this.#isBlind ||= isNew;
    const words = "could not look at what capture stands on";
    if (isNew) this.#options.log.warn({ err: error }, `${words} for ${formatDuration(this.#blindMs / 1000)}`);
    else this.#options.log.debug({ err: error }, words);
  }

  async #look(): Promise<void> {
    const { db, names, clock } = this.#options;
    const reads = this.#options.reads();
    // Looks at another place say nothing of this one.
    if (reads !== this.#reads) [this.#history, this.#footing, this.#partial, this.#reads] = [[], undefined, [], reads];
    // First the end of the log: what is right after it was read was right for all that is before it.
    const facts = await readSlotFacts(db, reads === "log" ? names.slot : undefined, clock.monotonicMs());
    this.#history = remember(this.#history, facts);
    this.#logChanges();
    if (!this.#options.isCapturing()) return;
    const what = await (reads === "log" ? this.#logAlteration() : this.#outboxAlteration());
    // What is switched meanwhile is looked at the next time: the triggers of an outbox that is left are gone.
    if (this.#stopping.signal.aborted || !this.#options.isCapturing() || this.#options.reads() !== reads) return;
    if (what === undefined) this.#seenRight = { lsn: facts.currentLsn, at: new Date(clock.nowMs()) };
    else this.#options.onAltered(what, this.#seenRight);
  }

  /** What was altered, in words; undefined where nothing was. */
  async #logAlteration(): Promise<string | undefined> {
    const { db, catalogue, names } = this.#options;
    // A switch to the outbox leaves the log's part to be read as it was published, and migrates no publication any more.
    const settings = await readSettings(db);
    if (settings?.capture !== "wal") return undefined;
    // A slot that is gone is for the source to say: it knows up to where it has read.
    const plan = (await readCapturePlan(db, catalogue, names)).filter(({ isNeeded, makesSlot }) => isNeeded && !makesSlot);
    const lacks = plan.filter(({ partition }) => partition === undefined);
    this.#partial = plan.filter(({ partition }) => partition !== undefined);
    const footing = await readFooting(db, { reads: "log", catalogue, names });
    const changed = changedFooting(this.#footing ?? settings.footings.log ?? {}, footing);
    this.#footing = footing;
    if (lacks.length > 0) return `what capture stands on was changed while it ran; it lacks:${statements(lacks)}`;
    if (changed.length > 0) return `${changed.join(", ")}: a publication, or a table in it, was taken away and put back while capture ran.`;
    return undefined;
  }

  /** What `ancrage migrate` changes of triggers, it writes down with it: that is none, also where this process is of before. */
  async #outboxAlteration(): Promise<string | undefined> {
    const { db, catalogue, names } = this.#options;
    const look = async (): Promise<readonly string[]> => {
      const settings = await readSettings(db);
      // A switch to the log takes the triggers away, and leaves what is in the outbox to be read.
      if (settings?.capture !== "outbox") return [];
      return changedFooting(settings.footings.outbox ?? {}, await readFooting(db, { reads: "outbox", catalogue, names }));
    };
    // It may have come between the two questions: a second look finds both as they are after it.
    if ((await look()).length === 0) return undefined;
    const changed = await look();
    if (changed.length === 0) return undefined;
    const lacks = (await readOutboxPlan(db, catalogue)).filter(({ isNeeded }) => isNeeded);
    return `${changed.join(", ")} was dropped, disabled or made anew while capture ran.${lacks.length > 0 ? ` It lacks:${statements(lacks)}` : ""}`;
  }

  #logChanges(): void {
    const { log } = this.#options;
    const problems = this.problems.filter(({ code }) => code !== "capture-unwatched");
    for (const { code, message, hint } of problems) if (!this.#known.has(code)) log.warn({ problem: code }, `${message} ${hint}`);
    const now = new Set<string>(problems.map(({ code }) => code));
    for (const code of this.#known) if (!now.has(code)) log.info({ problem: code }, "this has passed");
    this.#known = now;
  }
}

function partitionProblems(partial: readonly PlanStep[]): readonly HealthProblem[] {
  if (partial.length === 0) return [];
  const names = partial.map(({ partition }) => partition).join(", ");
  const message = `${names}: a partition without "replica identity full" of a table whose old values are read. An update or a delete there has no old values: what reads them is a rejection.`;
  return [{ code: "partition-identity", message, hint: `Run "ancrage migrate FOLDER", or:${statements(partial)}` }];
}

/** Six looks, as they come by default: what looks have to say is by then too old to be believed. */
const blindAfterS = 60;

const captureUnwatched = (blindS: number): HealthProblem => ({
  code: "capture-unwatched",
  message: `what capture stands on could not be looked at for ${formatDuration(blindS)}: what is said of the slot is as old, and an alteration would go unseen.`,
  hint: "The log says why: a right that was revoked, or a database that does not answer.",
});

const statements = (lacks: readonly PlanStep[]): string => `\n${lacks.map(({ sql }) => `  ${sql};`).join("\n")}\n`;
