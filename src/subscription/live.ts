import type pg from "pg";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import { readLiveSubscriptions, readSubscription, type SubscriptionRow } from "../store/subscriptions.ts";
import { holdSubscription, openSubscription } from "./open.ts";
import { createRegistry, type Registry, type Subscription } from "./registry.ts";
import type { SecretKey } from "./secret.ts";

export interface LiveSubscriptionsOptions {
  readonly db: pg.Pool;
  readonly secretKey: SecretKey;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The subscriptions of a process that delivers: rows of the database, opened, in the registry. */
export class LiveSubscriptions {
  readonly registry: Registry = createRegistry();
  readonly #options: LiveSubscriptionsOptions;
  /** Written by `#open`. */
  readonly #unopened = new Map<string, unknown>();

  constructor(options: LiveSubscriptionsOptions) {
    this.#options = options;
  }

  /** Why subscriptions do not open here, by id: their deliveries wait until a start with the key that sealed them. */
  get unopened(): ReadonlyMap<string, unknown> {
    return this.#unopened;
  }

  /** @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID` where no subscription opens at all: then it is the key that is wrong */
  async load(): Promise<void> {
    const rows = await readLiveSubscriptions(this.#options.db);
    for (const row of rows) {
      const subscription = this.#open(row, row.startLsn ?? 0n);
      // One that the stream has not come to yet is put in when it does.
      if (row.startLsn !== null) this.registry.put(subscription);
    }
    const [failure] = this.#unopened.values();
    if (failure !== undefined && this.#unopened.size === rows.length) throw failure;
  }

  /**
   * One as it is now.
   *
   * @param startLsn where the log placed it, for a row that does not say so yet
   */
  async read(id: string, startLsn: bigint): Promise<ReadSubscription> {
    const row = await readSubscription(this.#options.db, id);
    if (row === undefined) return { kind: "unknown" };
    if (row.state === "deleted") return { kind: "deleted", row };
    return { kind: "live", subscription: this.#open(row, row.startLsn ?? startLsn) };
  }

  /** @returns whether it was there */
  remove({ id, revision }: Pick<SubscriptionRow, "id" | "revision">): boolean {
    const wasThere = this.registry.get(id) !== undefined;
    this.registry.remove(id, revision);
    this.#unopened.delete(id);
    return wasThere;
  }

  /** One that does not open must not end capture and delivery for all others: it is kept, with nothing sent, and named. */
  #open(row: SubscriptionRow, startLsn: bigint): Subscription {
    const { secretKey, clock, log } = this.#options;
    try {
      const subscription = openSubscription(secretKey, row, startLsn, new Date(clock.nowMs()));
      this.#unopened.delete(row.id);
      return subscription;
    } catch (error) {
      if (!this.#unopened.has(row.id)) {
        log.error({ err: error, subscription: row.id }, "a subscription does not open; its deliveries wait in the journal");
      }
      this.#unopened.set(row.id, error);
      return holdSubscription(row, startLsn);
    }
  }
}

export type ReadSubscription =
  | { readonly kind: "live"; readonly subscription: Subscription }
  | { readonly kind: "deleted"; readonly row: SubscriptionRow }
  | { readonly kind: "unknown" };
