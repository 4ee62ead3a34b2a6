import type { Profiler } from "node:inspector";

const shownCount = 25;

/** What costs most, by file and by function: self time, in microseconds a delivery. Idle time is left out. */
export function formatProfile(profile: Profiler.Profile, deliveries: number): string {
  const costs = computeCosts(profile);
  const totalUs = costs.reduce((sum, { us }) => sum + us, 0);
  const table = (keyOf: (cost: Cost) => string): readonly string[] =>
    [...Map.groupBy(costs, keyOf)]
      .map(([key, group]) => ({ key, us: group.reduce((sum, { us }) => sum + us, 0) }))
      .toSorted((a, b) => b.us - a.us)
      .slice(0, shownCount)
      .map(({ key, us }) => `${(us / deliveries).toFixed(2).padStart(8)} µs ${((100 * us) / totalUs).toFixed(1).padStart(5)} %  ${key}`);
  return [
    `${(totalUs / deliveries).toFixed(1)} µs a delivery in all`,
    "by file",
    ...table(({ file }) => file),
    "by function",
    ...table(({ name, file, line }) => `${name} ${file}:${line}`),
  ].join("\n");
}

interface Cost {
  readonly name: string;
  readonly file: string;
  readonly line: number;
  us: number;
}

/** Self time by place; V8 has a node for each way there. */
function computeCosts({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): readonly Cost[] {
  const byNode = new Map<number, Cost>();
  const byPlace = new Map<string, Cost>();
  for (const { id, callFrame } of nodes) {
    const { functionName, url, lineNumber } = callFrame;
    if (functionName === "(idle)" || functionName === "(root)") continue;
    const place = `${functionName} ${url} ${lineNumber}`;
    let cost = byPlace.get(place);
    if (cost === undefined) {
      byPlace.set(
        place,
        (cost = { name: functionName === "" ? "(anonymous)" : functionName, file: shorten(url), line: lineNumber + 1, us: 0 }),
      );
    }
    byNode.set(id, cost);
  }
  for (const [index, id] of samples.entries()) {
    const cost = byNode.get(id);
    // A delta is the time since the sample before it.
    if (cost !== undefined) cost.us += timeDeltas[index + 1] ?? 0;
  }
  return [...byPlace.values()];
}

/** From `src/` or the package's name on; V8's own parts have no file. */
function shorten(url: string): string {
  if (url === "") return "(native)";
  const at = url.lastIndexOf("/node_modules/");
  if (at !== -1) return url.slice(at + "/node_modules/".length);
  return url.startsWith("node:") ? url : url.slice(url.lastIndexOf("/src/") + 1);
}
