import type { Ancrage } from "../create-ancrage.ts";
import type { AncrageOptions } from "../options.ts";

export interface System {
  createAncrage(options: AncrageOptions): Ancrage;
}

/** The system, imported when a command needs it: `ancrage --help` and the clients of a server start without it. */
export async function loadSystem(): Promise<System> {
  return (await import("../create-ancrage.ts")) as unknown as System;
}
