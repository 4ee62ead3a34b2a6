import { expect, test } from "vitest";
import type { Catalogue } from "../event/catalogue.ts";
import { readCapturePlan } from "./check.ts";
import { captureNames } from "./wal/slot.ts";

test("a server that does not log what decoding needs is refused with the setting", async () => {
  const catalogue: Catalogue = { events: new Map(), tables: new Map(), allTables: new Map(), projectOf: () => "default" };
  // A running server cannot be brought to this.
  const db = { query: () => Promise.resolve({ rows: [{ wal_level: "replica" }] }) } as unknown as Parameters<typeof readCapturePlan>[0];
  await expect(readCapturePlan(db, catalogue, captureNames(1))).rejects.toThrow(
    expect.objectContaining({
      code: "ANCRAGE_NOT_MIGRATED",
      message: expect.stringContaining(`wal_level is "replica", expected "logical"`) as string,
      hint: expect.stringContaining("alter system set wal_level = 'logical'") as string,
    }),
  );
});
