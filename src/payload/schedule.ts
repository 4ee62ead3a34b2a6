import type { BatchFault } from "./fault.ts";

/**
 * Runs the functions of a batch, at most `places` at once.
 *
 *        start ──► running (holds a place) ──► ended
 *                    │          ▲
 *   load or sql call │          │ answered, and a place is free
 *                    ▼          │
 *                   waiting (holds none; its clock stands still)
 *
 * A function that waits for the database gives its place to the next one, so that all of a batch come to the same `load` before
 * its query is sent. Whatever returns without waiting costs two increments and no promise.
 */
export interface Run {
  readonly index: number;
  /** Written here only: by `enter` and `leave`. */
  holdsPlace: boolean;
  /** Set once by whatever came first: its result, its deadline, or a fault of the batch. */
  isOver: boolean;
  /** While it holds a place: when its time is up. */
  deadlineAt: number;
  /** While it waits: what was left of its time. */
  remainingMs: number;
  /** Calls to the database that have no answer yet. */
  openWaits: number;
  /** Its answers that lack only a place. One place lets all of them through: a function may wait for several at once. */
  answered: (() => void)[] | undefined;
}

export interface ScheduleOptions<T> {
  readonly count: number;
  readonly places: number;
  readonly timeoutMs: number;
  /** Begins the function of this index. Never throws, and its promise never rejects, but for bugs of ours. */
  readonly begin: (run: Run, schedule: Schedule) => T | Promise<T>;
  /** The result of a run whose time was up. */
  readonly timedOut: (index: number) => T;
}

export interface Schedule {
  /** Waits for a call to the database without a place. */
  wait<V>(run: Run, call: () => Promise<V>): Promise<V>;
  /** Calls `dispatch` once a turn of the event loop brought no further call and let no further function start. */
  whenQuiet(dispatch: () => void): void;
  /** Ends the batch: no result of it counts. */
  fail(fault: BatchFault): void;
}

/**
 * Runs them all and returns their results by index.
 *
 * @throws BatchFault as soon as `fail` was called
 */
