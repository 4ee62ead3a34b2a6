import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { renderMetrics, type Readings } from "./metrics.ts";

const page = await readFile(new URL("../docs/reference/metrics.md", import.meta.url), "utf8");
const readings: Readings = {
  status: {
    isReady: true,
    problems: [
      { code: "gap", message: "" },
      { code: "gap", message: "" },
    ],
    details: {},
  },
  isLeading: true,
  slot: {
    state: "extended",
    invalidationReason: undefined,
    isActive: true,
    lagBytes: 12,
    lagS: 3.5,
    keptBytes: 100,
    safeBytes: 1_000,
    secondsLeft: 60,
    outboxBytes: 4096,
    oldestTransaction: { ageS: 7, who: "psql" },
  },
  subscriptions: 2,
  deliveriesInMemory: 5,
  lanesBehind: 0,
  ignoredTriggers: 0,
  messages: 10,
  rejections: 1,
  deliveries: { delivered: 9, exhausted: 1 },
};
const namesIn = (text: string): readonly string[] => [
  ...new Set([...text.matchAll(/^# TYPE (ancrage_\w+)/gm)].map(([, name = ""]) => name)),
];

test("each metric is described in docs/reference/metrics.md, and no other is", async () => {
  const documented = [...page.matchAll(/^\| `(ancrage_\w+)/gm)].map(([, name = ""]) => name);
  expect(documented.toSorted()).toEqual(namesIn(await renderMetrics(readings)).toSorted());
});

test("values are those of the moment, and what is not known is absent", async () => {
  const text = await renderMetrics(readings);
  for (const line of [
    "ancrage_ready 1",
    'ancrage_problem{code="gap"} 1',
    "ancrage_capture_lag_seconds 3.5",
    'ancrage_slot_state{state="extended"} 1',
    'ancrage_slot_state{state="lost"} 0',
    'ancrage_deliveries_total{state="delivered"} 9',
  ]) {
    expect(text.split("\n")).toContain(line);
  }
  expect(text).toContain("process_cpu_seconds_total");
  // A second look has nothing of the first one.
  const later = await renderMetrics({ ...readings, slot: undefined, status: { isReady: false, problems: [], details: {} } });
  expect(later).toContain("ancrage_ready 0");
  expect(later).not.toContain('code="gap"');
  expect(later).not.toContain("ancrage_slot_kept_bytes");
});
