import { type Reader, readByKeys, readWhere } from "../store/read.ts";
import type { ValueTypes } from "../store/types.ts";
import type { RecordReaders } from "./load.ts";

/** What `load` reads with: the statements of `store/read.ts` over one pool. */
export function createRecordReaders(db: Reader, types: ValueTypes): RecordReaders {
  return {
    async byKeys(table, keys) {
      const found = await readByKeys(db, table, keys, { types });
      return new Map([...found].map(([key, { row }]) => [key, row]));
    },
    async where(table, conditions) {
      const found = await readWhere(db, table, conditions, { types });
      return found.map((records) => records.map(({ row }) => row));
    },
  };
}
