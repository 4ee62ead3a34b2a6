import { pino } from "pino";
import { startOfLog, type ResumePoint } from "../src/capture/change.ts";
import { planOutbox } from "../src/capture/outbox/install.ts";
import { OutboxSource, type OutboxSourceOptions } from "../src/capture/outbox/source.ts";
import { systemClock } from "../src/clock.ts";
import { readSettings } from "../src/store/settings.ts";
import { readOutboxFunctions, readOutboxTriggers } from "../src/store/outbox-triggers.ts";
import { readTables } from "../src/store/tables.ts";
import { readTypes } from "../src/store/types.ts";
import type { TestDatabase } from "./database.ts";
import { catalogueOfTables, type Reads } from "./wal-source.ts";

/** The triggers for these tables, as `migrate` would make them. */
export async function installOutbox(
  { client }: Pick<TestDatabase, "client">,
  reads: Readonly<Record<string, Reads>>,
): Promise<readonly string[]> {
  const state = { functions: await readOutboxFunctions(client), triggers: await readOutboxTriggers(client) };
  const plan = planOutbox(catalogueOfTables(await readTables(client), reads), state);
  for (const { sql } of plan) await client.query(sql);
  return plan.map(({ sql }) => sql);
}

/** Marks go into the outbox too. */
export async function migrateOutbox(database: Pick<TestDatabase, "client">, reads: Readonly<Record<string, Reads>>): Promise<void> {
  await installOutbox(database, reads);
  await database.client.query("update ancrage.settings set capture = 'outbox'");
}

export async function startOutboxSource(
  { client, url }: Pick<TestDatabase, "client" | "url">,
  options: Partial<OutboxSourceOptions> & { readonly resume?: ResumePoint } = {},
): Promise<OutboxSource> {
  const { resume, ...given } = options;
  const settings = await readSettings(client);
  const source = new OutboxSource({
    connectionString: url,
    sourceId: "wal-test",
    tables: new Map((await readTables(client)).map((table) => [table.name, table])),
    types: await readTypes(client),
    triggerKey: settings!.triggerKey,
    assertWhole: () => Promise.resolve(),
    clock: systemClock,
    log: pino({ level: process.env["LOG"] ?? "silent" }),
    ...given,
  });
  await source.start(resume ?? { endLsn: 0n, journaled: startOfLog });
  return source;
}
