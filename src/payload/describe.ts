import type { StandardSchemaV1 } from "@standard-schema/spec";
import { AncrageError } from "../errors.ts";

/** As many issues as a person reads; a list of a thousand items may have as many. */
const shownIssues = 10;

/** Each issue with its path: `items[2].price: Invalid input: expected string, received number`. */
export function describeIssues(issues: readonly StandardSchemaV1.Issue[]): string {
  const shown = issues.slice(0, shownIssues).map(({ message, path }) => {
    const place = formatPath(path ?? []);
    return place === "" ? message : `${place}: ${message}`;
  });
  const more = issues.length - shown.length;
  return `${shown.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}

function formatPath(path: NonNullable<StandardSchemaV1.Issue["path"]>): string {
  let text = "";
  for (const segment of path) {
    const key = typeof segment === "object" ? segment.key : segment;
    text += typeof key === "number" ? `[${key}]` : `${text === "" ? "" : "."}${String(key)}`;
  }
  return text;
}

/**
 * What was thrown, and where in the user's file: `TypeError: Cannot read … at events/NewOpportunity.ts:12:34`.
 *
 * @param file the file of the definition; without it, or where the stack does not reach it, the first place outside of Node, of
 * installed packages and of what builds payloads is named
 */
export function describeThrown(error: unknown, file?: string): string {
  // Anything can be thrown, a proxy whose every trap throws included: a rejection must come of it, not a crash.
  try {
    if (!(error instanceof Error)) return `${typeof error} ${JSON.stringify(error) ?? String(error)}`;
    const what = `${error instanceof AncrageError ? error.code : error.name}: ${error.message}`;
    const hint = error instanceof AncrageError && error.hint !== undefined ? ` ${error.hint}` : "";
    const place = placeOf(error, file);
    return `${what}${hint}${place === undefined ? "" : ` at ${place}`}`;
  } catch {
    return `a ${typeof error} that cannot be shown`;
  }
}

function placeOf(error: Error, file: string | undefined): string | undefined {
  const lines = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  if (file !== undefined) {
    const own = lines.find((line) => line.includes(`${file}:`));
    const place = own?.slice(own.indexOf(`${file}:`)).replace(/\)$/, "");
    if (place !== undefined) return place;
  }
  // Ours begin in our own files, which say nothing to whom they are told.
  if (error instanceof AncrageError) return undefined;
  const line = lines.find((line) => !/node:|node_modules|<anonymous>|[\\/]payload[\\/](build|json)\.[jt]s:/.test(line));
  // Without the folders above: where the project lies on this machine is nobody's business.
  return line?.match(/([^/\\(]+:\d+:\d+)\)?$/)?.[1];
}
