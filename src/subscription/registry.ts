import type { KeyObject } from "node:crypto";
import type { Format } from "../format.ts";

/** A subscription as delivery needs it: opened, parsed, ready. Replaced as a whole at each revision. */
export interface Subscription {
  readonly id: string;
  readonly project: string;
  readonly events: readonly string[];
  readonly origin: string;
  /** With the query. */
  readonly path: string;
  readonly format: Format;
  readonly keys: readonly KeyObject[];
  readonly revision: bigint;
  /** Changes of transactions that were committed after this one are its own. */
  readonly startLsn: bigint;
  readonly state: "enabled" | "paused" | "disabled";
  /** Changes that they made are not sent to it: whoever created it, and those it names. */
  readonly ignoredActors?: readonly string[];
}

/**
 * The live subscriptions in memory, by project and event. Matching costs the same for ten as for a hundred thousand.
 *
 * It takes only higher revisions: whoever comes late with an old row, the stream or a request, changes nothing.
 */
export interface Registry {
  readonly size: number;
  get(id: string): Subscription | undefined;
  /** Those of one event in one project. */
  of(project: string, event: string): readonly Subscription[];
  /** @returns whether it was newer than what was known */
  put(subscription: Subscription): boolean;
  /** A deletion is remembered: a put of an older revision that arrives later must not bring it back. */
  remove(id: string, revision: bigint): boolean;
}

export function createRegistry(): Registry {
  const byId = new Map<string, Subscription>();
  const byEvent = new Map<string, Place>();
  const removed = new Map<string, bigint>();
  const none: readonly Subscription[] = [];
  const nameOf = (project: string, event: string): string => `${project}\0${event}`;

  const takeOut = (subscription: Subscription): void => {
    byId.delete(subscription.id);
    for (const event of subscription.events) {
      const name = nameOf(subscription.project, event);
      const place = byEvent.get(name);
      if (place?.members.delete(subscription.id) !== true) continue;
      place.list = undefined;
      if (place.members.size === 0) byEvent.delete(name);
    }
  };
  const putIn = (subscription: Subscription): void => {
    byId.set(subscription.id, subscription);
    for (const event of subscription.events) {
      const name = nameOf(subscription.project, event);
      const place = byEvent.get(name) ?? { members: new Map<string, Subscription>(), list: undefined };
      place.members.set(subscription.id, subscription);
      place.list = undefined;
      byEvent.set(name, place);
    }
  };

  return {
    get size() {
      return byId.size;
    },
    get: (id) => byId.get(id),
    of(project, event) {
      const place = byEvent.get(nameOf(project, event));
      if (place === undefined) return none;
      place.list ??= [...place.members.values()];
      return place.list;
    },
    put(subscription) {
      const known = byId.get(subscription.id);
      if (known !== undefined && known.revision >= subscription.revision) return false;
      if ((removed.get(subscription.id) ?? -1n) >= subscription.revision) return false;
      if (known !== undefined) takeOut(known);
      putIn(subscription);
      return true;
    },
    remove(id, revision) {
      if ((removed.get(id) ?? -1n) >= revision) return false;
      const known = byId.get(id);
      if (known !== undefined && known.revision > revision) return false;
      removed.set(id, revision);
      if (known !== undefined) takeOut(known);
      return true;
    },
  };
}

/** The subscriptions to one event in one project. */
interface Place {
  readonly members: Map<string, Subscription>;
  /** What `of` answers; made anew after a change, when it is asked for. Kept up to date at each change, a hundred thousand would cost their square. */
  list: readonly Subscription[] | undefined;
}
