import { suggestName, suggestTable } from "../nearest-name.ts";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ColumnInfo, TableInfo } from "../store/tables.ts";
import type { FoundEvent } from "./discover.ts";
import { describeValue, type Fault, type FaultHere, faultOfMissingKey, isAsync } from "./fault.ts";

/**
 * Checks one definition as far as can be done without running it.
 *
 * It trusts no static type: the file may be JavaScript, or TypeScript that nobody compiled.
 */
export function checkEvent(found: FoundEvent, tables: ReadonlyMap<string, TableInfo>): Fault[] {
  const definition: Definition = found.definition;
  const faults: readonly FaultHere[] = [
    ...checkOptions(definition),
    ...checkTable(definition, tables),
    ...checkRules(definition, tables),
    ...checkSchemas(definition),
    ...checkExample(definition),
  ];
  return faults.map((fault) => ({ ...fault, file: found.file }));
}

/** A definition of which nothing is known yet. */
type Definition = { readonly [Option in OptionName]?: unknown };

type OptionName = keyof typeof optionTypes;

const optionTypes = {
  kind: "string",
  types: "undefined",
  description: "string",
  table: "string",
  on: "any",
  where: "function",
  schema: "any",
  jsonSchema: "object",
  data: "any",
  example: "any",
  newest: "string",
  oldValues: "boolean",
  echo: "boolean",
  project: "function",
  payload: "function",
} as const;

function checkOptions(definition: Definition): FaultHere[] {
  const faults: FaultHere[] = [];
  for (const [option, value] of Object.entries(definition)) {
    if (value === undefined) continue;
    if (!isOption(option)) {
      const names = Object.keys(optionTypes).filter((name) => name !== "kind" && name !== "types");
      faults.push({ message: `has the option \`${option}\`, which no event has.`, hint: suggestName(option, names) });
      continue;
    }
    const expected = optionTypes[option];
    if (expected !== "any" && typeof value !== expected) {
      faults.push({
        message: `\`${option}\`: expected ${article(expected)} ${expected}, got ${describeValue(value)}.`,
        hint: option === "payload" ? payloadHint : `Give it one, or leave \`${option}\` out.`,
      });
    }
  }
  if (definition.payload === undefined) {
    faults.push({
      message: "has no `payload`, expected the function that builds what is sent.",
      hint: payloadHint,
    });
  }
  // A promise is true whatever it resolves to: every record would pass.
  for (const option of ["where", "project"] as const) {
    if (isAsync(definition[option])) {
      const hint = "Decide by the record alone; `payload` may be async and return undefined where nothing is to be sent.";
      faults.push({ message: `\`${option}\` is async, expected a synchronous function.`, hint });
    }
  }
  return faults;
}

const payloadHint = "Write `payload: (record) => ({ … })`.";

const isOption = (option: string): option is OptionName => Object.hasOwn(optionTypes, option);

const article = (word: string): string => (/^[aeiou]/.test(word) ? "an" : "a");

function checkTable(definition: Definition, tables: ReadonlyMap<string, TableInfo>): FaultHere[] {
  if (definition.table === undefined) {
    return (["on", "where", "newest"] as const)
      .filter((option) => definition[option] !== undefined)
      .map((option) => ({
        message: `has \`${option}\` but no \`table\`, expected both or neither: an event without a table is only triggered.`,
        hint: `Name the table, or remove \`${option}\`.`,
      }));
  }
  if (typeof definition.table !== "string") return [];
  const table = tables.get(definition.table);
  if (table === undefined) {
    const message = `\`table\`: there is no table "${definition.table}" that the database shows to this role.`;
    return [{ message, hint: suggestTable(definition.table, [...tables.keys()]) }];
  }
  const faults: FaultHere[] = [];
  if (table.keyColumns.length === 0) faults.push(faultOfMissingKey(table));
  if (typeof definition.newest === "string") faults.push(...checkColumn("newest", definition.newest, table));
  return faults;
}

function checkColumn(option: string, column: unknown, table: TableInfo): FaultHere[] {
  const names = table.columns.map(({ name }: ColumnInfo) => name);
  if (typeof column === "string" && names.includes(column)) return [];
  const message = `\`${option}\`: the table "${table.name}" has no column ${describeValue(column)}.`;
  return [{ message, hint: suggestName(column, names) }];
}

const ruleWords = ["insert", "update", "delete", "enter", "leave"];

const expectedRule = `expected ${ruleWords.map((word) => `"${word}"`).join(", ")}, { update: ["column"] } or an array of these`;

function checkRules(definition: Definition, tables: ReadonlyMap<string, TableInfo>): FaultHere[] {
  if (definition.on === undefined) return [];
  const rules: readonly unknown[] = Array.isArray(definition.on) ? definition.on : [definition.on];
  if (rules.length === 0) {
    return [{ message: `\`on\` is empty, ${expectedRule}.`, hint: "Remove `on` if the event is only to be triggered." }];
  }
  const table = typeof definition.table === "string" ? tables.get(definition.table) : undefined;
  return rules.flatMap((rule) => checkRule(rule, definition, table));
}

