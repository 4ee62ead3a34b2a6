import { createReadableBuilder, type LackingOfEvents, type ReadableBuilder, type ReadableBuilderOptions } from "./build-readable.ts";
import { askedOf } from "./capture/lacking.ts";
import { comparePositions, type Captured, type Change, type Position, type SubscriptionMark, type TriggerMark } from "./capture/change.ts";
import { AncrageError } from "./errors.ts";
import type { Catalogue } from "./event/catalogue.ts";
import { computeMessageId, rejectionIdOf } from "./message-id.ts";
import { matchChange, matchTrigger, type Matched, type Occurrence, type Unmatched } from "./match.ts";
import type { Message, MessageOrigin, Rejection } from "./message.ts";
import type { PayloadDeps } from "./payload/build.ts";
import { describeThrown } from "./payload/describe.ts";
import { formatOccurrence } from "./payload/occurrence-bytes.ts";
import { countRejection, isParked, parkedAfterRejections, type RejectionCounts, type RejectionReason } from "./payload/reject.ts";

/** What came of an explicit trigger. */
export type TriggerCame =
  | { readonly kind: "message"; readonly messageId: string }
  | { readonly kind: "rejected"; readonly rejectionId: string }
  /** The payload function returned `undefined`. */
  | { readonly kind: "nothing" };

/** What a stretch of the log became. Messages and rejections are in the order of their positions. */
export interface Built {
  readonly messages: readonly Message[];
  readonly rejections: readonly Rejection[];
  readonly subscriptions: readonly SubscriptionMark[];
  readonly triggers: readonly { readonly id: string; readonly came: TriggerCame }[];
  /** Everything up to here is in it; undefined for an empty stretch. */
  readonly passed: Position | undefined;
  /** The end of the last whole transaction in it; 0 where it has none. */
  readonly endLsn: bigint;
}

/** An event whose code is not run any more; of a file of tracking handlers `event` is undefined. */
export interface Parked {
  readonly event: string | undefined;
  readonly file: string;
}

export interface MessageBuilder {
  /** @returns undefined where it was to stop while the database could not be read */
  build(captured: readonly Captured[]): Promise<Built | undefined>;
  /** Events, and files of handlers, whose code is not run for now: it was rejected too often with no success in between. */
  parked(): readonly string[];
  /** Runs the code of an event, or of a tracking file, again: it was seen to work. */
  unpark(name: string): void;
  /** What cannot be built for now, and what is rejected for its time. */
  readonly readable: Pick<ReadableBuilder, "held" | "slow">;
}

export interface MessageBuilderOptions extends ReadableBuilderOptions {
  readonly sourceId: string;
  readonly catalogue: Catalogue;
  readonly payload: PayloadDeps;
  /** Told when an event, or a file of handlers, is parked. */
  readonly onParked?: ((parked: Parked) => void) | undefined;
}

const largestLsn = 0xffff_ffff_ffff_ffffn;

