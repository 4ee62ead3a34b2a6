import type { KeyObject } from "node:crypto";
import type { Format } from "../format.ts";
import type { Filter } from "./filter.ts";

/** A subscription as delivery needs it: opened, parsed, ready. Replaced as a whole at each revision. */
export interface Subscription {
  readonly id: string;
  readonly project: string;
  /** None while it is disabled. */
  readonly events: readonly string[];
  /** Undefined: every payload is wanted. */
  readonly filter?: Filter | undefined;
  readonly origin: string;
  /** With the query. */
  readonly path: string;
  readonly format: Format;
  readonly keys: readonly KeyObject[];
  /** Of the receiver's own, sent with every request: name, value, name, value. */
  readonly headers?: readonly string[] | undefined;
  readonly revision: bigint;
  /** The revision since which it has had these events and this filter; undefined: `revision`. */
  readonly startRevision?: bigint | undefined;
  /** Changes of transactions that were committed after this one are its own; `unplaced` until the log has come to it. */
  readonly startLsn: bigint;
  /** What it matched before, newest first: for what was committed then. */
  readonly former?: readonly FormerStart[] | undefined;
  readonly state: "enabled" | "paused" | "disabled";
  /** Changes that they made are not sent to it: whoever created it, and those it names. */
  readonly ignoredActors?: readonly string[];
  /** What waits for what: a record's later messages for its earlier ones, or all. Default `none`. */
  readonly order?: "none" | "record" | "all";
  readonly limits?: SubscriptionLimits;
}

/** Whether it has another URL by now: what the former one answered, or did not, says nothing of that one. */
export const isElsewhere = (before: Subscription, now: Subscription | undefined): boolean =>
  now !== undefined && (now.origin !== before.origin || now.path !== before.path);

/** What a receiver is sent at most, whatever it seems to take. */
export interface SubscriptionLimits {
  /** Requests at a time. */
  readonly inFlight?: number;
  /** Requests that start in a second. */
  readonly perSecond?: number;
}

export interface FormerStart {
  readonly revision: bigint;
  /** None: it was disabled. */
  readonly events: readonly string[];
  readonly filter: Filter | undefined;
  readonly startLsn: bigint;
}

/** After every place of the log. */
export const unplaced = 0xffff_ffff_ffff_ffffn;

/**
 * The live subscriptions in memory, by project and event. Matching costs the same for ten as for a hundred thousand.
 *
 * It takes only higher revisions: whoever comes late with an old row, the stream or a request, changes nothing. What the log has placed
 * stays placed, whatever a row that was read before says.
 */
export interface Registry {
  readonly size: number;
  /** How many subscriptions one event of one project has at most: what one occurrence may become. */
  readonly widest: number;
  get(id: string): Subscription | undefined;
  /** Whether this revision of it, or a later one, was taken: also of one that was removed. */
  knows(id: string, revision: bigint): boolean;
  /** Those that have, or had, one event in one project. Which of them a message goes to is for `fanOut` to say. */
  of(project: string, event: string): readonly Subscription[];
  /** @returns whether it was newer than what was known */
  put(subscription: Subscription): boolean;
  /** The log has come to a start. @returns whether it was the first time */
  place(id: string, revision: bigint, lsn: bigint): boolean;
  /** A deletion is remembered: a put of an older revision that arrives later must not bring it back. */
  remove(id: string, revision: bigint): boolean;
}

/**
 * Deletions that are remembered, at most. One is needed for as long as somebody may come with a row that was read before it, which is
 * moments; at a hundred deletions a second this is a quarter of an hour.
 */
const mostRemoved = 100_000;

export function createRegistry(): Registry {
  const byId = new Map<string, Subscription>();
  const byEvent = new Map<string, Place>();
  const removed = new Map<string, bigint>();
  const none: readonly Subscription[] = [];
  /** Undefined once the widest has lost a member: counted anew when it is asked for. */
  let widest: number | undefined = 0;
  const nameOf = (project: string, event: string): string => `${project}\0${event}`;

  const takeOut = (subscription: Subscription): void => {
    byId.delete(subscription.id);
    for (const event of eventsOf(subscription)) {
      const name = nameOf(subscription.project, event);
      const place = byEvent.get(name);
      if (place?.members.size === widest) widest = undefined;
      if (place?.members.delete(subscription.id) !== true) continue;
      place.list = undefined;
      if (place.members.size === 0) byEvent.delete(name);
    }
  };
  const putIn = (subscription: Subscription): void => {
    byId.set(subscription.id, subscription);
    for (const event of eventsOf(subscription)) {
      const name = nameOf(subscription.project, event);
      const place = byEvent.get(name) ?? { members: new Map<string, Subscription>(), list: undefined };
      place.members.set(subscription.id, subscription);
      place.list = undefined;
      byEvent.set(name, place);
      if (widest !== undefined && place.members.size > widest) widest = place.members.size;
    }
  };
  const replace = (known: Subscription | undefined, subscription: Subscription): void => {
    if (known !== undefined) takeOut(known);
    putIn(subscription);
  };

  return {
    get size() {
      return byId.size;
    },
    get widest() {
      if (widest === undefined) {
        widest = 0;
        for (const { members } of byEvent.values()) widest = Math.max(widest, members.size);
      }
      return widest;
    },
    get: (id) => byId.get(id),
    knows: (id, revision) => (byId.get(id)?.revision ?? removed.get(id) ?? -1n) >= revision,
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
      replace(known, known === undefined ? subscription : withPlacesOf(known, subscription));
      return true;
    },
    place(id, revision, lsn) {
      const known = byId.get(id);
      const placed = known === undefined ? undefined : placeStart(known, revision, lsn);
      if (placed === undefined) return false;
      replace(known, placed);
      return true;
    },
    remove(id, revision) {
      if ((removed.get(id) ?? -1n) >= revision) return false;
      const known = byId.get(id);
      if (known !== undefined && known.revision > revision) return false;
      // The newest at the end: the oldest is the first to be forgotten.
      removed.delete(id);
      removed.set(id, revision);
      const [oldest] = removed.keys();
      if (removed.size > mostRemoved && oldest !== undefined) removed.delete(oldest);
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

function eventsOf({ events, former = [] }: Subscription): readonly string[] {
  return former.length === 0 ? events : [...events, ...former.flatMap((start) => start.events)];
}

const startRevisionOf = ({ startRevision, revision }: Subscription): bigint => startRevision ?? revision;

/** A start that the log came to while the newer row was being read: that row does not say so yet. */
function withPlacesOf(known: Subscription, next: Subscription): Subscription {
  const starts = [{ revision: startRevisionOf(known), startLsn: known.startLsn }, ...(known.former ?? [])];
  let placed = next;
  for (const { revision, startLsn } of starts) {
    if (startLsn !== unplaced) placed = placeStart(placed, revision, startLsn) ?? placed;
  }
  return placed;
}

/** @returns undefined where there is no such start, or it has its place */
function placeStart(subscription: Subscription, revision: bigint, startLsn: bigint): Subscription | undefined {
  if (revision === startRevisionOf(subscription)) return subscription.startLsn === unplaced ? { ...subscription, startLsn } : undefined;
  const start = subscription.former?.find((one) => one.revision === revision);
  if (start?.startLsn !== unplaced) return undefined;
  return { ...subscription, former: subscription.former?.map((one) => (one === start ? { ...one, startLsn } : one)) };
}
