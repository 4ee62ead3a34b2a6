import { expect, test } from "vitest";
import { refuseServer, refuseWalLevel } from "./check.ts";

const server = {
  databaseOid: 5,
  databaseName: "app",
  systemIdentifier: "7",
  timeline: 1,
  isReplica: false,
  flushLsn: "0/1",
  version: 180_000,
  walLevel: "logical",
  encoding: "UTF8",
};

// A running server cannot be brought to these.
test("a server that does not log what decoding needs is refused with the setting", () => {
  expect(() => refuseWalLevel({ walLevel: "replica" })).toThrow(
    expect.objectContaining({
      code: "ANCRAGE_NOT_MIGRATED",
      message: expect.stringContaining(`wal_level is "replica", expected "logical"`) as string,
      hint: expect.stringContaining("alter system set wal_level = 'logical'") as string,
    }),
  );
  expect(() => refuseWalLevel(server)).not.toThrow();
});

test("a server that is too old, and a replica, are refused", () => {
  expect(() => refuseServer(server)).not.toThrow();
  expect(() => refuseServer({ ...server, version: 140_011 })).toThrow("PostgreSQL 14 is too old: expected 15 or later");
  expect(() => refuseServer({ ...server, isReplica: true })).toThrow("this server is a replica, which takes no writes");
});