/** match → payload: from changes and explicit triggers to the messages that are journaled. */
export function createMessageBuilder(options: MessageBuilderOptions): MessageBuilder {
  const { sourceId, catalogue, log } = options;
  // Replaced, never changed, as a batch is done: one that is built again does not count twice.
  let counts: RejectionCounts = new Map();
  /**
   * Events and files whose code reads a column that is not there: parked, it is asked all the same, which fails at once, and each change
   * is kept, so that all of them can be sent once it is mended.
   */
  const ofColumns = new Set<string>();
  const readable = createReadableBuilder(options);
  const deps: PayloadDeps = { ...options.payload, isParked: (event) => isParked(counts, event) };

  const idOf = (event: string, key: string, at: Pick<Occurrence, "transaction" | "position">): string =>
    computeMessageId({ sourceId, event, key, transaction: at.transaction, position: at.position });

  const toMessage = (occurrence: Occurrence, project: string, json: string): Message => ({
    id: idOf(occurrence.event.name, occurrence.key, occurrence),
    project,
    event: occurrence.event.name,
    key: occurrence.key,
    position: occurrence.position,
    committedAtUs: occurrence.transaction.committedAtUs,
    origin: originOf(occurrence),
    body: Buffer.from(json, "utf8"),
    envelopes: {},
  });

  const toRejection = (
    happened: Occurrence | Unmatched,
    why: { readonly project: string | undefined; readonly reason: RejectionReason; readonly error: string },
  ): Rejection => ({
    id: rejectionIdOf(idOf(happened.event.name, happened.key, happened)),
    project: why.project ?? "default",
    event: happened.event.name,
    key: happened.key,
    position: happened.position,
    committedAtUs: happened.transaction.committedAtUs,
    reason: why.reason,
    error: why.error,
    occurrence: formatOccurrence(happened),
  });

  const toUnmatchedRejection = (unmatched: Unmatched, error: string): Rejection =>
    toRejection(unmatched, { project: undefined, reason: unmatched.cause, error });

  const count = (event: string, came: RejectionReason | "success"): void => {
    const before = counts;
    counts = countRejection(counts, event, came);
    if (counts !== before && isParked(counts, event)) {
      log.error({ event }, `${event} is parked: ${parkedAfterRejections} rejections with no success between. Mend it and restart.`);
      const found = catalogue.events.get(event);
      options.onParked?.({ event: found?.name, file: found?.file ?? event });
    }
  };

  const match = (change: Change): Matched => matchChange(change, catalogue, (name) => isParked(counts, name) && !ofColumns.has(name));

  /**
   * What rules and handlers say of the changes. Those that read a column which the log did not carry are asked again once it was read.
   *
   * @returns undefined where it was to stop while the database could not be read
   */
  const matchChanges = async (captured: readonly Captured[]): Promise<ReadonlyMap<Change, Matched> | undefined> => {
    const matched = new Map<Change, Matched>();
    for (const item of captured) if (item.kind === "change") matched.set(item, match(item));
    for (;;) {
      const asking = [...matched.keys()].filter(({ after }) => askedOf(after).length > 0);
      if (asking.length === 0) return matched;
      if ((await readable.read(asking.flatMap(lackingOf), deps)) === undefined) return undefined;
      for (const change of asking) matched.set(change, match(change));
    }
  };

  const lackingOf = ({ table: name, key, after: row }: Change): readonly LackingOfEvents[] => {
    const tracked = catalogue.tables.get(name);
    if (tracked === undefined || row === undefined) return [];
    const events = [...tracked.events.map((event) => event.name), ...tracked.handlers.map(({ file }) => file)];
    return [{ table: tracked.table, key, row, events }];
  };

  const logRejection = ({ event, key, reason, error }: Rejection): void => log.warn({ event, key, reason, error }, "rejected");

  return {
    readable,
    parked: () => [...counts.keys()].filter((name) => isParked(counts, name)),
    unpark(name) {
      counts = new Map([...counts].filter(([counted]) => counted !== name));
    },
    async build(captured) {
      const occurrences: Occurrence[] = [];
      const unmatched: Unmatched[] = [];
      /** By event or file: what is parked and was not asked about changes of this stretch. */
      const unasked = new Map<string, { readonly first: Unmatched; readonly count: number }>();
      const handled: (readonly [file: string, came: "handler-threw" | "success"])[] = [];
      const subscriptions: SubscriptionMark[] = [];
      const marks = new Map<Occurrence | Unmatched, TriggerMark>();
      let passed: Position | undefined;
      let endLsn = 0n;
      const take = (matched: Matched): void => {
        for (const one of matched.occurrences) occurrences.push(one);
        for (const one of matched.unmatched) {
          if (isOfColumns(one.error)) ofColumns.add(one.event.name);
          else ofColumns.delete(one.event.name);
          if (one.cause !== "event-parked") unmatched.push(one);
          else
            unasked.set(one.event.name, {
              first: unasked.get(one.event.name)?.first ?? one,
              count: (unasked.get(one.event.name)?.count ?? 0) + 1,
            });
          if (one.cause === "handler-threw") handled.push([one.event.name, one.cause]);
        }
        for (const file of matched.handledBy) handled.push([file, "success"]);
      };
      const changes = await matchChanges(captured);
      if (changes === undefined) return undefined;
      for (const item of captured) {
        switch (item.kind) {
          case "change":
            passed = item.position;
            take(changes.get(item) ?? match(item));
            break;
          case "trigger": {
            passed = item.position;
            const matched = matchTrigger(item, catalogue);
            take(matched);
            for (const one of [...matched.occurrences, ...matched.unmatched]) marks.set(one, item);
            break;
          }
          case "subscription":
            passed = item.position;
            subscriptions.push(item);
            break;
          case "commit":
            // All of the transaction, whatever of it was not ours to read.
            passed = { commitLsn: item.transaction.commitLsn, changeLsn: largestLsn, ordinal: 0 };
            endLsn = item.endLsn;
            break;
          default:
            item satisfies never;
        }
      }
      const payloads = await readable.build(occurrences, deps);
      if (payloads === undefined) return undefined;
      const messages: Message[] = [];
      const rejections: Rejection[] = [];
      const triggers: { readonly id: string; readonly came: TriggerCame }[] = [];
      for (const [file, came] of handled) count(file, came);
      // One for all of a stretch: a bulk update would fill the journal with as many rows, and none of them says more than the first.
      for (const [name, { first, count: changes }] of unasked) {
        const error = `${name} is parked: it was not asked about ${changes} changes, of which this is the first.`;
        const rejection = toUnmatchedRejection(first, error);
        rejections.push(rejection);
        logRejection(rejection);
      }
      for (const one of unmatched) {
        const rejection = toUnmatchedRejection(one, describeThrown(one.error, one.event.name));
        rejections.push(rejection);
        if (one.cause === "where-threw") count(one.event.name, one.cause);
        const mark = marks.get(one);
        if (mark !== undefined) triggers.push({ id: mark.id, came: rejected(rejection) });
        logRejection(rejection);
      }
      for (const [index, occurrence] of occurrences.entries()) {
        const payload = payloads[index];
        if (payload === undefined) throw new RangeError(`no payload for occurrence ${index} of ${occurrences.length}`);
        count(occurrence.event.name, payload.kind === "rejected" ? payload.reason : "success");
        let came: TriggerCame = { kind: "nothing" };
        if (payload.kind === "built") {
          const message = toMessage(occurrence, payload.project, payload.json);
          messages.push(message);
          came = { kind: "message", messageId: message.id };
        } else if (payload.kind === "rejected") {
          const rejection = toRejection(occurrence, payload);
          rejections.push(rejection);
          came = rejected(rejection);
          logRejection(rejection);
        }
        const mark = marks.get(occurrence);
        if (mark !== undefined) triggers.push({ id: mark.id, came });
      }
      rejections.sort((a, b) => comparePositions(a.position, b.position));
      return { messages, rejections, subscriptions, triggers, passed, endLsn };
    },
  };
}

const isOfColumns = (error: unknown): boolean => error instanceof AncrageError && error.code === "ANCRAGE_COLUMN_NOT_LOGGED";

/** What keeps the message from those who made it happen. */
export function originOf({ event, actor, causedBy }: Pick<Occurrence, "event" | "actor" | "causedBy">): MessageOrigin | undefined {
  if (actor === undefined && causedBy === undefined) return undefined;
  const isEcho = event.definition.echo === true;
  return {
    actor: isEcho ? undefined : actor,
    causedBy: isEcho ? undefined : causedBy?.subscriptionId,
    depth: causedBy?.depth ?? 0,
  };
}

const rejected = (rejection: Rejection): TriggerCame => ({ kind: "rejected", rejectionId: rejection.id });
