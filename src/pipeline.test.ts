import { pino } from "pino";
import { expect, test, vi } from "vitest";
import { startOfLog, type ChangeSource } from "./capture/change.ts";
import type { Dispatcher } from "./deliver/dispatcher.ts";
import type { Catalogue } from "./event/catalogue.ts";
import type { Batch, Journal } from "./journal/journal.ts";
import type { DeliveryUpdate } from "./message.ts";
import { Pipeline, type PipelineOptions } from "./pipeline.ts";
import { createRegistry } from "./subscription/registry.ts";

const update: DeliveryUpdate = {
  row: {
    messageId: "msg_1",
    subscriptionId: "sub_1",
    project: "default",
    state: "delivered",
    round: 1,
    attempts: 1,
    nextAttemptAtMs: undefined,
    lastStatus: 200,
    lastReason: undefined,
    durationMs: 1,
    updatedAtMs: 0,
  },
  from: undefined,
  attempt: undefined,
  batch: undefined,
};

/** A pipeline whose source has nothing to give. */
const pipelineOf = (journal: object, over: Partial<ChangeSource> = {}, more: Partial<PipelineOptions> = {}): Pipeline => {
  const source: Partial<ChangeSource> = {
    sourceId: "test",
    hasWork: () => false,
    onWork: () => undefined,
    idleLsn: () => undefined,
    confirm: () => undefined,
    stop: () => Promise.resolve(),
    ...over,
  };
  const options: Partial<PipelineOptions> = {
    source: source as ChangeSource,
    catalogue: { events: new Map(), tables: new Map() } as unknown as Catalogue,
    payload: {} as PipelineOptions["payload"],
    journal: journal as Journal,
    registry: createRegistry(),
    dispatcher: { journaled: () => undefined, room: () => Promise.resolve() } as unknown as Dispatcher,
    onFailure: () => undefined,
    maxOccurrences: 10,
    clock: { nowMs: () => 0, monotonicMs: () => performance.now() },
    log: pino({ level: "silent" }),
    ...more,
  };
  return new Pipeline(options as PipelineOptions);
};

test("a keepalive that comes during a commit is not confirmed by it", async () => {
  let idleLsn = 100n;
  const confirmed: bigint[] = [];
  const committed: bigint[] = [];
  let pipeline: Pipeline | undefined;
  const journal = {
    journaled: startOfLog,
    endLsn: 0n,
    async commit(batch: Batch) {
      if (committed.length === 0) {
        // The log goes on meanwhile, and outcomes come: each of them sets the timer that looks at the idle position.
        idleLsn = 200n;
        pipeline?.record(update);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      committed.push(batch.endLsn);
      this.endLsn = batch.endLsn;
      return [];
    },
  };
  pipeline = pipelineOf(journal, { idleLsn: () => idleLsn, confirm: (lsn) => confirmed.push(lsn) });
  pipeline.start(0n);
  pipeline.record(update);
  await pipeline.flushed();
  expect(committed[0]).toBe(100n);
  expect(confirmed[0]).toBe(100n);
  await pipeline.stop();
  expect(confirmed).toEqual(committed);
});

test("who waits for a batch is told where its commit fails", async () => {
  const stopped: string[] = [];
  const journal = {
    journaled: startOfLog,
    endLsn: 0n,
    commit: () => Promise.reject(new Error("superseded")),
    stop: async () => void stopped.push("journal"),
  };
  const pipeline = pipelineOf(journal, { stop: async () => void stopped.push("source") });
  pipeline.start(0n);
  pipeline.record(update);
  await expect(pipeline.flushed()).rejects.toThrow("the pipeline has ended");
  await pipeline.stop();
  expect(stopped).toEqual(["source", "journal"]);
});

test("a source that is behind a dead network does not hold up the lead of the next one", async () => {
  vi.useFakeTimers();
  try {
    const given = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    const journal = {
      journaled: startOfLog,
      endLsn: 0n,
      commit: () => Promise.reject(new Error("superseded")),
      stop: async () => given.resolve(),
    };
    const pipeline = pipelineOf(journal, { stop: () => gone.promise });
    pipeline.start(0n);
    pipeline.record(update);
    await expect(pipeline.flushed()).rejects.toThrow("the pipeline has ended");
    await vi.advanceTimersByTimeAsync(2_000);
    await given.promise;
    gone.resolve();
    await pipeline.stop();
  } finally {
    vi.useRealTimers();
  }
});

test("and where what comes after the commit fails", async () => {
  const journal = { journaled: startOfLog, endLsn: 0n, commit: () => Promise.resolve([]), stop: () => Promise.resolve() };
  const confirm = (): never => {
    throw new Error("a bug");
  };
  const pipeline = pipelineOf(journal, { confirm });
  pipeline.start(0n);
  pipeline.record(update);
  await expect(pipeline.flushed()).rejects.toThrow("the pipeline has ended");
  await pipeline.stop();
});

test.each([
  [1, 1_000],
  [200, 50],
  [100_000, 32],
])(
  "where an event has %i subscriptions, a batch takes %i changes: the event loop is not held by what they become",
  async (widest, most) => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const take = (limit: number): Promise<never> => {
      resolve(limit);
      return Promise.reject(new Error("that was all"));
    };
    const registry = { ...createRegistry(), widest };
    const pipeline = pipelineOf({ journaled: startOfLog, endLsn: 0n }, { hasWork: () => true, take }, { registry, maxOccurrences: 1_000 });
    pipeline.start(0n);
    expect(await promise).toBe(most);
    await pipeline.stop();
  },
);
