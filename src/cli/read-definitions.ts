import { join } from "node:path";
import { buildCatalogue, type Catalogue } from "../event/catalogue.ts";
import { discover, findEventFiles, keepFound } from "../event/discover.ts";
import { generateTypes, writeTypes } from "../event/generate.ts";
import { connectClient } from "../store/database.ts";
import { readTables, type TableInfo } from "../store/tables.ts";
import { readTypes, type ValueTypes } from "../store/types.ts";

export interface DatabaseShape {
  readonly tables: readonly TableInfo[];
  readonly types: ValueTypes;
}

export async function readDatabaseShape(database: string): Promise<DatabaseShape> {
  const client = await connectClient({ connectionString: database, applicationName: "ancrage generate" });
  try {
    return { tables: await readTables(client), types: await readTypes(client) };
  } finally {
    await client.end();
  }
}

export interface WrittenTypes {
  readonly path: string;
  readonly isChanged: boolean;
}

/** Writes `ancrage.d.ts` of a folder. Event files with a mistake are in it too: the types help to mend them. */
export async function writeFolderTypes(folder: string, { tables, types }: DatabaseShape): Promise<WrittenTypes> {
  const { events } = await findEventFiles(folder);
  const text = generateTypes({ tables, events, tsTypeOf: (column) => types.tsType(column.typeOid) });
  return { path: join(folder, "ancrage.d.ts"), isChanged: await writeTypes(folder, text) };
}

/** What a folder defines, without a fault. */
export interface CheckedDefinitions {
  readonly catalogue: Catalogue;
  /** What was checked, to be run as it is: see `keepFound`. */
  readonly source: ReturnType<typeof keepFound>;
}

/**
 * Imports and checks what a folder defines: for `dev`, by which a folder may be written that has nothing in it yet.
 *
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID` with all faults
 */
export async function checkDefinitions(folder: string, { tables }: DatabaseShape): Promise<CheckedDefinitions> {
  const discovered = await discover(folder, { mayBeEmpty: true });
  return { catalogue: buildCatalogue({ ...discovered, tables }), source: keepFound(discovered) };
}
