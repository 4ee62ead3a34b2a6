import type { Catalogue } from "../../event/catalogue.ts";
import type { Footing } from "../../store/capture-state.ts";
import { quoteTable } from "../../store/tables.ts";
import { rowTrigger, type OutboxState } from "./install.ts";

/**
 * What an outbox stands on, by name: for each tracked table the version of its trigger and of the function that it calls. Whoever drops or
 * disables one, or makes the table anew, changes it, also where all is as it was a moment later: what was written meanwhile is in no outbox.
 */
export function triggerFooting(catalogue: Catalogue, { functions, triggers }: OutboxState): Footing {
  const versionOf = new Map(functions.map(({ name, version }) => [name, version]));
  return Object.fromEntries(
    [...catalogue.tables.values()].map(({ table }) => {
      const found = triggers.find((trigger) => trigger.tableOid === table.oid && trigger.name === rowTrigger);
      const version =
        found === undefined ? [] : [`${table.oid} ${found.version} ${found.enabled} ${versionOf.get(found.function) ?? "none"}`];
      return [`the trigger on ${quoteTable(table)}`, version];
    }),
  );
}
