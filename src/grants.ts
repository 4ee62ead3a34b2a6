import pg from "pg";
import type { Catalogue } from "./event/catalogue.ts";
import { quoteTable } from "./store/tables.ts";

/**
 * What the role of `ancrage start` needs, and no more: the schema `ancrage`, with what is made in it later by the same owner, and to read
 * the tables of the events. What payloads read beside with `load` and `sql` is not known here.
 */
export function planGrants(role: string, catalogue: Catalogue): readonly string[] {
  const to = `to ${pg.escapeIdentifier(role)}`;
  const rows = "select, insert, update, delete";
  const ofEvents = [...catalogue.events.values()].flatMap(({ table }) => (table === undefined ? [] : [table]));
  const tables = [...new Set([...ofEvents, ...[...catalogue.tables.values()].map(({ table }) => table)])];
  const schemas = [...new Set(tables.map(({ schema }) => schema))];
  return [
    `grant usage on schema ancrage ${to}`,
    `grant ${rows} on all tables in schema ancrage ${to}`,
    `grant usage, select on all sequences in schema ancrage ${to}`,
    `grant execute on all functions in schema ancrage ${to}`,
    `alter default privileges in schema ancrage grant ${rows} on tables ${to}`,
    `alter default privileges in schema ancrage grant usage, select on sequences ${to}`,
    `alter default privileges in schema ancrage grant execute on functions ${to}`,
    ...schemas.map((schema) => `grant usage on schema ${pg.escapeIdentifier(schema)} ${to}`),
    ...(tables.length === 0 ? [] : [`grant select on ${tables.map(quoteTable).join(", ")} ${to}`]),
  ];
}
