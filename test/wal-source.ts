import { pino } from "pino";
import { readCapturePlan } from "../src/capture/check.ts";
import type { Captured, ResumePoint } from "../src/capture/change.ts";
import { startOfLog } from "../src/capture/change.ts";
import { captureNames, type CaptureNames } from "../src/capture/wal/slot.ts";
import { WalSource, type WalSourceOptions } from "../src/capture/wal/source.ts";
import { systemClock } from "../src/clock.ts";
import type { Catalogue } from "../src/event/catalogue.ts";
import { parseLsn } from "../src/lsn.ts";
import { readServerIdentity, readSlot } from "../src/store/capture-state.ts";
import { readSettings } from "../src/store/settings.ts";
import { readTables, type TableInfo } from "../src/store/tables.ts";
import { readTypes } from "../src/store/types.ts";
import type { TestDatabase } from "./database.ts";
import { takeUntil } from "./take-until.ts";

export type Reads = "inserts" | "changes" | "old values";

/** What is read of which table, without events: what capture asks of a catalogue. */
export function catalogueOfTables(tables: readonly TableInfo[], reads: Readonly<Record<string, Reads>>): Catalogue {
  const allTables = new Map(tables.map((table) => [table.name, table]));
  const tracked = Object.entries(reads).map(([name, what]) => {
    const table = allTables.get(name);
    if (table === undefined) throw new Error(`no table ${name}`);
    return [
      name,
      { table, events: [], handlers: [], needsOldValues: what === "old values", readsUpdatesOrDeletes: what !== "inserts" },
    ] as const;
  });
  return { events: new Map(), tables: new Map(tracked), allTables, projectOf: () => "default" };
}

/** Identities, publications and slot for these tables, as `migrate` would make them. */
export async function migrateCapture(
  { client }: Pick<TestDatabase, "client">,
  reads: Readonly<Record<string, Reads>>,
): Promise<readonly string[]> {
  const { databaseOid } = await readServerIdentity(client);
  const plan = await readCapturePlan(client, catalogueOfTables(await readTables(client), reads), captureNames(databaseOid));
  for (const { sql } of plan) await client.query(sql);
  return plan.map(({ sql }) => sql);
}

export interface TestSource {
  readonly source: WalSource;
  readonly names: CaptureNames;
  /** Takes, a few at a time, until it is enough; no confirmation is given. */
  until(isEnough: (items: readonly Captured[]) => boolean, limit?: number): Promise<Captured[]>;
}

/** A source that reads the slot of this database from where it was confirmed, or from `resume`. */
export async function startSource(
  database: Pick<TestDatabase, "client" | "url">,
  options: Partial<WalSourceOptions> & { readonly resume?: ResumePoint } = {},
): Promise<TestSource> {
  const { resume, ...given } = options;
  const { source, names } = await createWalSource(database, given);
  const confirmed = (await readSlot(database.client, names.slot))?.confirmedLsn;
  await source.start(resume ?? { endLsn: parseLsn(confirmed ?? "0/0"), journaled: startOfLog });
  return {
    source,
    names,
    until: (isEnough, limit) => takeUntil(source, isEnough, limit),
  };
}

/** One that is not started. */
export async function createWalSource(
  { client, url }: Pick<TestDatabase, "client" | "url">,
  given: Partial<WalSourceOptions> = {},
): Promise<Pick<TestSource, "source" | "names">> {
  const { databaseOid } = await readServerIdentity(client);
  const names = captureNames(databaseOid);
  const settings = await readSettings(client);
  const source = new WalSource({
    connectionString: url,
    replicationUrl: url,
    slot: names.slot,
    publications: [names.publication, names.insertPublication],
    sourceId: "wal-test",
    tables: new Map((await readTables(client)).map((table) => [table.name, table])),
    types: await readTypes(client),
    triggerKey: settings!.triggerKey,
    clock: systemClock,
    log: pino({ level: process.env["LOG"] ?? "silent" }),
    ...given,
  });
  return { source, names };
}

/** Whether so many transactions are whole. */
export const commits =
  (count: number) =>
  (items: readonly Captured[]): boolean =>
    items.filter((item) => item.kind === "commit").length >= count;
