// (being written: types by the owner of event/)
import type { Action, Row } from "../capture/change.ts";

/** What a tracking handler gets: one committed change. */
export interface TrackedChange {
  readonly action: Action;
  readonly key: string;
  readonly before: Row | undefined;
  readonly after: Row | undefined;
  readonly trigger: (event: string, key: unknown, data?: unknown) => void;
}

export interface TrackingHandler {
  readonly kind: "tracking";
  readonly table: string;
  readonly handle: (change: never) => void;
}
