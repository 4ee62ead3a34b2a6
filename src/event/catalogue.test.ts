import { expect, test } from "vitest";
import { z } from "zod";
import { AncrageError } from "../errors.ts";
import type { ColumnInfo, TableInfo } from "../store/tables.ts";
import { buildCatalogue, type Catalogue, type CatalogueInput } from "./catalogue.ts";
import type { EventDefinition } from "./define.ts";
import type { TrackingHandler } from "./track.ts";

const deal = table("deal", ["id", "label", "status", "amount", "is_project", "created_at"], [{ ...column("slug"), isGenerated: true }]);
const customer = table("customer", ["id", "name"]);
const log = { ...table("log", ["line"]), keyColumns: [] };
const tables = [deal, customer, log];

const payload = () => ({});

test("an event, its rules and its table", () => {
  const definition = { table: "deal", on: ["insert", { update: ["status", "amount"] }], payload };
  const { events, tables, allTables } = build({ NewDeal: definition });

  const event = events.get("NewDeal");
  expect(event).toMatchObject({ name: "NewDeal", file: "events/NewDeal.ts", definition, table: deal });
  expect(event?.rules).toEqual([{ kind: "insert" }, { kind: "update-columns", columns: ["status", "amount"] }]);
  expect(tables.get("deal")).toEqual({ table: deal, events: [event], handlers: [], needsOldValues: true, readsUpdatesOrDeletes: true });
  expect([...allTables.keys()]).toEqual(["deal", "customer", "log"]);
});

test("a table is tracked only where changes of it are read", () => {
  const { events, tables } = build({ Triggered: { table: "deal", payload }, NewCustomer: { table: "customer", on: "insert", payload } });

  expect(events.get("Triggered")?.rules).toEqual([]);
  expect([...tables.keys()]).toEqual(["customer"]);
});

test.each([
  { what: "inserts alone", definition: { on: "insert" }, expected: { needsOldValues: false, readsUpdatesOrDeletes: false } },
  { what: "any update", definition: { on: "update" }, expected: { needsOldValues: true, readsUpdatesOrDeletes: true } },
  { what: "enter", definition: { on: "enter", where: () => true }, expected: { needsOldValues: true, readsUpdatesOrDeletes: true } },
  {
    what: "updates without old values",
    definition: { on: "update", oldValues: false },
    expected: { needsOldValues: false, readsUpdatesOrDeletes: true },
  },
])("what is needed of the log for $what", ({ definition, expected }) => {
  expect(build({ Deal: { table: "deal", payload, ...definition } }).tables.get("deal")).toMatchObject(expected);
});

test("one event that needs old values is enough", () => {
  const without = { table: "deal", on: "update", oldValues: false, payload };
  const { tables } = build({ A: without, B: { table: "deal", on: "update", payload }, C: { table: "deal", on: "insert", payload } });

  expect(tables.get("deal")).toMatchObject({ needsOldValues: true, readsUpdatesOrDeletes: true });
});

test("a handler reads every change with its old values", () => {
  const { tables } = build({ Deal: { table: "deal", payload } }, { tracking: [handler("deal")] });

  expect(tables.get("deal")).toMatchObject({ events: [], handlers: [handler("deal")], needsOldValues: true, readsUpdatesOrDeletes: true });
});

