import pg from "pg";
import { checkDatabase, type CheckedDatabase } from "./capture/check.ts";
import { describeGap } from "./capture/loss.ts";
import { certifyFooting } from "./capture/footing.ts";
import { createSlotSql } from "./capture/wal/slot.ts";
import { AncrageError } from "./errors.ts";
import { buildCatalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { noteNewSlot, runAsReplication } from "./migrate.ts";
import type { CheckedOptions } from "./options.ts";
import { readResume } from "./read-resume.ts";
import { connectClient, endWithClient } from "./store/database.ts";
import { readEndlessGap, type Gap } from "./store/gaps.ts";
import { markUnplacedSubscriptions } from "./store/subscription-starts.ts";
import { readTables } from "./store/tables.ts";

export interface RecreatedSlot {
  readonly slot: string;
  /** What was not seen; undefined where nothing was ever journaled. */
  readonly gap: Gap | undefined;
  /** Events with rules: what may lack occurrences of that time. */
  readonly events: readonly string[];
}

/**
 * Drops the slot and makes it anew, at the present end of the log, and notes the gap: what lies between is lost, knowingly.
 *
 * @param how.isForced also where nothing is wrong with the slot
 * @throws AncrageError `ANCRAGE_SLOT_BUSY` while a process reads it; `ANCRAGE_COMMAND_FAILED` where nothing is wrong with it;
 * `ANCRAGE_NOT_MIGRATED`: a slot that is older than its publication is dead for ever; `ANCRAGE_DATABASE_COPIED`, `ANCRAGE_NOT_PERMITTED`
 */
export async function recreateSlot(
  options: CheckedOptions & { readonly database: string },
  how: { readonly isForced: boolean },
): Promise<RecreatedSlot> {
  const client = await connectClient({ connectionString: options.database, applicationName: "ancrage slot" });
  try {
    await endWithClient(client);
    const found = await discover(options.events ?? ".");
    const catalogue = buildCatalogue({ ...found, tables: await readTables(client), config: options });
    const checked = await checkDatabase(client, { catalogue, environment: options.environment });
    const { names, slot, sourceId, server } = checked;
    if (checked.lacks.length > 0) {
      throw new AncrageError("ANCRAGE_NOT_MIGRATED", "a publication or an identity is still as it was altered.", {
        hint: 'Run "ancrage migrate FOLDER" first: a slot that is older than its publication cannot be read.',
      });
    }
    if (slot !== undefined && slot.activePid !== null) {
      throw new AncrageError("ANCRAGE_SLOT_BUSY", `the session with pid ${slot.activePid} reads the replication slot "${names.slot}".`, {
        hint: "Capture works there. Stop that process if the slot is to be made anew all the same.",
      });
    }
    if (!how.isForced && slot !== undefined && !(await isLost(client, checked))) {
      throw new AncrageError(
        "ANCRAGE_COMMAND_FAILED",
        `nothing is wrong with the replication slot "${names.slot}": a start goes on from it.`,
        {
          hint: "With --force it is made anew all the same, and what it holds is lost.",
        },
      );
    }
    if (slot !== undefined) {
      await runAsReplication(client, `select pg_drop_replication_slot(${pg.escapeLiteral(names.slot)})`, options.replicationUrl);
    }
    await runAsReplication(client, createSlotSql(names.slot, options.failover && server.version >= 170_000), options.replicationUrl);
    const gap = await noteNewSlot(client, sourceId, names.slot);
    // What was altered before is in the gap: the next start need not find it once more.
    await certifyFooting(client, { reads: "log", catalogue, names });
    await markUnplacedSubscriptions(client);
    const events = [...catalogue.events.values()].filter(({ rules }) => rules.length > 0).map(({ name }) => name);
    return { slot: names.slot, gap, events };
  } finally {
    await client.end();
  }
}

async function isLost(client: pg.Client, checked: CheckedDatabase): Promise<boolean> {
  // Before PostgreSQL 18 a slot cannot be read across a time without its publication, and looks as good as any.
  if ((await readEndlessGap(client, checked.sourceId)) !== undefined) return true;
  return (await readResume(client, { ...checked, slotName: checked.names.slot })).kind === "lost";
}

/** What was done, and what is left to do, as a person reads it. */
export function formatRecreated({ slot, gap, events }: RecreatedSlot): string {
  if (gap === undefined) return `The replication slot "${slot}" was made anew. Nothing was journaled before, so nothing was missed.`;
  const since = gap.fromAt.toISOString();
  const until = gap.toAt?.toISOString() ?? "now";
  return [
    `The replication slot "${slot}" was made anew.`,
    `Gap ${gap.id}: ${describeGap(gap)}`,
    "",
    "What is left to do:",
    "  1. Restart Ancrage: it goes on from the new slot.",
    `  2. Backfill what was committed between ${since} and ${until}, as far as it matters, to each subscription that wants it`,
    `     (ancrage subscriptions list). With a column that says when a row was written:`,
    ...events.map((event) => `       ancrage backfill ${event} --subscription ID --where "updated_at between '${since}' and '${until}'"`),
    `     Updates and deletes of that time can no longer be told: only rows that are there now can be sent.`,
    `  3. Say that it is dealt with: ancrage gaps resolve ${gap.id}`,
  ].join("\n");
}
