/** What each kind of job is given, checked; `ancrage.jobs.input` holds it. Times are ISO 8601. */
export type JobInput =
  /** All that a subscription has not got since a time: exhausted deliveries, and messages it never had. */
  | { readonly kind: "recover"; readonly since: string; readonly ratePerSecond?: number }
  /** Messages of a range of time for one subscription: those it never had, or all. */
  | {
      readonly kind: "replay";
      readonly events: readonly string[];
      readonly from: string;
      readonly to: string;
      readonly again: boolean;
      readonly ratePerSecond?: number;
    }
  /** Messages from rows that were there before. `where` is SQL. */
  | { readonly kind: "backfill"; readonly event: string; readonly where?: string; readonly ratePerSecond?: number }
  /** Ends deliveries that are not over. */
  | { readonly kind: "cancel"; readonly event?: string; readonly from: string; readonly to: string }
  /** Builds rejections again, with the code as it is now. */
  | { readonly kind: "retry"; readonly event?: string; readonly from: string; readonly to: string };

export type InputOf<Kind extends JobInput["kind"]> = Extract<JobInput, { readonly kind: Kind }>;
