import { AncrageError } from "../errors.ts";

/**
 * An error that no code caught, as what a process says before it ends: event code that throws in a timer, or leaves a promise alone.
 *
 * Going on would be worse: nobody knows what the error has left half done, and the journal knows what is to be done again.
 */
export function lastWords(error: unknown): AncrageError {
  const where = error instanceof Error ? frameOfDefinition(error.stack ?? "") : undefined;
  const because = error instanceof Error ? error.message : String(error);
  return new AncrageError(
    "ANCRAGE_COMMAND_FAILED",
    `an error that no code caught has ended this process: ${because}${where === undefined ? "" : `, at ${where}`}.`,
    {
      hint:
        where === undefined
          ? "Nothing is lost: what was in flight is done again after the next start. The stack above says where it comes from."
          : "Mend that file: await each promise, and catch what a timer or a listener throws. Nothing is lost; what was in flight is done again after the next start.",
      cause: error,
    },
  );
}

/** The first frame in a file that users write: below `events/` or `tracking/`, or the config. */
export function frameOfDefinition(stack: string): string | undefined {
  for (const line of stack.split("\n")) {
    const found = /(?:^|[\s(])(?:file:\/\/)?(\/\S*?\/(?:(?:events|tracking)\/\S+?|ancrage\.config\.ts)(?:\?\S*?)?:\d+:\d+)\)?$/.exec(
      line,
    )?.[1];
    if (found !== undefined && !found.includes("/node_modules/")) return found.replace(/\?[^:]*/, "");
  }
  return undefined;
}
