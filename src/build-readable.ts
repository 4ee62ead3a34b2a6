import type { Clock } from "./clock.ts";
import { delayOf, faultDelaysMs } from "./delay-of.ts";
import type { Logger } from "./log.ts";
import type { Occurrence } from "./match.ts";
import { pause } from "./pause.ts";
import { buildApart } from "./payload/build-apart.ts";
import { buildPayloads, type Payload, type PayloadDeps } from "./payload/build.ts";
import { BatchFault } from "./payload/fault.ts";
import { leaveUnread, readLacking, type Lacking } from "./payload/read-lacking.ts";
import type { TestSignal } from "./test-signal.ts";

/** A batch that is built again and again, and all that was committed after it with it. */
export interface Held {
  readonly since: Date;
  /** Whose reads failed; none where PostgreSQL does not answer at all. */
  readonly events: readonly string[];
  /** PostgreSQL's words. */
  readonly because: string;
  /** When what runs out of time is rejected, so that the rest goes on; undefined where waiting is all there is to do. */
  readonly until: Date | undefined;
}

export interface ReadableBuilder {
  /** @returns undefined where it was to stop while the database could not be read */
  build(occurrences: readonly Occurrence[], deps: PayloadDeps): Promise<readonly Payload[] | undefined>;
  /**
   * Reads what rules and handlers asked of these records in vain (`payload/read-lacking.ts`), again and again as `build` does. What runs
   * out of time for so long stays unread.
   *
   * @returns undefined where it was to stop
   */
  read(records: readonly LackingOfEvents[], deps: PayloadDeps): Promise<true | undefined>;
  /** Undefined while batches are built. */
  held(): Held | undefined;
  /** Events whose reads have run out of time for so long that each is rejected at once; since when. One that succeeds ends it. */
  slow(): ReadonlyMap<string, Date>;
}

/** With the events and files whose code asks. */
export interface LackingOfEvents extends Lacking {
  readonly events: readonly string[];
}

export interface ReadableBuilderOptions {
  readonly clock: Pick<Clock, "nowMs" | "monotonicMs">;
  readonly log: Logger;
  /** Aborted when what cannot be read is to be given up. */
  readonly stopping: AbortSignal;
  readonly signal?: TestSignal | undefined;
  /** How long reads that run out of time are waited for. @default two minutes */
  readonly readPatienceMs?: number | undefined;
}

/** A lock of a migration, or a moment of load, is over by then; beyond it the query itself is too slow, and all others wait for it. */
const defaultPatienceMs = 120_000;
/** What passes within the first tries is nothing to show. */
const shownFromAttempt = 2;

/**
 * Builds payloads; a database that cannot be read just now makes no rejection, the batch is built again until it can.
 *
 *   building ──fault──► held: again and again ──timeouts for two minutes──► the events whose reads they are, apart from the others:
 *      ▲                  │                                                 what runs out of time is rejected, the rest goes on
 *      └──── built ───────┘
 *
 * An event that was told apart stays so until one of its occurrences is built: its next ones hold nobody up for two minutes more.
 */
export function createReadableBuilder(options: ReadableBuilderOptions): ReadableBuilder {
  const { clock, log, stopping, signal, readPatienceMs: patienceMs = defaultPatienceMs } = options;
  let held: Held | undefined;
  const slow = new Map<string, Date>();

  /** Events that are slow each by itself; all others together. */
  const buildOnce = async (
    occurrences: readonly Occurrence[],
    deps: PayloadDeps,
    wereSlow: ReadonlySet<string>,
  ): Promise<readonly Payload[]> => {
    if (slow.size === 0) return await buildPayloads(occurrences, deps);
    const payloads = Array.from<Payload>({ length: occurrences.length });
    const put = (indices: readonly number[], built: readonly Payload[]): void => {
      for (const [at, index] of indices.entries()) {
        const payload = built[at];
        if (payload !== undefined) payloads[index] = payload;
      }
    };
    const byName = Map.groupBy(occurrences.keys(), (index) => {
      const name = occurrences[index]?.event.name ?? "";
      return slow.has(name) ? name : undefined;
    });
    const of = (indices: readonly number[]): Occurrence[] => indices.flatMap((index) => occurrences[index] ?? []);
    const others = byName.get(undefined) ?? [];
    put(others, await buildPayloads(of(others), deps));
    for (const [name, indices] of byName) {
      if (name === undefined) continue;
      const built = await buildApart(of(indices), deps, wereSlow.has(name) ? 1 : undefined);
      put(indices, built);
      if (built.some(({ kind }) => kind !== "rejected")) slow.delete(name);
    }
    return payloads;
  };

  /** @param onPatienceOver what runs out of time is not waited for any longer */
  const insist = async <Result>(
    work: () => Promise<Result>,
    onPatienceOver: (events: readonly string[]) => void,
  ): Promise<Result | undefined> => {
    const since = new Date(clock.nowMs());
    /** When the reads of an event first ran out of time: else the second one would get what the first has left of its patience. */
    const firstMs = new Map<string, number>();
    for (let attempt = 0; ; attempt++) {
      try {
        const result = await work();
        held = undefined;
        return result;
      } catch (error) {
        if (!(error instanceof BatchFault)) throw error;
        if (stopping.aborted) return undefined;
        const { events, words: because } = error;
        const told = isTellable(error) ? events : [];
        for (const event of told) firstMs.set(event, firstMs.get(event) ?? clock.monotonicMs());
        const leftMs = (event: string): number => (firstMs.get(event) ?? 0) + patienceMs - clock.monotonicMs();
        const until = told.length === 0 ? undefined : new Date(clock.nowMs() + Math.min(...told.map(leftMs)));
        if (attempt >= shownFromAttempt) held = { since, events, because, until };
        log.warn({ err: error.cause, events }, "a batch is built again: the database could not be read");
        await signal?.("rebuilding", error);
        const over = told.filter((event) => leftMs(event) <= 0);
        if (over.length > 0) {
          log.error(
            { events: over },
            "reads of these events do not come to their end; what does not is rejected from now on, so that the rest goes on",
          );
          onPatienceOver(over);
        } else await pause(delayOf(faultDelaysMs, attempt), stopping);
      }
    }
  };

  return {
    held: () => held,
    slow: () => slow,
    build(occurrences, deps) {
      const wereSlow: ReadonlySet<string> = new Set(slow.keys());
      return insist(
        () => buildOnce(occurrences, deps, wereSlow),
        (events) => {
          for (const event of events) slow.set(event, new Date(clock.nowMs()));
        },
      );
    },
    read(records, { readers }) {
      let words = "";
      const work = async (): Promise<true> => {
        try {
          await readLacking(records, readers);
        } catch (error) {
          if (error instanceof BatchFault) {
            words = error.words;
            error.events = [...new Set(records.flatMap(({ events }) => events))];
          }
          throw error;
        }
        return true;
      };
      // It is not asked for again after that: whatever reads it is told so.
      return insist(work, () => leaveUnread(records, `it did not end in time (${words})`));
    },
  };
}

/** Whether it is some events' reads alone that do not come to their end. */
const isTellable = ({ isOfStatement, events }: BatchFault): boolean => isOfStatement && events.length > 0;
