import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/**
 * Copies the files of a cluster that does not run. They stay the server's own, whoever runs the test.
 *
 * @param to what is there goes; default: a new folder
 */
export async function copyCluster(from: string, to?: string): Promise<string> {
  const directory = to ?? (await mkdtemp(join(tmpdir(), "ancrage-test-")));
  await rm(directory, { recursive: true, force: true });
  await promisify(execFile)("cp", ["-a", from, directory]);
  return directory;
}
