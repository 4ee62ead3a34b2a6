/**
 * Why an occurrence could not become a message, whose fault that is, and when an event is given up for now.
 *
 * A rejection is kept with what it was to be built from (`occurrence-bytes.ts`), so that a retry needs no log.
 */

/** Whose fault each reason is. Only the definition's own faults park an event: a caller's wrong key says nothing about its code. */
export const rejectionFaults = {
  "where-threw": "definition",
  "handler-threw": "definition",
  "payload-threw": "definition",
  "payload-timeout": "definition",
  "read-timeout": "definition",
  "payload-too-large": "definition",
  "schema-refused": "definition",
  "not-json": "definition",
  "project-invalid": "definition",
  "record-missing": "caller",
  "data-invalid": "caller",
  "event-unknown": "caller",
  "event-parked": "none",
  "journal-refused": "none",
} as const;

export type RejectionReason = keyof typeof rejectionFaults;

/** Rejections in a row after which an event's code is no longer run. */
export const parkedAfterRejections = 1_000;

/** Events by name, tracking files by path → rejections since the last success. What works is not in it. */
export type RejectionCounts = ReadonlyMap<string, number>;

/**
 * Counts one outcome of an event's code.
 *
 * A broken event that a bulk update hits would otherwise fill the journal with as many rejections, and hold the log up for as
 * long as its code takes to fail. A success in between means that only some records are at fault: those are worth a line each.
 *
 * @param outcome the reason of a rejection, or `"success"` (a payload was built, or the function said that nothing happened)
 * @returns the same map where nothing changed
 */
export function countRejection(counts: RejectionCounts, event: string, outcome: RejectionReason | "success"): RejectionCounts {
  const before = counts.get(event) ?? 0;
  if (outcome === "success") {
    // Parked stays parked: what still succeeds had begun before, and only a person knows that the code was mended.
    if (before === 0 || before >= parkedAfterRejections) return counts;
    const after = new Map(counts);
    after.delete(event);
    return after;
  }
  if (rejectionFaults[outcome] !== "definition" || before >= parkedAfterRejections) return counts;
  return new Map(counts).set(event, before + 1);
}

/** Whether the event's code is no longer run, until a restart. */
export function isParked(counts: RejectionCounts, event: string): boolean {
  return (counts.get(event) ?? 0) >= parkedAfterRejections;
}
