import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { generateTypes } from "../../src/event/generate.ts";
import type { ColumnInfo, TableInfo } from "../../src/store/tables.ts";

/**
 * What the compiler says to whoever defines events. The programs are texts, compiled in a folder of their own: the generated
 * `ancrage.d.ts` beside them holds for a whole program, and this repository's must stay without one.
 */

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Programs with one mistake each, and what must stand in the one error that each of them gives. */
const mistakes = {
  "a misspelt table": {
    program: `defineEvent({ table: "deel", on: "insert", where: (deal) => deal.is_project, payload: (deal) => ({ label: deal.label }) });`,
    message: [`'"deel"'`, `'"customer" | "deal" | "line"'`],
  },
  "a misspelt column in a rule": {
    program: `defineEvent({ table: "deal", on: { update: ["statuss"] }, payload: (deal) => ({ label: deal.label }) });`,
    message: [`'"statuss"'`, `Did you mean '"status"'?`],
  },
  "a misspelt column among several rules": {
    program: `defineEvent({ table: "deal", on: ["insert", { update: ["statuss"] }], payload: (deal) => ({ label: deal.label }) });`,
    message: [`'"statuss"'`, `Did you mean '"status"'?`],
  },
  "a misspelt option": {
    program: `defineEvent({ table: "deal", wehre: (deal: { label: string }) => deal.label !== "", payload: (deal) => ({ label: deal.label }) });`,
    message: [`'wehre' does not exist`],
  },
  "a misspelt rule": {
    program: `defineEvent({ table: "deal", on: "insrt", payload: (deal) => ({ label: deal.label }) });`,
    message: [`'"insrt"'`, `Did you mean '"insert"'?`],
  },
  "a misspelt column in where": {
    program: `defineEvent({ table: "deal", where: (deal) => deal.is_projet, payload: (deal) => ({ label: deal.label }) });`,
    message: [`'is_projet'`, `Did you mean 'is_project'?`],
  },
  "a misspelt column in payload": {
    program: `defineEvent({ table: "deal", payload: (deal) => ({ label: deal.lable }) });`,
    message: [`'lable'`, `Did you mean 'label'?`],
  },
  "a misspelt column in newest": {
    program: `defineEvent({ table: "deal", newest: "creatd_at", payload: (deal) => ({ label: deal.label }) });`,
    message: [`'"creatd_at"'`, `"created_at"`],
  },
  "a misspelt column in changed": {
    program: `defineEvent({ table: "deal", payload: (deal, { changed }) => (changed("statuss") ? { label: deal.label } : undefined) });`,
    message: [`'"statuss"'`, `"status"`],
  },
  "a misspelt field of the payload": {
    program: `defineEvent({ table: "deal", schema: z.object({ label: z.string() }), payload: (deal) => ({ lable: deal.label }) });`,
    message: [`{ lable: string; }`, `{ label: string; }`],
  },
  "a misspelt field of an asynchronous payload": {
    program: `defineEvent({
      table: "deal",
      schema: z.object({ label: z.string() }),
      async payload(deal, { load }) {
        await load("customer", deal.customer_id);
        return { lable: deal.label };
      },
    });`,
    message: [`Property 'label' is missing in type '{ lable: string; }'`],
  },
  "a payload field of another type": {
    program: `defineEvent({ table: "deal", schema: z.object({ id: z.string() }), payload: (deal) => ({ id: deal.id }) });`,
    message: [`Type 'number' is not assignable to type 'string'`],
  },
  "an example of another shape": {
    program: `defineEvent({ schema: z.object({ id: z.string() }), example: { id: 1 }, payload: ({ key }) => ({ id: key }) });`,
    message: [`Type 'number' is not assignable to type 'string'`],
  },
  "before without old values": {
    program: `defineEvent({ table: "deal", oldValues: false, payload: (deal, { before }) => ({ label: deal.label, before }) });`,
    message: [`Property 'before' does not exist`],
  },
  "a rule without a table": {
    program: `defineEvent({ on: "insert", payload: ({ key }) => ({ key }) });`,
    message: [`'NeedsTable'`],
  },
  "a misspelt table in load": {
    program: `defineEvent({ table: "deal", payload: async (deal, { load }) => ({ name: (await load("custmer", deal.customer_id))?.name }) });`,
    message: [`'"custmer"'`, `'"customer" | "deal" | "line"'`],
  },
  "a misspelt column in load": {
    program: `defineEvent({ table: "deal", payload: async (deal, { load }) => ({ name: (await load("customer", { emial: deal.label }))?.name }) });`,
    message: [`'emial'`, `'email'`],
  },
  "a misspelt column of a loaded record": {
    program: `defineEvent({ table: "deal", payload: async (deal, { load }) => ({ name: (await load("customer", deal.customer_id))?.nmae }) });`,
    message: [`'nmae'`, `'CustomerRecord'`],
  },
  "a misspelt table in load.all": {
    program: `defineEvent({ table: "deal", payload: async (deal, { load }) => ({ all: await load.all("custmer", { id: deal.customer_id }) }) });`,
    message: [`'"custmer"'`, `'"customer" | "deal" | "line"'`],
  },
  "a misspelt table in track": {
    program: `track("deel", ({ after, trigger }) => { if (after?.is_project) trigger("NewOpportunity", after.id); });`,
    message: [`'"deel"'`, `'"customer" | "deal" | "line"'`],
  },
  "a misspelt event in trigger": {
    program: `track("deal", ({ key, trigger }) => { trigger("NewOportunity", key); });`,
    message: [`'"NewOportunity"'`, `'"NewOpportunity" | "deal.won"'`],
  },
  "a trigger without a key": {
    program: `track("deal", ({ after, trigger }) => { trigger("NewOpportunity", after?.customer_id); });`,
    message: [`'number | null | undefined'`, `'Key'`],
  },
  "a trigger without its data": {
    program: `track("deal", ({ key, trigger }) => { trigger("deal.won", key); });`,
    message: [`Expected 3 arguments, but got 2`],
  },
  "a trigger with other data": {
    program: `track("deal", ({ key, trigger }) => { trigger("deal.won", key, { by: 7 }); });`,
    message: [`Type 'number' is not assignable to type 'string'`],
  },
  "after of a delete": {
    program: `track("deal", ({ action, after }) => { if (action === "delete") after.label.trim(); });`,
    message: [`'after' is possibly 'undefined'`],
  },
  "a handler that waits": {
    program: `track("deal", async ({ key, trigger }) => { await Promise.resolve(); trigger("NewOpportunity", key); });`,
    message: [`Type 'Promise<void>' is not assignable to type 'Synchronous'`],
  },
} as const satisfies Record<string, { readonly program: string; readonly message: readonly string[] }>;

