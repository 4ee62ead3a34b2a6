import { readdir, readFile } from "node:fs/promises";

/**
 * CPU of a process, of the children it has and of those it had, in microseconds; undefined where there is no `/proc`.
 *
 * The kernel counts in hundredths of a second (proc_pid_stat(5)): enough for a round of seconds.
 */
export async function readCpuUsOfTree(pid: number): Promise<number | undefined> {
  const parent = await readStat(pid);
  if (parent === undefined) return undefined;
  let ticks = parent.ownTicks + parent.endedChildrenTicks;
  for (const name of await readdir("/proc")) {
    const process = /^\d+$/.test(name) ? await readStat(Number(name)) : undefined;
    if (process?.parentPid === pid) ticks += process.ownTicks;
  }
  return ticks * usPerTick;
}

const usPerTick = 10_000;

interface Stat {
  readonly parentPid: number;
  readonly ownTicks: number;
  readonly endedChildrenTicks: number;
}

async function readStat(pid: number): Promise<Stat | undefined> {
  // A process may end between being listed and being read.
  const line = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  // The second field is the program's name, which may hold blanks and brackets; the third is the first after the last bracket.
  const fields = line?.slice(line.lastIndexOf(")") + 2).split(" ");
  if (fields === undefined) return undefined;
  const field = (number: number): number => Number(fields[number - 3]);
  return { parentPid: field(4), ownTicks: field(14) + field(15), endedChildrenTicks: field(16) + field(17) };
}
