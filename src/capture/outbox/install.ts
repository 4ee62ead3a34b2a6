import pg from "pg";
import type { Catalogue, TrackedTable } from "../../event/catalogue.ts";
import type { OutboxFunctionRow, OutboxTriggerRow } from "../../store/outbox-triggers.ts";
import { quoteTable } from "../../store/tables.ts";
import type { PlanStep } from "../wal/slot.ts";

/** What there is, as `planOutbox` compares it with what is needed. */
export interface OutboxState {
  readonly functions: readonly OutboxFunctionRow[];
  readonly triggers: readonly OutboxTriggerRow[];
}

/**
 * The first of a table's triggers, in the order of their names: before those of foreign keys, whose deletions come after the one that
 * caused them, as in the log.
 */
export const rowTrigger = "00_ancrage";
const truncateTrigger = "00_ancrage_truncate";

/** The bits of `pg_trigger.tgtype`. */
const forEachRow = 1;
const onInsert = 4;
const onDelete = 8;
const onUpdate = 16;
const onTruncate = 32;

/**
 * The statements that the outbox still lacks: a function and two triggers for each tracked table. A partitioned table's are on its root,
 * and PostgreSQL gives them to its partitions, those of later included.
 *
 * Always enabled: rows that a replication of the application's own brings are written with `session_replication_role = replica`.
 */
export function planOutbox(catalogue: Catalogue, { functions, triggers }: OutboxState): readonly PlanStep[] {
  const tracked = [...catalogue.tables.values()];
  const wanted = tracked.flatMap(wantedTriggers);
  const sourceOf = new Map(functions.map(({ name, source }) => [name, source]));
  const isThere = (one: WantedTrigger): boolean =>
    triggers.some(
      (found) =>
        found.tableOid === one.tableOid &&
        found.name === one.name &&
        found.function === one.function &&
        found.type === one.type &&
        found.enabled === "A",
    );
  const isWanted = (found: OutboxTriggerRow): boolean =>
    wanted.some(({ tableOid, name }) => tableOid === found.tableOid && name === found.name);
  const names = new Set(tracked.map(({ table }) => functionName(table.oid)));
  const needed = (sql: string): PlanStep => ({ sql, isNeeded: true, makesSlot: false });
  const tidying = (sql: string): PlanStep => ({ sql, isNeeded: false, makesSlot: false });
  const changed = tracked.filter((table) => sourceOf.get(functionName(table.table.oid)) !== functionBody(table));
  return [
    ...changed.map(createFunctionSql).map(needed),
    ...wanted.filter((one) => !isThere(one)).flatMap(({ sql }) => sql.map(needed)),
    ...triggers.filter((found) => !isWanted(found)).map((found) => tidying(dropTriggerSql(found))),
    ...functions.filter(({ name }) => !names.has(name)).map(({ name }) => tidying(dropFunctionSql(name))),
  ];
}

/** Takes the outbox's triggers and functions away. */
export function planOutboxRemoval({ functions, triggers }: OutboxState): readonly string[] {
  return [...triggers.map(dropTriggerSql), ...functions.map(({ name }) => dropFunctionSql(name))];
}

const functionName = (oid: number): string => `capture_${oid}`;
const dropTriggerSql = (found: OutboxTriggerRow): string => `drop trigger ${pg.escapeIdentifier(found.name)} on ${quoteTable(found)}`;
const dropFunctionSql = (name: string): string => `drop function ancrage.${pg.escapeIdentifier(name)}()`;

interface WantedTrigger extends Pick<OutboxTriggerRow, "tableOid" | "name" | "function" | "type"> {
  readonly sql: readonly string[];
}

function wantedTriggers({ table, readsUpdatesOrDeletes }: TrackedTable): readonly WantedTrigger[] {
  const name = quoteTable(table);
  const of = (trigger: string, type: number, events: string, each: string): WantedTrigger => ({
    tableOid: table.oid,
    name: trigger,
    function: functionName(table.oid),
    type,
    sql: [
      `create or replace trigger "${trigger}" after ${events} on ${name} for each ${each} execute function ancrage.${functionName(table.oid)}()`,
      `alter table ${name} enable always trigger "${trigger}"`,
    ],
  });
  const [type, events] = readsUpdatesOrDeletes
    ? [forEachRow | onInsert | onUpdate | onDelete, "insert or update or delete"]
    : [forEachRow | onInsert, "insert"];
  return [of(rowTrigger, type, events, "row"), of(truncateTrigger, onTruncate, "truncate", "statement")];
}

/** As the log's session has them: the text of a value follows the settings of whoever writes it. */
const settings = `set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'
  set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C'`;

function createFunctionSql(tracked: TrackedTable): string {
  return `create or replace function ancrage.${functionName(tracked.table.oid)}() returns trigger language plpgsql security definer
  ${settings} as ${pg.escapeLiteral(functionBody(tracked))}`;
}

/**
 * Which outbox a transaction writes is as `ancrage.outbox_turn` has it, in line: a call would cost each row a microsecond.
 *
 * The table is a constant, so that the call of `columns_of` is folded into the plan, and the plan is made anew when the table changes. A
 * partition may have its columns in another order: those of the row are asked for each time.
 */
function functionBody({ table, needsOldValues }: TrackedTable): string {
  const columns = table.isPartitioned ? "ancrage.columns_of(tg_relid)" : `ancrage.columns_of(${table.oid}::regclass)`;
  const insert = (turn: string): string =>
    `insert into ancrage.outbox_${turn} (id, kind, root, columns, new_row, old_row)
      values (number, row_kind, ${table.oid}::regclass, ${columns}, new_text, old_text)`;
  return `
declare
  number   bigint := nextval('ancrage.outbox_id'::regclass);
  turn     text := current_setting('ancrage.outbox_turn', true);
  row_kind "char" := lower(left(tg_op, 1));
  new_text text;
  old_text text;
begin
  if tg_op in ('INSERT', 'UPDATE') then
    new_text := new::text;
  end if;
  if tg_op in (${needsOldValues ? "'UPDATE', 'DELETE'" : "'DELETE'"}) then
    old_text := old::text;
  end if;
  if turn is null or turn not in ('a', 'b') then
    turn := case when number & 4294967296 = 0 then 'a' else 'b' end;
    perform set_config('ancrage.outbox_turn', turn, true);
  end if;
  if turn = 'a' then
    ${insert("a")};
  else
    ${insert("b")};
  end if;
  return null;
end
`;
}
