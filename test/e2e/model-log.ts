import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

/**
 * What happened, in one order: the processes under test and the test itself append to one file. A line is written at once and whole, so
 * that a process that is killed has told all that it did.
 */
export type Entry =
  /** About to be committed: each change's number, its event, and its record's key. */
  | { readonly e: "committing"; readonly changes: readonly Change[] }
  | { readonly e: "committed" }
  | { readonly e: "created"; readonly sub: string; readonly event: EventName; readonly order: "none" | "record" | "all" }
  /** Asked for by the test; and the answer to that. What was interrupted by a kill has none. */
  | { readonly e: "pausing" | "paused" | "resuming" | "resumed" | "deleting" | "deleted"; readonly sub: string }
  /** `not-canceled`: it was interrupted, and by now is done or will never be. */
  | { readonly e: "canceling" | "canceled" | "not-canceled"; readonly sub: string }
  /** Its time is about to be over; and its row, or that of a receiver that answered 410, says that it is disabled. */
  | { readonly e: "expiring" | "disabled"; readonly sub: string }
  /** The test has found its row canceled. */
  | { readonly e: "over"; readonly sub: string; readonly message: string }
  | { readonly e: "resending" | "resent" | "not-resent"; readonly sub: string; readonly message: string }
  /** A request is written to its socket. All times are those of this machine, in milliseconds. */
  | { readonly e: "begin"; readonly sub: string; readonly message: string; readonly number: number; readonly atMs: number }
  /** An attempt is over; `after` is null where the delivery had become another one meanwhile. */
  | {
      readonly e: "finish";
      readonly sub: string;
      readonly message: string;
      readonly isSuccess: boolean;
      readonly status: number | null;
      readonly reason: string | null;
      readonly holdMs: number;
      readonly after: State | null;
      /** Before which it is not tried again; null: at once, or not at all. */
      readonly dueAtMs: number | null;
      readonly atMs: number;
    }
  | { readonly e: "journaling" | "journaled"; readonly updates: readonly Update[] }
  | { readonly e: "killed" | "ended" };

export type EventName = "ItemChanged" | "ItemUnwanted";

export interface Change {
  readonly note: number;
  readonly event: EventName;
  readonly key: string;
}

/** Where a delivery stands. */
export interface State {
  readonly state: "pending" | "retrying" | "delivered" | "exhausted" | "canceled";
  readonly round: number;
  readonly attempts: number;
}

/** A row that a batch writes: a first one, or where it still is `from`. */
export interface Update {
  readonly sub: string;
  readonly message: string;
  readonly row: State;
  readonly dueAtMs: number | null;
  readonly from: { readonly state: string; readonly attempts: number } | null;
}

export interface ModelLog {
  readonly path: string;
  append(entry: Entry): void;
  /** All entries since the last call. */
  take(): readonly Entry[];
  close(): void;
}

export function openModelLog(path: string): ModelLog {
  const file = openSync(path, "a");
  let taken = 0;
  return {
    path,
    append: (entry) => void writeSync(file, `${JSON.stringify(entry)}\n`),
    take() {
      const bytes = readFileSync(path);
      const end = bytes.lastIndexOf("\n") + 1;
      const lines = bytes.toString("utf8", taken, end).split("\n").slice(0, -1);
      taken = end;
      return lines.map((line) => JSON.parse(line) as Entry);
    },
    close: () => closeSync(file),
  };
}
