import { readFileSync } from "node:fs";

/** Of the package, as its package.json has it: `src/` and `dist/` both stand beside it. */
export const version: string = (JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string })
  .version;
