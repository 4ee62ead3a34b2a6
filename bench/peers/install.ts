import { execFile } from "node:child_process";
import { access } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** Installs the peers where they are not there yet: they are no part of the repository's own installation. */
export async function installPeers(folder: URL, tell: (words: string) => void): Promise<void> {
  const isThere = await exists(new URL("node_modules/.package-lock.json", folder));
  if (isThere) return;
  const hasLock = await exists(new URL("package-lock.json", folder));
  tell(`peers: npm ${hasLock ? "ci" : "install"} in ${fileURLToPath(folder)}`);
  const args = [hasLock ? "ci" : "install", "--omit=optional", "--no-audit", "--no-fund", ...(hasLock ? [] : ["--no-package-lock"])];
  await promisify(execFile)("npm", args, { cwd: folder });
}

const exists = (file: URL): Promise<boolean> =>
  access(file).then(
    () => true,
    () => false,
  );
