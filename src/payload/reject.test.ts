import { expect, test } from "vitest";
import { countRejection, isParked, parkedAfterRejections, type RejectionCounts } from "./reject.ts";

const none: RejectionCounts = new Map();

function reject(times: number, counts: RejectionCounts = none): RejectionCounts {
  let after = counts;
  for (let i = 0; i < times; i++) after = countRejection(after, "Order", "payload-threw");
  return after;
}

test("an event is parked by its thousandth rejection in a row, and no other with it", () => {
  const almost = reject(parkedAfterRejections - 1);
  expect(isParked(almost, "Order")).toBe(false);
  const parked = countRejection(almost, "Order", "schema-refused");
  expect(isParked(parked, "Order")).toBe(true);
  expect(isParked(parked, "Invoice")).toBe(false);
});

test("a success in between begins the count again", () => {
  const counts = reject(parkedAfterRejections - 1, countRejection(reject(parkedAfterRejections - 1), "Order", "success"));
  expect(isParked(counts, "Order")).toBe(false);
});

test("what the caller did wrong says nothing about the event's code", () => {
  const almost = reject(parkedAfterRejections - 1);
  for (const outcome of ["record-missing", "data-invalid", "event-parked", "journal-refused"] as const) {
    expect(countRejection(almost, "Order", outcome)).toBe(almost);
  }
});

test("a success that had begun before does not unpark", () => {
  const parked = reject(parkedAfterRejections);
  expect(isParked(countRejection(parked, "Order", "success"), "Order")).toBe(true);
});

test("a success of an event that works changes nothing, so that it costs nothing", () => {
  expect(countRejection(none, "Order", "success")).toBe(none);
});
