import type { ChangeSource } from "./change.ts";

/**
 * A source that cannot be read, and says why at the first look: capture then stands, with its reason in the status, and delivery and
 * the API go on.
 */
export function createUnavailableSource(sourceId: string, reason: Error): ChangeSource {
  return {
    sourceId,
    start: () => Promise.resolve(),
    hasWork: () => true,
    // It had work from the beginning: nothing turns true any more.
    onWork: () => undefined,
    take: () => Promise.reject(reason),
    confirm: () => undefined,
    idleLsn: () => undefined,
    ignoredMarks: 0,
    stop: () => Promise.resolve(),
  };
}
