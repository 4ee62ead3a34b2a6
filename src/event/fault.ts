import { relative } from "node:path";
import { AncrageError } from "../errors.ts";
import type { TableInfo } from "../store/tables.ts";
import { isThenable } from "../thenable.ts";

/** What is wrong with a file of events, tracking or configuration. Faults are collected, so that one start shows them all. */
export interface Fault {
  /** Where, as the user knows it: `events/deal/won.ts`. */
  readonly file: string;
  /** What was found, with the value, and what was expected. */
  readonly message: string;
  /** What to do. */
  readonly hint: string;
}

/** A fault of the file that is being checked. */
export type FaultHere = Omit<Fault, "file">;

/** All faults as one error. */
export function definitionError(faults: readonly Fault[]): AncrageError {
  const lines = faults.map((fault) => `  ${fault.file}: ${fault.message} ${fault.hint}`);
  const count = faults.length === 1 ? "1 fault" : `${faults.length} faults`;
  return new AncrageError("ANCRAGE_DEFINITION_INVALID", `${count} in the definitions:\n${lines.join("\n")}`);
}

/** A path as messages show it: below the folder, with slashes on every system. */
export function shownPath(folder: string, path: string): string {
  return relative(folder, path).replaceAll("\\", "/");
}

/** Records are known by their key: in messages, in triggers, for the order of deliveries. */
export function faultOfMissingKey(table: TableInfo): FaultHere {
  return {
    message: `the table "${table.name}" has no primary key, expected one: a message names its record by it.`,
    hint: `alter table ${table.name} add primary key (…).`,
  };
}

/** A value in a message: short, with its type. */
export function describeValue(value: unknown): string {
  if (typeof value === "string") return `"${value}"`;
  if (typeof value === "function") return value.name === "" || value.name === "default" ? "a function" : `the function ${value.name}`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (isThenable(value)) return "a promise";
  if (typeof value !== "object" || value === null) return String(value);
  const keys = Object.keys(value);
  return keys.length === 0 ? "an empty object" : `an object with ${keys.slice(0, 5).join(", ")}${keys.length > 5 ? ", …" : ""}`;
}

/** An `async` function as it was written; one that merely returns a promise is found when it is called. */
export function isAsync(value: unknown): boolean {
  return typeof value === "function" && value.constructor.name === "AsyncFunction";
}
