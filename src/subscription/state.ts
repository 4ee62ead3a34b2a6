import { AncrageError } from "../errors.ts";
import type { SubscriptionRow, SubscriptionState } from "../store/subscriptions.ts";

export type StateCommand = "pause" | "resume" | "enable";

//              pause
//   enabled ──────────► paused        what happens is journaled, and waits
//      ▲  ◄────────────   │ ▲
//      │   resume, enable │ ✗ pause
//      │ enable           ▼ │
//      └────────────── disabled       by the engine, with a reason: nothing new, and what was there waits
//
//   Each of them may be deleted; what waits is then canceled, and nothing leads back.

/** What a command makes of each state; undefined: it is refused there. */
const transitions: Readonly<Record<StateCommand, Readonly<Record<SubscriptionState, SubscriptionState | undefined>>>> = {
  pause: { enabled: "paused", paused: "paused", disabled: undefined, deleted: undefined },
  resume: { enabled: "enabled", paused: "enabled", disabled: undefined, deleted: undefined },
  enable: { enabled: "enabled", paused: "enabled", disabled: "enabled", deleted: undefined },
};

/**
 * The state that a command leads to; the present one where there is nothing to do.
 *
 * @throws AncrageError `ANCRAGE_SUBSCRIPTION_STATE`
 */
export function nextState(row: SubscriptionRow, command: StateCommand, nowMs: number): SubscriptionState {
  const next = transitions[command][row.state];
  if (next === undefined) {
    const why = row.stateReason === null ? "" : ` (${row.stateReason})`;
    throw new AncrageError(
      "ANCRAGE_SUBSCRIPTION_STATE",
      `subscription ${row.id} is ${row.state}${why}: ${command} takes one that is enabled or paused.`,
      {
        hint: "Enable it first: it then gets what waits, and what is committed from then on.",
      },
    );
  }
  if (next === "enabled" && row.expiresAt !== null && row.expiresAt.getTime() <= nowMs) {
    throw new AncrageError("ANCRAGE_SUBSCRIPTION_STATE", `subscription ${row.id} expired at ${row.expiresAt.toISOString()}.`, {
      hint: "Change expiresAt first, to a time to come or to null.",
    });
  }
  return next;
}