function checkRule(rule: unknown, definition: Definition, table: TableInfo | undefined): FaultHere[] {
  if (typeof rule === "string") return checkRuleWord(rule, definition);
  const columns = columnsOf(rule);
  if (columns === undefined)
    return [{ message: `\`on\`: ${expectedRule}, got ${describeValue(rule)}.`, hint: "Write one of these, or leave `on` out." }];
  if (columns.length === 0) {
    return [
      {
        message: "`on`: { update: [] } names no column, so it would never happen.",
        hint: 'Name columns, or write "update" for any change.',
      },
    ];
  }
  const faults = table === undefined ? [] : columns.flatMap((column) => checkUpdateColumn(column, table));
  if (definition.oldValues === false) faults.push(needsOldValues("{ update: [...] }"));
  return faults;
}

function checkUpdateColumn(column: unknown, table: TableInfo): FaultHere[] {
  const isGenerated = table.columns.some(({ name, isGenerated }) => name === column && isGenerated);
  if (!isGenerated) return checkColumn("on.update", column, table);
  // It would be no error later either: a column that is never in the log never changes in it.
  const message = `\`on.update\`: the column ${describeValue(column)} of "${table.name}" is generated, and the log does not carry it.`;
  return [{ message, hint: "Name the columns that it is computed from." }];
}

function checkRuleWord(rule: string, definition: Definition): FaultHere[] {
  if (!ruleWords.includes(rule)) return [{ message: `\`on\`: ${expectedRule}, got "${rule}".`, hint: suggestName(rule, ruleWords) }];
  if (rule !== "enter" && rule !== "leave") return [];
  const faults: FaultHere[] = [];
  if (definition.where === undefined) {
    const message = `\`on\`: "${rule}" is about records for which \`where\` ${rule === "enter" ? "begins" : "ceases"} to hold, but there is no \`where\`.`;
    faults.push({ message, hint: `Write \`where\`, or use "${rule === "enter" ? "insert" : "delete"}".` });
  }
  if (definition.oldValues === false) faults.push(needsOldValues(`"${rule}"`));
  return faults;
}

function needsOldValues(rule: string): FaultHere {
  const message = `\`on\`: ${rule} compares a record with what it was, but \`oldValues: false\` does without old values.`;
  return { message, hint: "Remove `oldValues: false`, or use another rule." };
}

/** The columns of `{ update: [...] }`; `undefined` for anything else. */
function columnsOf(rule: unknown): readonly unknown[] | undefined {
  if (typeof rule !== "object" || rule === null || !("update" in rule) || Object.keys(rule).length !== 1) return undefined;
  return Array.isArray(rule.update) ? rule.update : undefined;
}

function checkSchemas(definition: Definition): FaultHere[] {
  return (["schema", "data"] as const)
    .filter((option) => definition[option] !== undefined && !isStandardSchema(definition[option]))
    .map((option) => ({
      message: `\`${option}\`: expected a Standard Schema (zod 4, valibot 1, arktype 2 and others), got ${describeValue(definition[option])}.`,
      hint: "Use a library that implements Standard Schema; a JSON Schema goes into `jsonSchema`.",
    }));
}

/** A schema may be a function as well (arktype's are). */
function isStandardSchema(value: unknown): value is StandardSchemaV1 {
  if ((typeof value !== "object" && typeof value !== "function") || value === null || !("~standard" in value)) return false;
  const props = value["~standard"];
  return typeof props === "object" && props !== null && "validate" in props && typeof props.validate === "function";
}

/** A sample must be there for whoever sets up a receiver; where no row can serve, the definition gives it. */
function checkExample(definition: Definition): FaultHere[] {
  const { example, schema } = definition;
  if (example === undefined) {
    const reason = whyNoRowServes(definition);
    if (reason === undefined) return [];
    return [{ message: `has no \`example\`, expected one: ${reason}, so no row can serve as a sample.`, hint: "Write `example: { … }`." }];
  }
  if (!isStandardSchema(schema)) return [];
  const issues = issuesOf(schema, example);
  if (issues === undefined) return [];
  return [{ message: `\`example\` is refused by \`schema\`: ${issues}.`, hint: "Make the example what is sent." }];
}

function whyNoRowServes(definition: Definition): string | undefined {
  if (definition.table === undefined) return "the event has no table";
  const rules: readonly unknown[] = Array.isArray(definition.on) ? definition.on : [definition.on];
  return rules.length > 0 && rules.every((rule) => rule === "delete") ? "its records are deleted" : undefined;
}

function issuesOf(schema: StandardSchemaV1, value: unknown): string | undefined {
  let result: ReturnType<(typeof schema)["~standard"]["validate"]>;
  try {
    result = schema["~standard"].validate(value);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  if (result instanceof Promise) {
    // An asynchronous schema checks the example when it is shown; here nothing may wait, nor may its failure go unhandled.
    result.catch(() => undefined);
    return undefined;
  }
  return result.issues?.map(formatIssue).join("; ");
}

function formatIssue(issue: StandardSchemaV1.Issue): string {
  const path = (issue.path ?? []).map((segment) => String(typeof segment === "object" ? segment.key : segment)).join(".");
  return path === "" ? issue.message : `${path}: ${issue.message}`;
}
