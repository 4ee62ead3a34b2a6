import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ColumnInfo, TableInfo } from "../store/tables.ts";
import type { EventFile } from "./discover.ts";

export interface GenerateInput {
  readonly tables: readonly TableInfo[];
  /** From `findEventFiles`: a file with a mistake is named as well, so that the editor can show the mistake. */
  readonly events: readonly EventFile[];
  /** How TypeScript names a value of the column that is not null. */
  readonly tsTypeOf: (column: ColumnInfo) => string;
}

/**
 * Writes the text of `ancrage.d.ts`: the database's tables and the folder's events, for `defineEvent` and `track` to check against.
 *
 * It depends on nothing but its input, and has no date in it: the file may be committed, and changes only when what it describes does.
 */
export function generateTypes(input: GenerateInput): string {
  const tables = input.tables.toSorted((a, b) => compareTexts(a.name, b.name));
  const events = input.events.toSorted((a, b) => compareTexts(a.name, b.name));
  const nameOf = interfaceNames(tables);
  const records = tables.map((table) => formatRecord(nameOf(table), table, input.tsTypeOf));
  const tableLines = tables.map((table) => `      ${propertyName(table.name)}: ${nameOf(table)};`);
  const eventLines = events.map(
    (event) => `      ${propertyName(event.name)}: typeof import(${JSON.stringify(`./${event.file}`)}).default;`,
  );
  return `${header}
import "ancrage";

${records.join("\n")}
declare module "ancrage" {
  interface Register {
${formatMember("tables", tableLines)}
${formatMember("events", eventLines)}
  }
}
`;
}

/**
 * Writes `ancrage.d.ts` into the folder if its text changed. An editor and a file watcher see a write as a change, whatever it wrote.
 *
 * @returns whether it was written
 */
export async function writeTypes(folder: string, text: string): Promise<boolean> {
  const path = join(folder, "ancrage.d.ts");
  if ((await readIfThere(path)) === text) return false;
  await writeFile(path, text);
  return true;
}

const header = `// Written by "ancrage generate" from the database and the events of this folder. Do not edit it: run the command again
// (\`ancrage dev\` does) after a migration, or when an event file comes or goes.`;

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/** Named, so that the compiler's messages say `DealRecord` and not all of its columns. */
function formatRecord(name: string, table: TableInfo, tsTypeOf: (column: ColumnInfo) => string): string {
  const columns = table.columns.map((column) => {
    const type = column.isNullable ? `${tsTypeOf(column)} | null` : tsTypeOf(column);
    return `  /** ${describeColumn(column)} */\n  readonly ${propertyName(column.name)}: ${type};\n`;
  });
  return `interface ${name} {\n${columns.join("")}}\n`;
}

/** A type name may be anything in quotes, the end of a comment included. */
function describeColumn(column: ColumnInfo): string {
  const type = column.typeName.replaceAll("*/", "*\\/").replaceAll(/\s+/g, " ");
  return column.isGenerated ? `${type}, generated: the log does not carry it, it is read as it is now.` : type;
}

function formatMember(name: string, lines: readonly string[]): string {
  return lines.length === 0 ? `    ${name}: {};` : `    ${name}: {\n${lines.join("\n")}\n    };`;
}

/** `sales.deal` → `SalesDealRecord`. Two tables may come to the same name (`a_b`, `a.b`): the later gets a number. */
function interfaceNames(tables: readonly TableInfo[]): (table: TableInfo) => string {
  const names = new Map<TableInfo, string>();
  const taken = new Set<string>();
  for (const table of tables) {
    const words = table.name.split(/[^\p{L}\p{N}]+/u).filter((word) => word !== "");
    const base = words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join("");
    const prefix = /^\p{L}/u.test(base) ? base : `Table${base}`;
    let name = `${prefix}Record`;
    for (let number = 2; taken.has(name); number++) name = `${prefix}${number}Record`;
    taken.add(name);
    names.set(table, name);
  }
  return (table) => names.get(table) ?? "never";
}

const propertyName = (name: string): string => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name));

/** By code unit and not by locale: the file must be the same on every machine. */
const compareTexts = (a: string, b: string): number => (a < b ? -1 : Number(a > b));
