import type { Clock } from "../clock.ts";
import { search } from "../search.ts";
import { listMessages, type MessageRow } from "../store/messages.ts";
import { type Reader, readByKeys, readNewest, readWhere } from "../store/read.ts";
import type { Queryable } from "../store/database.ts";
import type { ValueTypes } from "../store/types.ts";
import type { RecordReaders } from "./load.ts";
import type { SampleDeps } from "./sample.ts";

/** What `load` reads with: the statements of `store/read.ts` over one pool. */
export function createRecordReaders(db: Reader, types: ValueTypes): RecordReaders {
  return {
    async byKeys(table, keys, columns) {
      const found = await readByKeys(db, table, keys, { types, columns });
      return new Map([...found].map(([key, { row }]) => [key, row]));
    },
    async where(table, conditions) {
      const found = await readWhere(db, table, conditions, { types });
      return found.map((records) => records.map(({ row }) => row));
    },
  };
}

/** Messages older than this say little of what is sent now, and each day more is a partition more to look through. */
const messageDays = 30;
const dayMs = 86_400_000;
/** What was not found by then is none to show, as with records: `readNewest` gives up then. */
const messagesMs = 2_000;

/** What samples are read with: the newest records of the tables, and the newest messages of the journal. */
export function createSampleReaders(
  db: Reader & Queryable,
  types: ValueTypes,
  clock: Clock,
): Pick<SampleDeps, "newestRecords" | "newestMessages"> {
  return {
    newestRecords: (table, page) => readNewest(db, table, { types, ...page }),
    async newestMessages(event, project, limit) {
      const nowMs = clock.nowMs();
      // The database's clock may be ahead of ours.
      const filter = { event, project, range: { fromMs: nowMs - messageDays * dayMs, toMs: nowMs + dayMs } };
      const { rows } = await search<MessageRow, string>({
        after: undefined,
        limit,
        look: ({ after, ...bounds }) => listMessages(db, { ...filter, after }, bounds),
        placeOf: ({ id }) => id,
        budgetMs: messagesMs,
      });
      return rows;
    },
  };
}
