import { readFeed, readReach, type FeedFilter, type MessageRow, type Reach } from "../store/messages.ts";
import { disorderMs } from "../message-id.ts";
import { search, type FoundPage } from "../search.ts";
import type { Queryable } from "../store/database.ts";

/**
 * The messages oldest first, for those who pull, in the order of their ids: of their commit times.
 *
 * Commit times go backwards by moments in the order of the log, and the reader's `after` passes over whatever comes in behind it. So
 * only what no later message can come before is shown: what was committed two seconds before a time up to which the journal is known
 * to be complete. The clock alone does not say that: while capture is behind, old messages come in now.
 */
export interface Feed {
  read(filter: FeedFilter & { readonly limit: number }): Promise<FoundPage<MessageRow, string>>;
}

export function createFeed(db: Queryable): Feed {
  let state: ReachState = { seen: [], completeToMs: 0 };
  return {
    async read(filter) {
      const reach = await readReach(db);
      state = nextReach(state, reach);
      const beforeMs = Math.max(state.completeToMs, reach.newestCommitMs) - disorderMs;
      return await search<MessageRow, string>({
        ...filter,
        after: filter.after,
        look: ({ after, ...bounds }) => readFeed(db, { ...filter, after, beforeMs }, bounds),
        placeOf: ({ id }) => id,
      });
    },
  };
}

const mostSeen = 64;
const seenEveryMs = 1_000;

export interface ReachState {
  /** Ends of the log that were seen and not journaled yet, oldest first, each with when it was the end. */
  readonly seen: readonly { readonly lsn: bigint; readonly atMs: number }[];
  /** All that was committed before is in the journal. */
  readonly completeToMs: number;
}

/**
 * What a look at the journal and the log says of how far the journal is complete.
 *
 * The newest message's own time says it while messages come. After the last one it takes this: an end of the log that was seen some time
 * ago and is journaled now, if only as an idle position.
 */
export function nextReach({ seen, completeToMs }: ReachState, { journaledLsn, logLsn, nowMs }: Reach): ReachState {
  const journaled = seen.filter(({ lsn }) => lsn <= journaledLsn);
  const open = seen.filter(({ lsn }) => lsn > journaledLsn);
  const last = open.at(-1);
  const isNew = last === undefined || (open.length < mostSeen && nowMs - last.atMs >= seenEveryMs);
  return {
    seen: isNew ? [...open, { lsn: logLsn, atMs: nowMs }] : open,
    completeToMs: Math.max(completeToMs, journaled.at(-1)?.atMs ?? 0),
  };
}
