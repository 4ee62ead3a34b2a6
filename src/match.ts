import type { Action, Position, Row, Transaction } from "./capture/change.ts";
import type { CatalogueEvent } from "./event/catalogue.ts";

/** An event that happened, before its payload is built. */
export interface Occurrence {
  readonly event: CatalogueEvent;
  readonly transaction: Transaction;
  readonly position: Position;
  readonly key: string;
  readonly reason: "change" | "trigger";
  /** What happened to the row, where a row change is behind it. */
  readonly action: Action | undefined;
  readonly before: Row | undefined;
  /** The record as committed; `undefined` where it must be read by key first (an explicit trigger for another row). */
  readonly record: Row | undefined;
  /** The third argument of `trigger`. */
  readonly data: unknown;
  readonly actor: string | undefined;
}