const newOpportunity = `import { defineEvent } from "ancrage";
import { z } from "zod";

export default defineEvent({
  description: "An opportunity was created.",
  table: "deal",
  on: ["insert", { update: ["status", "amount"] }],
  where: (deal) => deal.is_project,
  newest: "created_at",
  project: (deal) => deal.company,
  schema: z.object({ codedeal: z.string(), label: z.string(), customerName: z.string(), others: z.number().default(0) }),
  async payload(deal, { load, before, changed, sql, project, actor, reason }) {
    const customer = await load("customer", deal.customer_id);
    if (changed("status") && before?.status === "won") return undefined;
    if (reason === "backfill" && actor === project) return undefined;
    const [counted] = await sql<{ readonly total: number }>\`select count(*)::int4 as total from deal\`;
    const others = await load.all("deal", { customer_id: deal.customer_id });
    const byMail = await load("customer", { email: "a@example.com" });
    const line = await load("line", { deal_id: deal.id, number: 1 });
    return {
      codedeal: String(deal.id),
      label: deal.label,
      customerName: customer?.name ?? byMail?.name ?? "",
      others: others.length + (counted?.total ?? 0) + (line?.quantity ?? 0),
    };
  },
});
`;

const dealWon = `import { defineEvent } from "ancrage";
import { z } from "zod";

export default defineEvent({
  data: z.object({ by: z.string(), amount: z.string().transform(Number) }),
  example: { key: "42", by: "ada", amount: 1 },
  payload: ({ key, data }, context) => ({ key, by: data.by.trim(), amount: data.amount + context.data.amount }),
});
`;

const tracking = `import { track } from "ancrage";

export default track("deal", ({ action, before, after, trigger }) => {
  if (action === "insert" && after.is_project) trigger("NewOpportunity", after.id);
  if (action === "update" && before.status !== after.status) trigger("deal.won", after.id, { by: "ada", amount: "1" });
  if (action === "delete") trigger("NewOpportunity", before.id);
});

export const short = track("deal", ({ action, key, trigger }) => action === "insert" && trigger("NewOpportunity", key));
`;

/** Columns and events that nobody generated: what a first day looks like. */
const loose = `import { defineEvent, track } from "ancrage";
import { z } from "zod";

export default defineEvent({
  table: "anything",
  on: ["enter", { update: ["whatever"] }],
  where: (record) => record.is_project,
  newest: "some_column",
  schema: z.object({ label: z.string(), name: z.string() }),
  async payload(record, { load, before, changed, sql }) {
    const customer = await load("customer", record.customer_id);
    const rows = await sql\`select 1 as one\`;
    const all = await load.all("deal", { customer_id: customer?.id });
    return { label: record.label, name: customer?.name ?? before?.name ?? rows[0]?.one ?? all[0]?.name ?? String(changed("whatever")) };
  },
});

export const handler = track("anything", ({ action, after, trigger }) => {
  if (action === "insert" && after.is_project) trigger("AnyEvent", after.id, { any: "data" });
});

export const mistake = defineEvent({
  table: "anything",
  schema: z.object({ label: z.string() }),
  // @ts-expect-error -- the schema counts without any generated file
  payload: () => ({ lable: "" }),
});
`;

