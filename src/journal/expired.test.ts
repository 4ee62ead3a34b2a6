import { expect, test } from "vitest";
import type { Partition } from "../store/retention.ts";
import { addDays, computeExpired } from "./expired.ts";

const of = (parent: Partition["parent"], day: string, state: Partition["state"] = "attached"): Partition => ({ parent, day, state });
const names = (partitions: readonly Partition[]) => partitions.map(({ parent, day }) => `${parent} ${day}`);

test("bodies go first, outcomes later, and of a day messages before deliveries", () => {
  const days = ["2026-08-25", "2026-08-26", "2026-10-24", "2026-10-25", "2026-11-24"];
  const all = days.flatMap((day) => (["attempts", "deliveries", "messages", "rejections"] as const).map((parent) => of(parent, day)));
  expect(names(computeExpired(all, "2026-11-24", { messagesDays: 30, deliveriesDays: 90 }))).toEqual([
    "messages 2026-08-25",
    "rejections 2026-08-25",
    "deliveries 2026-08-25",
    "attempts 2026-08-25",
    "messages 2026-08-26",
    "rejections 2026-08-26",
    "messages 2026-10-24",
    "rejections 2026-10-24",
  ]);
});

test("deliveries outlive messages, whatever the options say", () => {
  const all = [of("messages", "2026-11-01"), of("deliveries", "2026-11-01")];
  expect(computeExpired(all, "2026-11-24", { messagesDays: 30, deliveriesDays: 1 })).toEqual([]);
});

test("what somebody began to detach is over, whatever its day", () => {
  const halfDone = [of("messages", "2026-11-23", "detaching"), of("attempts", "2026-11-23", "detached")];
  expect(
    names(computeExpired([...halfDone, of("messages", "2026-11-22")], "2026-11-24", { messagesDays: 30, deliveriesDays: 90 })),
  ).toEqual(["messages 2026-11-23", "attempts 2026-11-23"]);
});

test("days cross months and years", () => {
  expect(addDays("2027-01-01", -1)).toBe("2026-12-31");
  expect(addDays("2028-02-28", 1)).toBe("2028-02-29");
});
