import { pino } from "pino";
import { expect, test } from "vitest";
import { AncrageError } from "../errors.ts";
import { startOfLog } from "./change.ts";
import { SwitchingSource } from "./switching-source.ts";
import type { WalSource } from "./wal/source.ts";

const resume = { endLsn: 0n, journaled: startOfLog };

/** One that begins with the log, as far as that can be read. */
const switchingOf = (wal: Pick<WalSource, "start" | "stop">): SwitchingSource =>
  new SwitchingSource({
    sourceId: "test",
    first: "wal",
    wal: () => wal as WalSource,
    outbox: () => expect.fail("nothing was switched"),
    onLogLeft: () => Promise.resolve(),
    log: pino({ level: "silent" }),
  });

test("one whose slot was refused is still asked by what delivers, and has nothing", async () => {
  const lost = new AncrageError("ANCRAGE_SLOT_LOST", "it is gone.");
  const source = switchingOf({ start: () => Promise.reject(lost), stop: () => Promise.resolve() });
  await expect(source.start(resume)).rejects.toBe(lost);
  await source.stop();
  source.onWork(() => expect.fail("it has no work"));
  source.confirm(1n);
  expect([source.hasWork(), source.idleLsn(), source.cursor(), source.reads, await source.take(1)]).toEqual([
    false,
    undefined,
    undefined,
    "log",
    [],
  ]);
});

test("one that is stopped while it begins ends what it begins with, also where that has just begun; it begins with nothing after", async () => {
  const begun = Promise.withResolvers<void>();
  let isReading = false;
  const wal = {
    start: async () => {
      await begun.promise;
      isReading = true;
    },
    stop: async () => {
      isReading = false;
      begun.resolve();
    },
  };
  const source = switchingOf(wal);
  const started = Promise.allSettled([source.start(resume)]);
  await source.stop();
  expect(await started).toMatchObject([{ status: "rejected", reason: { message: expect.stringContaining("stopped before") } }]);
  expect(isReading).toBe(false);
  await expect(source.start(resume)).rejects.toThrow("stopped before it could begin");
});
