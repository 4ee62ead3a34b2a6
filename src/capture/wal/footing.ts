import type { Catalogue } from "../../event/catalogue.ts";
import { readPublishedPlaces, type Footing } from "../../store/capture-state.ts";
import type { Queryable } from "../../store/database.ts";
import type { CaptureNames } from "./slot.ts";

/**
 * What the log's part stands on: the oid of each publication, and for each tracked table the oids of its places in them. A publication
 * that was dropped and made again has another oid, a table that was taken out and put back another place.
 */
export async function readLogFooting(db: Queryable, catalogue: Catalogue, names: CaptureNames): Promise<Footing> {
  const publications = [names.publication, names.insertPublication];
  const oids = [...catalogue.tables.values()].map(({ table }) => table.oid);
  // What is tracked and not there is said as well: it has no place.
  const absent = Object.fromEntries([...publications, ...oids.map((oid) => `table ${oid}`)].map((name) => [name, []]));
  return { ...absent, ...(await readPublishedPlaces(db, publications, oids)) };
}
