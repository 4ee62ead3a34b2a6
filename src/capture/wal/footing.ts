import type { Catalogue } from "../../event/catalogue.ts";
import { readFooting as readRows, type Footing } from "../../store/capture-state.ts";
import type { Queryable } from "../../store/database.ts";
import type { CaptureNames } from "./slot.ts";

export async function readFooting(db: Queryable, catalogue: Catalogue, names: CaptureNames): Promise<Footing> {
  const publications = [names.publication, names.insertPublication];
  const oids = [...catalogue.tables.values()].map(({ table }) => table.oid);
  // What is tracked and not there is said as well: it has no place.
  const absent = Object.fromEntries([...publications, ...oids.map((oid) => `table ${oid}`)].map((name) => [name, []]));
  return { ...absent, ...(await readRows(db, publications, oids)) };
}

/**
 * Whether something was taken from under capture and put back since: PostgreSQL 18 then goes on without the changes of that time, and
 * says nothing. A table that moves from one publication to the other stands in both for a moment, and so was always in one.
 *
 * @returns what was; what is not tracked any more, or was not before, is not among it
 */
export function changedFooting(before: Footing, now: Footing): readonly string[] {
  return Object.entries(before)
    .filter(([name, oids]) => {
      const present = now[name];
      return present !== undefined && oids.length > 0 && !oids.some((oid) => present.includes(oid));
    })
    .map(([name]) => name);
}