let folder: string;
let errors: ReadonlyMap<string, string>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-types-"));
  await writeProgram("registered", {
    "ancrage.d.ts": generatedTypes(),
    "events/NewOpportunity.ts": newOpportunity,
    "events/deal/won.ts": dealWon,
    "tracking/deal.ts": tracking,
    ...Object.fromEntries(
      Object.entries(mistakes).map(([what, { program }]) => [
        fileOf(what),
        `import { defineEvent, track } from "ancrage";\nimport { z } from "zod";\nexport default ${program}\nexport const used = [defineEvent, track, z];\n`,
      ]),
    ),
  });
  await writeProgram("loose", { "events/Anything.ts": loose });
  errors = new Map([...(await compile("registered")), ...(await compile("loose"))]);
});

afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("with the generated file", () => {
  test.each(["events/NewOpportunity.ts", "events/deal/won.ts", "tracking/deal.ts", "ancrage.d.ts"])("%s compiles", (file) => {
    expect(errors.get(file)).toBeUndefined();
  });

  test.each(Object.entries(mistakes))("%s is told in one short error", (what, { message }) => {
    const error = errors.get(fileOf(what));
    for (const part of message) expect(error).toContain(part);
    expect(error?.match(/error TS/g)).toHaveLength(1);
    expect(error?.length).toBeLessThan(800);
  });
});

test("without the generated file all is loose and compiles", () => {
  expect(errors.get("events/Anything.ts")).toBeUndefined();
});

test("nothing else is wrong", () => {
  expect([...errors.keys()].toSorted()).toEqual(Object.keys(mistakes).map(fileOf).toSorted());
});

const fileOf = (mistake: string): string => `mistakes/${mistake.replaceAll(/\W+/g, "-")}.ts`;

function generatedTypes(): string {
  return generateTypes({
    tables: [
      table("deal", {
        id: "number",
        label: "string",
        status: '"open" | "won"',
        amount: "string",
        is_project: "boolean",
        customer_id: "number | null",
        company: "string",
        created_at: "string",
      }),
      table("line", { deal_id: "number", number: "number", quantity: "number" }),
      table("customer", { id: "number", name: "string", email: "string" }),
    ],
    events: [
      { name: "NewOpportunity", file: "events/NewOpportunity.ts" },
      { name: "deal.won", file: "events/deal/won.ts" },
    ],
    tsTypeOf: (column) => column.typeName,
  });
}

/** Here a column's type is given as TypeScript names it. */
function table(name: string, columns: Readonly<Record<string, string>>): TableInfo {
  const infos: ColumnInfo[] = Object.entries(columns).map(([column, typeName]) => {
    return { name: column, typeOid: 0, typeName, castType: "", isNullable: false, isGenerated: false };
  });
  return { oid: 1, schema: "public", table: name, name, columns: infos, keyColumns: ["id"], replicaIdentity: "f", isPartitioned: false };
}

async function writeProgram(name: string, files: Readonly<Record<string, string>>): Promise<void> {
  const tsconfig = {
    extends: join(root, "tsconfig.json"),
    compilerOptions: {
      paths: { ancrage: [join(root, "src/index.ts")], zod: [join(root, "node_modules/zod/index.d.ts")] },
      typeRoots: [join(root, "node_modules/@types")],
    },
    include: ["."],
    exclude: [],
  };
  for (const [file, text] of Object.entries({
    ...files,
    "tsconfig.json": JSON.stringify(tsconfig),
    "package.json": `{ "type": "module" }`,
  })) {
    await mkdir(dirname(join(folder, name, file)), { recursive: true });
    await writeFile(join(folder, name, file), text);
  }
}

/** All errors of a program, by its files. */
async function compile(name: string): Promise<ReadonlyMap<string, string>> {
  const output = await runCompiler(["--project", ".", "--pretty", "false"], join(folder, name));
  const byFile = new Map<string, string>();
  let file = "";
  for (const line of output.split("\n").filter((line) => line !== "")) {
    file = /^(\S.*?)\(\d+,\d+\): error/.exec(line)?.[1] ?? file;
    byFile.set(file, `${byFile.get(file) ?? ""}${line}\n`);
  }
  return byFile;
}

async function runCompiler(args: readonly string[], cwd: string): Promise<string> {
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  return await new Promise((resolve) => {
    // A program with errors ends with a status other than 0: what it printed is the result either way.
    execFile(process.execPath, [compiler, ...args], { cwd }, (_error, stdout, stderr) => resolve(stdout + stderr));
  });
}
