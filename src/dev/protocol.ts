import type { FlagValue } from "../options.ts";
import type { ReceivedRequests } from "./receiver.ts";

/** What the parent (database, lock, watch) tells its child (the pipeline and the API). */
export type ToChild =
  | {
      readonly kind: "prepare";
      readonly folder: string;
      /** Options as flags have them; they go before the environment and the config. */
      readonly flags: Readonly<Record<string, FlagValue>>;
      /** What `dev` made for itself: it counts where nobody says otherwise. The config may, from one reload to the next. */
      readonly made: { readonly token: string; readonly secretKey: string };
      /** What the child ends and removes if its parent is gone without a word. */
      readonly orphaned: { readonly databasePid: number | undefined; readonly folder: string | undefined };
    }
  | ({ readonly kind: "serve" } & Handover)
  | { readonly kind: "stop" };

/** What one child leaves to the next. */
export interface Handover {
  /** The port that was given to the first one, also where any was asked for: URLs must outlive a reload. */
  readonly port: number | undefined;
  readonly received: ReceivedRequests;
}

export type FromChild =
  | Prepared
  | Ready
  /** It heard that it is to end, whatever it is in the middle of. */
  | { readonly kind: "stopping" }
  | { readonly kind: "stopped"; readonly received: ReceivedRequests }
  | Fault;

export interface Prepared {
  readonly kind: "prepared";
  readonly events: readonly string[];
  /** How long it may finish what is in flight once it is asked to end. */
  readonly graceS: number;
}

export interface Ready {
  readonly kind: "ready";
  readonly url: string;
  readonly port: number;
  /** What lets one in. */
  readonly token: string;
}

export interface Fault {
  readonly kind: "fault";
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
}
