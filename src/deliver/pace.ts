/** How far a rate is used up: a bucket that fills as time passes. Written by `takeTurn`. */
export interface Pace {
  turns: number;
  atMs: number;
}

export const createPace = (nowMs: number): Pace => ({ turns: 1, atMs: nowMs });

/** Turns that are saved up while nothing starts, in seconds: enough that a timer which comes late costs no throughput. */
const savedS = 0.02;

/** @returns milliseconds until one may start; 0: now */
export function untilTurnMs(pace: Pace, perSecond: number, nowMs: number): number {
  const turns = turnsAt(pace, perSecond, nowMs);
  return turns >= 1 ? 0 : Math.max(1, Math.ceil(((1 - turns) / perSecond) * 1000));
}

/** One starts. */
export function takeTurn(pace: Pace, perSecond: number, nowMs: number): void {
  pace.turns = turnsAt(pace, perSecond, nowMs) - 1;
  pace.atMs = nowMs;
}

function turnsAt(pace: Pace, perSecond: number, nowMs: number): number {
  return Math.min(Math.max(1, perSecond * savedS), pace.turns + (Math.max(0, nowMs - pace.atMs) / 1000) * perSecond);
}
