import type { Catalogue } from "../../event/catalogue.ts";
import { readPublishedPlaces, type Footing } from "../../store/capture-state.ts";
import type { Queryable } from "../../store/database.ts";
import { quoteTable } from "../../store/tables.ts";
import type { CaptureNames } from "./slot.ts";

/**
 * What the log's part stands on, by name: the oid of each publication, and for each tracked table the oids of its places in them. A
 * publication that was dropped and made again has another oid; a table that was taken out and put back, or made anew, another place.
 */
export async function readLogFooting(db: Queryable, catalogue: Catalogue, names: CaptureNames): Promise<Footing> {
  const publications = [names.publication, names.insertPublication];
  const tables = [...catalogue.tables.values()].map(({ table }) => table);
  const found = await readPublishedPlaces(
    db,
    publications,
    tables.map(({ oid }) => oid),
  );
  // What is tracked and not there is said as well: it has no place.
  return Object.fromEntries([
    ...publications.map((name) => [name, found.publications.get(name) ?? []] as const),
    ...tables.map((table) => [`the table ${quoteTable(table)}`, found.tables.get(table.oid) ?? []] as const),
  ]);
}