const faulty: readonly { readonly what: string; readonly definition: object; readonly fault: string | RegExp }[] = [
  {
    what: "a misspelt table",
    definition: { table: "deel", payload },
    fault: '`table`: there is no table "deel" that the database shows to this role. Did you mean "deal"?',
  },
  {
    what: "a table that is nothing like one",
    definition: { table: "invoice", payload },
    fault: /no table "invoice".*There are deal, customer, log\.$/,
  },
  { what: "a table without a key", definition: { table: "log", payload }, fault: /the table "log" has no primary key, expected one/ },
  {
    what: "a misspelt column",
    definition: { table: "deal", on: { update: ["statsu"] }, payload },
    fault: '`on.update`: the table "deal" has no column "statsu". Did you mean "status"?',
  },
  {
    what: "a generated column",
    definition: { table: "deal", on: { update: ["slug"] }, payload },
    fault: /the column "slug" of "deal" is generated, and the log does not carry it\. Name the columns/,
  },
  {
    what: "a misspelt newest",
    definition: { table: "deal", newest: "Created_At", payload },
    fault: '`newest`: the table "deal" has no column "Created_At". Did you mean "created_at"?',
  },
  { what: "no payload", definition: { table: "deal" }, fault: /has no `payload`/ },
  {
    what: "a payload that is none",
    definition: { table: "deal", payload: {} },
    fault: "`payload`: expected a function, got an empty object.",
  },
  {
    what: "a misspelt option",
    definition: { table: "deal", wehre: () => true, payload },
    fault: /the option `wehre`.*Did you mean "where"\?/,
  },
  { what: "a rule without table", definition: { on: "insert", example: {}, payload }, fault: /has `on` but no `table`/ },
  { what: "where without table", definition: { where: () => true, example: {}, payload }, fault: /has `where` but no `table`/ },
  {
    what: "enter without where",
    definition: { table: "deal", on: "enter", payload },
    fault: /"enter".*there is no `where`\..*use "insert"/,
  },
  {
    what: "leave without where",
    definition: { table: "deal", on: ["leave"], payload },
    fault: /"leave".*there is no `where`\..*use "delete"/,
  },
  { what: "no rule", definition: { table: "deal", on: [], payload }, fault: /`on` is empty/ },
  { what: "no column", definition: { table: "deal", on: { update: [] }, payload }, fault: /names no column/ },
  { what: "a misspelt rule", definition: { table: "deal", on: "udpate", payload }, fault: /got "udpate"\. Did you mean "update"\?/ },
  { what: "a rule of another shape", definition: { table: "deal", on: { insert: true }, payload }, fault: /got an object with insert\./ },
  {
    what: "a comparison without old values",
    definition: { table: "deal", on: { update: ["status"] }, oldValues: false, payload },
    fault: /compares a record with what it was, but `oldValues: false`/,
  },
  { what: "deletes without example", definition: { table: "deal", on: "delete", payload }, fault: /has no `example`.*records are deleted/ },
  { what: "no table and no example", definition: { payload }, fault: /has no `example`.*no table/ },
  {
    what: "an example that the schema refuses",
    definition: { example: { customer: { name: 3 } }, schema: z.object({ customer: z.object({ name: z.string() }) }), payload },
    fault: /`example` is refused by `schema`: customer\.name: .*expected string/,
  },
  {
    what: "a JSON Schema as schema",
    definition: { table: "deal", schema: { type: "object" }, payload },
    fault: /`schema`: expected a Standard Schema.*got an object with type\..*`jsonSchema`/,
  },
  { what: "a data schema that is none", definition: { data: "text", example: {}, payload }, fault: /`data`: expected a Standard Schema/ },
  { what: "an async where", definition: { table: "deal", where: async () => true, payload }, fault: /`where` is async/ },
];

test.each(faulty)("refuses $what", ({ definition, fault }) => {
  const [first, ...others] = faultsOf(() => build({ Deal: definition }));

  expect(others).toEqual([]);
  expect(first).toMatch(fault);
  expect(first).toMatch(/^events\/Deal\.ts: /);
});

test("lists all faults at once, those of discovery first", () => {
  const faults = [{ file: "events/Broken.ts", message: "could not be imported.", hint: "Correct it." }];
  const events = { A: { table: "deel", on: "insrt", payload }, B: { table: "deal" } };

  const lines = faultsOf(() => build(events, { faults, tracking: [handler("custmer")] }));

  expect(lines.map((line) => line.split(":", 1)[0])).toEqual([
    "events/Broken.ts",
    "events/A.ts",
    "events/A.ts",
    "events/B.ts",
    "tracking/custmer.ts",
  ]);
});

test("refuses two events of one name, also where only case tells them apart", () => {
  const definition = { table: "deal", payload } as unknown as EventDefinition;
  const events = ["deal/won.ts", "deal.won.ts", "Deal/Won.ts"].map((file) => ({
    name: file.replace(/\.ts$/, "").replace("/", "."),
    file: `events/${file}`,
    definition: { ...definition, kind: "event" } as const,
  }));

  expect(faultsOf(() => buildCatalogue({ events, tracking: [], tables }))).toEqual([
    'events/deal.won.ts: the event "deal.won" is also defined in events/deal/won.ts, expected one file an event. Rename one of them.',
    'events/Deal/Won.ts: the event "Deal.Won" differs only in case from "deal.won" in events/deal/won.ts, expected one file an event. Rename one of them.',
  ]);
});