export function runAll<T>(options: ScheduleOptions<T>): Promise<readonly T[]> {
  const { count, places, timeoutMs, begin, timedOut } = options;
  const results = Array.from<T>({ length: count });
  return new Promise((resolve, reject) => {
    let started = 0;
    let ended = 0;
    let running = 0;
    let isOver = false;
    let isPumping = false;
    let isPumpPlanned = false;
    /** Counts calls and starts; two equal readings a turn apart mean that the turn was quiet. */
    let activity = 0;
    let dispatches: (() => void)[] = [];
    /** Functions whose answer is there and who lack a place; served before any further one starts. */
    let resuming: Run[] = [];
    /** Those that returned a promise. */
    const unfinished = new Set<Run>();
    let sweepTimer: NodeJS.Timeout | undefined;

    const schedule: Schedule = { wait, whenQuiet, fail };
    pump();

    function pump(): void {
      isPumpPlanned = false;
      if (isOver || isPumping) return;
      isPumping = true;
      grantPlaces();
      // A batch that was given up has set `started` to `count`.
      while (running < places && started < count) start(started++);
      isPumping = false;
      if (unfinished.size > 0 && sweepTimer === undefined && !isOver) sweepTimer = setTimeout(sweep, sweepMs(timeoutMs));
      finishIfDone();
    }

    function start(index: number): void {
      const run: Run = { index, holdsPlace: true, isOver: false, deadlineAt: 0, remainingMs: timeoutMs, openWaits: 0, answered: undefined };
      running++;
      activity++;
      let result: T | Promise<T>;
      try {
        result = begin(run, schedule);
      } catch (bug) {
        abandon(bug);
        return;
      }
      if (result instanceof Promise) {
        // Only now: reading the clock for every function that returns at once would cost more than running it.
        if (run.holdsPlace) run.deadlineAt = performance.now() + run.remainingMs;
        unfinished.add(run);
        result.then(
          (value) => end(run, value),
          (bug: unknown) => abandon(bug),
        );
      } else {
        end(run, result);
      }
    }

    function end(run: Run, result: T): void {
      if (run.isOver) return;
      run.isOver = true;
      results[run.index] = result;
      ended++;
      unfinished.delete(run);
      letThrough(run);
      leave(run);
      finishIfDone();
    }

    function finishIfDone(): void {
      if (isOver || isPumping || ended < count) return;
      isOver = true;
      clearTimeout(sweepTimer);
      resolve(results);
    }

    function fail(fault: BatchFault): void {
      abandon(fault);
    }

    function abandon(error: unknown): void {
      if (isOver) return;
      isOver = true;
      started = count;
      clearTimeout(sweepTimer);
      for (const run of unfinished) run.isOver = true;
      for (const run of resuming) letThrough(run);
      reject(error);
    }

    function leave(run: Run): void {
      if (!run.holdsPlace) return;
      run.holdsPlace = false;
      running--;
      // Not in this stack: the function that just gave its place up would else carry the next one's.
      if (isPumping || isPumpPlanned || (resuming.length === 0 && started >= count)) return;
      isPumpPlanned = true;
      queueMicrotask(pump);
    }

    function enter(run: Run): void {
      run.holdsPlace = true;
      // The clock stands still while it waits for another answer.
      run.deadlineAt = run.openWaits > 0 ? Number.POSITIVE_INFINITY : performance.now() + run.remainingMs;
      running++;
      activity++;
      letThrough(run);
    }

    function grantPlaces(): void {
      let granted = 0;
      for (const run of resuming) {
        // Another answer may have found a free place meanwhile, or its time was up.
        if (!run.isOver && !run.holdsPlace) {
          if (running >= places) break;
          enter(run);
        }
        granted++;
      }
      if (granted > 0) resuming = resuming.slice(granted);
    }

    function letThrough(run: Run): void {
      const { answered } = run;
      run.answered = undefined;
      for (const resume of answered ?? []) resume();
    }

    async function wait<V>(run: Run, call: () => Promise<V>): Promise<V> {
      if (run.isOver || isOver) throw new Error("load and sql end with the payload function: this one had already returned or timed out");
      activity++;
      const answer = call();
      if (run.holdsPlace) {
        if (run.deadlineAt > 0 && run.openWaits === 0) run.remainingMs = run.deadlineAt - performance.now();
        leave(run);
      }
      run.openWaits++;
      try {
        return await answer;
      } finally {
        run.openWaits--;
        if (run.holdsPlace && run.openWaits === 0) run.deadlineAt = performance.now() + run.remainingMs;
        if (!run.holdsPlace && !run.isOver && !isOver) {
          if (running < places) enter(run);
          else await new Promise<void>((resume) => queueAnswer(run, resume));
        }
      }
    }

    function queueAnswer(run: Run, resume: () => void): void {
      if (run.answered !== undefined) {
        run.answered.push(resume);
        return;
      }
      run.answered = [resume];
      resuming.push(run);
    }

    function whenQuiet(dispatch: () => void): void {
      if (dispatches.push(dispatch) === 1) setImmediate(dispatchIfQuiet, activity);
    }

    function dispatchIfQuiet(seen: number): void {
      // What nobody waits for any more is not asked.
      if (isOver) return;
      if (activity !== seen) {
        setImmediate(dispatchIfQuiet, activity);
        return;
      }
      const due = dispatches;
      dispatches = [];
      for (const dispatch of due) dispatch();
    }

    /** One timer a batch, not one a function: late by a tenth at most. */
    function sweep(): void {
      sweepTimer = undefined;
      const now = performance.now();
      for (const run of unfinished) if (run.holdsPlace && run.deadlineAt <= now) end(run, timedOut(run.index));
      if (unfinished.size > 0 && !isOver) sweepTimer = setTimeout(sweep, sweepMs(timeoutMs));
    }
  });
}

function sweepMs(timeoutMs: number): number {
  return Math.min(Math.max(timeoutMs / 10, 5), 1_000);
}
