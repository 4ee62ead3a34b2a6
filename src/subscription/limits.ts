import type { Limits } from "../store/subscriptions.ts";
import { isObject, pointerTo, show, type Refuse } from "./fault.ts";

/** What a limit may be. `inFlight` ends where the widest window does (`deliver/window.ts`): more is never reached. */
const ranges = {
  inFlight: { isTaken: (value: number) => Number.isInteger(value) && value >= 1 && value <= 64, expected: "a whole number from 1 to 64" },
  perSecond: { isTaken: (value: number) => value >= 0.01 && value <= 10_000, expected: "a number from 0.01 to 10000" },
} as const satisfies Record<keyof Limits, unknown>;

/** Checks how much a subscription's receiver takes at most. */
export function checkLimits(value: unknown, refuse: Refuse): Limits | undefined {
  if (value === undefined) return {};
  const names = Object.keys(ranges);
  if (!isObject(value)) return refuse("/limits", `expected an object with ${names.join(" and ")}, got ${show(value)}`);
  let isRefused = false;
  for (const [name, limit] of Object.entries(value)) {
    const range = Object.hasOwn(ranges, name) ? ranges[name as keyof Limits] : undefined;
    if (range !== undefined && typeof limit === "number" && range.isTaken(limit)) continue;
    isRefused = true;
    const expected = range === undefined ? `one of ${names.join(", ")}` : `${range.expected}, got ${show(limit)}`;
    refuse(`/limits${pointerTo(name)}`, `${range === undefined ? "unknown limit; " : ""}expected ${expected}`);
  }
  return isRefused ? undefined : value;
}
