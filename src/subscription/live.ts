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

/**
 * Opened at a time: a hundred thousand at once would be in memory twice, and hold the event loop meanwhile.
 */
const pageCount = 1_000;

/** The subscriptions of a process that delivers: rows of the database, opened, in the registry. */
export class LiveSubscriptions {
  readonly registry: Registry = createRegistry();
  readonly #options: LiveSubscriptionsOptions;
  /** Written by `#open`. */
  readonly #unopened = new Map<string, unknown>();
  /** Milliseconds since the Unix epoch at which a rotated secret ends, the first of each subscription. Written by `#open`. */
  readonly #secretEnds = new Map<string, number>();

  constructor(options: LiveSubscriptionsOptions) {
    this.#options = options;
  }

  /** Why subscriptions do not open here, by id: their deliveries wait until a start with the key that sealed them. */
  get unopened(): ReadonlyMap<string, unknown> {
    return this.#unopened;
  }

  /** @throws AncrageError `ANCRAGE_SECRET_KEY_INVALID` where no subscription opens at all: then it is the key that is wrong */
  async load(): Promise<void> {
    for (let after = -1n, isEnd = false; !isEnd;) {
      const rows = await readLiveSubscriptions(this.#options.db, { after, limit: pageCount });
      for (const row of rows) this.registry.put(this.#open(row));
      after = rows.at(-1)?.revision ?? after;
      isEnd = rows.length < pageCount;
    }
    const [failure] = this.#unopened.values();
    if (failure !== undefined && this.#unopened.size === this.registry.size) throw failure;
  }

  /** Subscriptions that have a secret whose time is over, and still sign with it. */
  endedSecrets(nowMs: number): readonly string[] {
    return [...this.#secretEnds].flatMap(([id, endsAtMs]) => (endsAtMs <= nowMs ? [id] : []));
  }

  /** One as it is now, the deleted included; nothing is taken of it yet. */
  read(id: string): Promise<SubscriptionRow | undefined> {
    return readSubscription(this.#options.db, id);
  }

  /** Takes a row unless a newer one was taken. A deleted one is for `remove`. */
  put(row: SubscriptionRow): void {
    // Not opened for nothing: that takes the secrets to be deciphered.
    if (row.state === "deleted" || this.registry.knows(row.id, row.revision)) return;
    this.registry.put(this.#open(row));
  }

  /** @returns whether it was there */
  remove({ id, revision }: Pick<SubscriptionRow, "id" | "revision">): boolean {
    const wasThere = this.registry.get(id) !== undefined;
    this.registry.remove(id, revision);
    this.#unopened.delete(id);
    this.#secretEnds.delete(id);
    return wasThere;
  }

  /** One that does not open must not end capture and delivery for all others: it is kept, with nothing sent, and named. */
  #open(row: SubscriptionRow): Subscription {
    const { secretKey, clock, log } = this.#options;
    const ends = row.secrets.flatMap(({ expiresAt }) => (expiresAt === null ? [] : [Date.parse(expiresAt)]));
    if (ends.length === 0) this.#secretEnds.delete(row.id);
    else this.#secretEnds.set(row.id, Math.min(...ends));
    try {
      const subscription = openSubscription(secretKey, row, new Date(clock.nowMs()));
      this.#unopened.delete(row.id);
      return subscription;
    } catch (error) {
      if (!this.#unopened.has(row.id)) {
        log.error({ err: error, subscription: row.id }, "a subscription does not open; its deliveries wait in the journal");
      }
      this.#unopened.set(row.id, error);
      return holdSubscription(row);
    }
  }
}
