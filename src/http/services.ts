import type pg from "pg";
import type { TriggerCame } from "../build-messages.ts";
import type { Catalogue } from "../event/catalogue.ts";
import type { Explanation } from "../explain.ts";
import type { Format } from "../format.ts";
import type { JobService } from "../job/service.ts";
import type { TokenService } from "../tokens.ts";
import type { SecretKey } from "../subscription/secret.ts";
import type { SubscriptionService } from "../subscription/subscription.ts";

/**
 * All that the API does not do itself. `project` undefined means any project: the token is for all of them and the request named none.
 */
export interface Services {
  /** A pool of its own: what is listed here must not wait for, nor hold up, the journal. */
  readonly db: pg.Pool;
  readonly subscriptions: SubscriptionService;
  readonly jobs: JobService;
  readonly tokens: TokenService;
  /** The events as they are now; `dev` reloads them. */
  readonly catalogue: () => Catalogue;
  /** Newest first, at most `limit`, each what a delivery's body holds (parsed). Never empty where a record, a message or an example is there. */
  samples(event: string, options: SampleOptions): Promise<readonly unknown[]>;
  explain(event: string, options: { readonly key: string; readonly project: string | undefined }): Promise<Explanation>;
  /**
   * Emits what `ancrage.trigger` emits, in a transaction of its own. With `waitMs` it resolves when the occurrence is journaled, or
   * when that time is over.
   *
   * @returns undefined where `project` is given and the key is no record of it: one project's token must not make events of another
   */
  trigger(event: string, options: TriggerOptions): Promise<Triggered | undefined>;
  status(): Promise<Status>;
  /** In Prometheus' text format. */
  metrics(): Promise<string>;
  /** What `Location` and links are built from; else the request's own origin. */
  readonly publicUrl?: string | undefined;
  /** What seals where a list goes on, for tokens of one project. */
  readonly cursorKey: SecretKey;
  /** Good for all projects. */
  readonly operatorToken: string;
  /** Takes an error that the API answered as 500 or 503, with the id that its answer names. */
  readonly logError: (error: unknown, context: { readonly id: string; readonly method: string; readonly path: string }) => void;
}

export interface SampleOptions {
  readonly project: string | undefined;
  readonly limit: number;
  readonly format: Format;
}

export interface TriggerOptions {
  readonly key: string;
  readonly data: unknown;
  readonly project: string | undefined;
  readonly waitMs: number | undefined;
}

export interface Triggered {
  /** The UUID of the trigger. */
  readonly id: string;
  /** What came of it: `pending` without `waitMs` and where that was too short. */
  readonly outcome: { readonly kind: "pending" } | TriggerCame;
}

export interface Status {
  /** Whether changes are captured and delivered: what `/readyz` answers. */
  readonly isReady: boolean;
  /** What needs attention: a gap, a parked event, a refused migration. */
  readonly problems: readonly StatusProblem[];
  /** Positions, lags and counts, as `GET /v1/status` shows them. */
  readonly details: Readonly<Record<string, unknown>>;
}

export interface StatusProblem {
  /** An error code of `errors.ts`, or a state's name. */
  readonly code: string;
  readonly message: string;
  /** What to do. */
  readonly hint?: string;
}
