import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { AncrageError } from "../errors.ts";

/** @throws AncrageError `ANCRAGE_OPTION_INVALID` where the argument names no folder */
export async function resolveFolder(workingFolder: string, argument: string): Promise<string> {
  const folder = resolve(workingFolder, argument);
  const found = await stat(folder).catch(() => undefined);
  if (found?.isDirectory() === true) return folder;
  throw new AncrageError(
    "ANCRAGE_OPTION_INVALID",
    `<folder>: expected a folder with events/ in it, got ${JSON.stringify(argument)}${found === undefined ? ", which does not exist" : ", which is a file"}`,
    {
      hint: "Name the folder that holds events/, tracking/ and ancrage.config.ts.",
    },
  );
}
