import type { Captured, ChangeSource } from "../src/capture/change.ts";

/** Takes, a few at a time, until it is enough; no confirmation is given. */
export async function takeUntil(source: ChangeSource, isEnough: (items: readonly Captured[]) => boolean, limit = 100): Promise<Captured[]> {
  const all: Captured[] = [];
  while (!isEnough(all)) {
    if (source.hasWork()) all.push(...(await source.take(limit)));
    else await new Promise<void>((resolve) => source.onWork(resolve));
  }
  return all;
}
