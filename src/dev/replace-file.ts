import { randomBytes } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";

/** In one step: a reader finds the old file or the new one, never half of it. What is in it is for its owner only. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString("hex")}`;
  await writeFile(beside, text, { mode: 0o600 });
  await rename(beside, path);
}