test("refuses a handler that could not be run in order", () => {
  const handle = (async () => undefined) as unknown as () => void;
  const [asynchronous] = faultsOf(() =>
    build({}, { tracking: [{ file: "tracking/a.ts", handler: { kind: "tracking", table: "deal", handle } }] }),
  );
  const [keyless] = faultsOf(() => build({}, { tracking: [handler("log")] }));

  expect(asynchronous).toMatch(/the handler is async, expected a synchronous function/);
  expect(keyless).toMatch(/the table "log" has no primary key/);
});

test("an example with an asynchronous schema is left to whoever shows it", () => {
  const schema = z.object({ a: z.string().refine(async () => Promise.resolve(false)) });

  expect(build({ Deal: { schema, example: { a: "" }, payload } }).events.has("Deal")).toBe(true);
});

test("without project functions all is of one project", () => {
  const catalogue = build({ Deal: { table: "deal", payload } });

  expect(projectOf(catalogue, {})).toBe("default");
});

test("an event's own project function comes before the configuration's", () => {
  const config = { project: (record: { readonly company: string }) => record.company };
  const own = { table: "deal", project: () => "own", payload };

  expect(projectOf(build({ Deal: { table: "deal", payload } }, { config }), { company: "acme" })).toBe("acme");
  expect(projectOf(build({ Deal: { table: "deal", payload } }, { config }), { company: 7 })).toBe("7");
  expect(projectOf(build({ Deal: own }, { config }), { company: "acme" })).toBe("own");
});

test.each([undefined, null, ""])("a record of no project (%s) never becomes one of another", (company) => {
  const catalogue = build({ Deal: { table: "deal", payload } }, { config: { project: () => company } });

  expect(() => projectOf(catalogue, {})).toThrow(/ancrage\.config\.ts: the project function gave .* expected a text that is not empty/);
});

test("once one event names the project, none may be without", () => {
  const lines = faultsOf(() => build({ A: { table: "deal", payload, project: () => "a" }, B: { table: "customer", payload } }));

  expect(lines).toEqual([expect.stringMatching(/^events\/B\.ts: has no project function while events\/A\.ts has one/)]);
});

function build(events: Readonly<Record<string, object>>, more: Partial<CatalogueInput> = {}): Catalogue {
  const found = Object.entries(events).map(([name, definition]) => ({
    name,
    file: `events/${name}.ts`,
    // Wrong on purpose in many tests: what the catalogue is handed was never compiled.
    definition: definition as unknown as EventDefinition,
  }));
  return buildCatalogue({ events: found, tracking: [], tables, ...more });
}

function faultsOf(act: () => unknown): readonly string[] {
  const error = errorOf(act);
  expect(error).toBeInstanceOf(AncrageError);
  const { code, message } = error as AncrageError;
  expect(code).toBe("ANCRAGE_DEFINITION_INVALID");
  const [, ...lines] = message.split("\n");
  return lines.map((line) => line.trim());
}

function errorOf(act: () => unknown): unknown {
  try {
    return void act();
  } catch (error) {
    return error;
  }
}

function projectOf(catalogue: Catalogue, record: Readonly<Record<string, unknown>>): string {
  return catalogue.projectOf(catalogue.events.get("Deal")!, record);
}

function handler(tableName: string): { readonly file: string; readonly handler: TrackingHandler } {
  return { file: `tracking/${tableName}.ts`, handler: { kind: "tracking", table: tableName, handle } };
}

function handle(): void {
  // Decides that nothing happened.
}

function table(name: string, columns: readonly string[], more: readonly ColumnInfo[] = []): TableInfo {
  const keyColumns = columns.slice(0, 1);
  const all = [...columns.map(column), ...more];
  return { oid: 1, schema: "public", table: name, name, columns: all, keyColumns, replicaIdentity: "f", isPartitioned: false };
}

function column(name: string): ColumnInfo {
  return { name, typeOid: 25, typeName: "text", castType: "pg_catalog.text", isNullable: false, isGenerated: false };
}
