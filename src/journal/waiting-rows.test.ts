import { pino } from "pino";
import { expect, test } from "vitest";
import type { DeliveryUpdate } from "../message.ts";
import { isUntouched, WaitingRows } from "./waiting-rows.ts";

const row = (messageId: string): DeliveryUpdate =>
  ({ row: { messageId, subscriptionId: "sub", state: "pending", round: 1, attempts: 0 } }) as DeliveryUpdate;
const outcome = (messageId: string): DeliveryUpdate =>
  ({
    row: { messageId, subscriptionId: "sub", state: "delivered", round: 1, attempts: 1 },
    from: { state: "pending", attempts: 0 },
  }) as DeliveryUpdate;
const idsOf = (updates: readonly DeliveryUpdate[]): readonly string[] => updates.map(({ row: { messageId } }) => messageId);

/** A database whose answers the test gives. */
function createRows(): {
  readonly rows: WaitingRows;
  readonly asked: { readonly ids: readonly string[]; readonly resolve: () => void; readonly reject: (error: Error) => void }[];
  readonly written: string[];
} {
  const asked: ReturnType<typeof createRows>["asked"] = [];
  const written: string[] = [];
  const rows = new WaitingRows({
    write: (updates) => new Promise((resolve, reject) => asked.push({ ids: idsOf(updates), resolve, reject })),
    onWritten: (updates) => written.push(...idsOf(updates)),
    onRefused: () => undefined,
    log: pino({ level: "silent" }),
  });
  return { rows, asked, written };
}

/** Lets what was resolved be heard. */
const heard = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("what waits is written together, a statement at a time", async () => {
  const { rows, asked, written } = createRows();
  rows.add(row("a"));
  rows.add(row("b"));
  const first = rows.flushed();
  await heard();
  rows.add(row("c"));
  const second = rows.flushed();
  await heard();
  expect(asked.map(({ ids }) => ids)).toEqual([["a", "b"]]);
  asked[0]?.resolve();
  await first;
  expect(written).toEqual(["a", "b"]);
  await heard();
  asked[1]?.resolve();
  await second;
  expect(written).toEqual(["a", "b", "c"]);
});

test("what came of a delivery takes its row along; while that is being written, it waits", async () => {
  const { rows, asked, written } = createRows();
  rows.add(row("a"));
  const flushed = rows.flushed();
  await heard();
  rows.add(row("b"));
  rows.add(row("c"));
  let claimed: readonly DeliveryUpdate[] | undefined;
  const claim = rows.claim([outcome("a"), outcome("b"), outcome("z")]).then((given) => (claimed = given));
  await heard();
  expect(claimed).toBeUndefined();
  asked[0]?.resolve();
  await Promise.all([flushed, claim]);
  expect(idsOf(claimed ?? [])).toEqual(["b"]);
  const rest = rows.flushed();
  await heard();
  asked[1]?.resolve();
  await rest;
  expect(written).toEqual(["a", "c"]);
});

test("what is refused goes with the next batch, whatever that carries, and nothing is written before", async () => {
  const { rows, asked } = createRows();
  rows.add(row("a"));
  const flushed = rows.flushed();
  await heard();
  asked[0]?.reject(new Error("no such partition"));
  await flushed;
  expect(rows.isRefused).toBe(true);
  rows.add(row("b"));
  await rows.flushed();
  expect(asked).toHaveLength(1);
  expect(idsOf(await rows.claim([]))).toEqual(["a", "b"]);
  expect(rows.isRefused).toBe(false);
});

test("a stop gives out what has no row, what was under way included", async () => {
  const { rows, asked } = createRows();
  rows.add(row("a"));
  const flushed = rows.flushed();
  await heard();
  rows.add(row("b"));
  const stopped = rows.stop();
  asked[0]?.reject(new Error("stopped"));
  await flushed;
  expect(idsOf(await stopped)).toEqual(["a", "b"]);
});

test("only a first row of which nothing else is known may wait", () => {
  expect(isUntouched(row("a"))).toBe(true);
  expect(isUntouched(outcome("a"))).toBe(false);
  expect(isUntouched({ ...row("a"), row: { ...row("a").row, nextAttemptAtMs: 1 } })).toBe(false);
  expect(isUntouched({ ...row("a"), row: { ...row("a").row, jobId: "job_1" } })).toBe(false);
});
