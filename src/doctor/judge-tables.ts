import type { PlanStep } from "../capture/wal/slot.ts";
import type { Catalogue } from "../event/catalogue.ts";
import type { RoleRow, TableRightsRow } from "../store/doctor.ts";
import { quoteTable, type TableInfo } from "../store/tables.ts";
import { fault, fine, type Finding } from "./finding.ts";

/** What capture lacks in this database, as `ancrage migrate` would make it: `--fix` runs that. */
export function judgePlan(plan: readonly PlanStep[], pending: number, command: string): readonly Finding[] {
  const needed = plan.filter(({ isNeeded, partition }) => isNeeded && partition === undefined);
  const partial = plan.filter(({ partition }) => partition !== undefined);
  const findings: Finding[] = [];
  if (pending > 0)
    findings.push({ ...fault("error", "schema", `the schema "ancrage" is not there or not up to date.`, command), isFixable: true });
  else findings.push(fine("schema", 'the schema "ancrage" is up to date'));
  if (needed.length > 0) {
    findings.push({
      ...fault(
        "error",
        "plan",
        `capture lacks ${needed.length === 1 ? "a statement" : `${needed.length} statements`} of what it stands on.`,
        pending > 0 ? "the same command makes them:" : `${command}   -- it runs:`,
        ...needed.map(({ sql }) => `  ${firstLine(sql)};`),
      ),
      isFixable: true,
    });
  } else findings.push(fine("plan", "what capture stands on is as the events need it"));
  if (partial.length > 0) {
    const what = `${partial.map(({ partition }) => partition).join(", ")}: a partition without "replica identity full" of a table whose old values are read; what compares them is a rejection there.`;
    findings.push({ ...fault("warning", "partition-identity", what, ...partial.map(({ sql }) => `${sql};`)), isFixable: true });
  }
  const extra = plan.length - needed.length - partial.length;
  if (extra > 0) findings.push(fine("extra-tables", "a publication holds tables that nothing reads; ancrage migrate takes them out"));
  return findings;
}

/** The body of a function is for `migrate` to run, and for nobody to read here. */
function firstLine(sql: string): string {
  const [first = "", ...rest] = sql.split("\n");
  return rest.length === 0 ? first : `${first} …`;
}

export interface TableFacts {
  readonly catalogue: Catalogue;
  readonly rights: readonly TableRightsRow[];
  readonly role: RoleRow;
}

/** The tables of the events: whether the role may read them, and whether the log holds their changes. */
export function judgeTables({ catalogue, rights, role }: TableFacts): readonly Finding[] {
  const rightsOf = new Map(rights.map((row) => [row.oid, row]));
  const tables = tablesOf(catalogue);
  const where = (test: (row: TableRightsRow) => boolean): readonly TableInfo[] =>
    tables.filter(({ oid }) => {
      const row = rightsOf.get(oid);
      return row !== undefined && test(row);
    });
  const findings: Finding[] = [];
  const unreadable = where(({ maySelect }) => !maySelect);
  if (unreadable.length > 0) {
    findings.push(
      fault(
        "error",
        "select",
        `the role "${role.name}" may not read ${namesOf(unreadable)}.`,
        `grant select on ${unreadable.map(quoteTable).join(", ")} to "${role.name}";   -- as the owner, and usage on a schema that is not public`,
      ),
    );
  } else findings.push(fine("select", `"${role.name}" may read the ${tables.length} tables of the events`));
  const unlogged = where(({ isUnlogged }) => isUnlogged);
  if (unlogged.length > 0) {
    findings.push(
      fault(
        "error",
        "unlogged",
        `${namesOf(unlogged)}: an unlogged table, whose changes are in no log.`,
        ...unlogged.map((table) => `alter table ${quoteTable(table)} set logged;`),
      ),
    );
  }
  const hidden = role.bypassesRls ? [] : where(({ hasRls }) => hasRls);
  if (hidden.length > 0) {
    findings.push(
      fault(
        "warning",
        "row-security",
        `${namesOf(hidden)}: row-level security hides rows from "${role.name}": load, sql and samples do not see them, while the log does.`,
        `alter role "${role.name}" bypassrls;   -- as a superuser, or a policy for this role`,
      ),
    );
  }
  const keyless = [...catalogue.tables.values()].filter(({ table }) => table.keyColumns.length === 0).map(({ table }) => table);
  if (keyless.length > 0) {
    findings.push(fault("error", "key", `${namesOf(keyless)}: no primary key, so that nothing says of which record a change is.`));
  }
  return findings;
}

/** What the role of a running process may not do in our own schema. */
export function judgeOurs(denied: readonly string[] | undefined, role: string, command: string): readonly Finding[] {
  if (denied === undefined) return [];
  if (denied.length === 0) return [fine("rights", `"${role}" may use the schema "ancrage"`)];
  return [
    fault(
      "error",
      "rights",
      `the role "${role}" may not use ${denied.length > 3 ? `${denied.slice(0, 3).join(", ")} and ${denied.length - 3} more` : denied.join(", ")}.`,
      `${command} --grant-to ${role}   -- with DATABASE_URL of the schema's owner`,
    ),
  ];
}

/** Those that a running process reads: of events, also of those that are only triggered, and of handlers. */
export function tablesOf(catalogue: Catalogue): readonly TableInfo[] {
  const ofEvents = [...catalogue.events.values()].flatMap(({ table }) => (table === undefined ? [] : [table]));
  return [...new Set([...ofEvents, ...[...catalogue.tables.values()].map(({ table }) => table)])];
}

const namesOf = (tables: readonly TableInfo[]): string => tables.map(({ name }) => name).join(", ");
