import type { Position } from "./capture/change.ts";
import type { Format } from "./format.ts";

/** An occurrence with its payload and its id, journaled. Its bytes never change. */
export interface Message {
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly position: Position;
  /** Microseconds since the Unix epoch. */
  readonly committedAtUs: bigint;
  /** What keeps it from those who made it happen; undefined where nobody said who did. */
  readonly origin?: MessageOrigin | undefined;
  /** The payload as JSON in UTF-8; `format.ts` puts the envelope around it. */
  readonly body: Buffer;
  /** What `format.ts` made of it, once a format. Filled by `deliver/send.ts`. */
  readonly envelopes: Partial<Record<Format, Buffer>>;
}

/** As `ancrage.actor` and `ancrage.caused_by` said; of an event that is to echo, the depth alone. */
export interface MessageOrigin {
  readonly actor: string | undefined;
  /** The subscription whose delivery made the application write. */
  readonly causedBy: string | undefined;
  /** Deliveries that led to it. */
  readonly depth: number;
}

/** An occurrence that could not become a message. */
export interface Rejection {
  /** The id that the message would have had, with `rej_` before it. */
  readonly id: string;
  readonly project: string;
  readonly event: string;
  readonly key: string;
  readonly position: Position;
  readonly committedAtUs: bigint;
  readonly reason: string;
  readonly error: string;
  /** What the event was to be built from, as JSON, so that a retry needs no log. */
  readonly occurrence: Buffer;
}

/** Pending ones were not tried yet; retrying ones wait for their next attempt; the others are over. */
export type DeliveryState = "pending" | "retrying" | "delivered" | "exhausted" | "canceled";

/** A delivery as it stands after something happened to it: what its row must say. */
export interface DeliveryRow {
  readonly messageId: string;
  readonly subscriptionId: string;
  readonly project: string;
  readonly state: DeliveryState;
  readonly round: number;
  readonly attempts: number;
  /** Milliseconds since the Unix epoch; undefined where it is not waiting for a time. */
  readonly nextAttemptAtMs: number | undefined;
  readonly lastStatus: number | undefined;
  readonly lastReason: string | undefined;
  readonly durationMs: number | undefined;
  readonly updatedAtMs: number;
  /** The job whose lane it goes through; undefined: it happened now, or is retried. Written with its first row only. */
  readonly jobId?: string | undefined;
}

/** A delivery's name among all others, as one string. */
export const deliveryNameOf = ({ messageId, subscriptionId }: Pick<DeliveryRow, "messageId" | "subscriptionId">): string =>
  `${messageId} ${subscriptionId}`;

/** A failed attempt, kept for whoever wants to know why. */
export interface AttemptRow {
  readonly messageId: string;
  readonly subscriptionId: string;
  readonly round: number;
  readonly number: number;
  readonly atMs: number;
  readonly status: number | undefined;
  readonly reason: string;
  readonly durationMs: number;
  /** The answer's first bytes. */
  readonly response: Buffer | undefined;
}

/** Whose deliveries a lane holds: one subscription's, through one job or none. */
export interface LaneId {
  readonly subscriptionId: string;
  readonly jobId?: string | undefined;
}

/** What happened to a delivery, to be written with the next batch. */
export interface DeliveryUpdate {
  readonly row: DeliveryRow;
  /** The state and attempts that its row must still have, or undefined where there is no row yet. */
  readonly from: { readonly state: DeliveryState; readonly attempts: number } | undefined;
  readonly attempt: AttemptRow | undefined;
  /** The batch that waits for this delivery's first row; undefined where it does not. */
  readonly batch: BatchInFlight | undefined;
}

/** A journaled batch of which not every delivery is a row yet. */
export interface BatchInFlight {
  /** The position that was journaled before it: what is settled while this batch is not. */
  readonly before: Position;
  /** The least id of its messages. */
  readonly leastId: string;
  /** Deliveries without a row. Written by the fan-out, and by the journal as it writes rows. */
  open: number;
}
