import { expect, test } from "vitest";
import type { Catalogue, TrackedTable } from "../../event/catalogue.ts";
import type { TableInfo } from "../../store/tables.ts";
import { captureNames, planCapture as planSteps, type CaptureState, type Part } from "./slot.ts";

const names = captureNames(16_384);
const planCapture = (catalogue: Catalogue, state: CaptureState): readonly string[] => planSteps(catalogue, state).map(({ sql }) => sql);
const published = ({ schema, table }: TableInfo) => ({ schema, table, isNarrowed: false });

function table(name: string, options: Partial<TableInfo> = {}): TableInfo {
  return {
    oid: name.length * 1_000 + name.charCodeAt(0),
    schema: "public",
    table: name,
    name,
    columns: [],
    keyColumns: ["id"],
    replicaIdentity: "d",
    isPartitioned: false,
    ...options,
  };
}

interface Tracked {
  readonly of: TableInfo;
  readonly reads: "inserts" | "changes" | "old values";
}

function catalogueOf(...tracked: readonly Tracked[]): Catalogue {
  const tables = tracked.map(({ of, reads }): readonly [string, TrackedTable] => [
    of.name,
    { table: of, events: [], handlers: [], needsOldValues: reads === "old values", readsUpdatesOrDeletes: reads !== "inserts" },
  ]);
  return { events: new Map(), tables: new Map(tables), allTables: new Map(), projectOf: () => "default" };
}

const whole = (of: TableInfo, identity: Part["identity"]): readonly [number, readonly Part[]] => [
  of.oid,
  [{ schema: of.schema, table: of.table, identity }],
];

function stateOf(options: {
  readonly all?: readonly TableInfo[];
  readonly inserts?: readonly TableInfo[];
  readonly parts?: readonly (readonly [number, readonly Part[]])[];
  readonly hasSlot?: boolean;
}): CaptureState {
  return {
    names,
    publications: new Map([
      [
        names.publication,
        {
          tables: (options.all ?? []).map(published),
          actions: ["delete", "insert", "truncate", "update"],
          viaRoot: true,
          publishesGenerated: false,
        },
      ],
      [
        names.insertPublication,
        { tables: (options.inserts ?? []).map(published), actions: ["insert", "truncate"], viaRoot: true, publishesGenerated: false },
      ],
    ]),
    hasSlot: options.hasSlot ?? true,
    version: 170_000,
    parts: new Map(options.parts),
  };
}

const fresh = (...parts: readonly (readonly [number, readonly Part[]])[]): CaptureState => ({
  names,
  publications: new Map(),
  hasSlot: false,
  version: 170_000,
  parts: new Map(parts),
});

const deal = table("deal");
const visit = table("visit");

test("of a database that has nothing: identities, publications, and last the slot", () => {
  const catalogue = catalogueOf({ of: deal, reads: "old values" }, { of: visit, reads: "inserts" });
  expect(planCapture(catalogue, fresh(whole(deal, "key"), whole(visit, "key")))).toEqual([
    `alter table "public"."deal" replica identity full`,
    `create publication "ancrage_16384" for table "public"."deal" with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`,
    `create publication "ancrage_16384_inserts" for table "public"."visit" with (publish = 'insert, truncate', publish_via_partition_root = true)`,
    `select pg_create_logical_replication_slot('ancrage_16384', 'pgoutput')`,
  ]);
});

test("events that are only triggered need publications without a table, and the slot", () => {
  expect(planCapture(catalogueOf(), fresh())).toEqual([
    `create publication "ancrage_16384" with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`,
    `create publication "ancrage_16384_inserts" with (publish = 'insert, truncate', publish_via_partition_root = true)`,
    `select pg_create_logical_replication_slot('ancrage_16384', 'pgoutput')`,
  ]);
});

test("where all is there, nothing is to do", () => {
  const catalogue = catalogueOf({ of: deal, reads: "old values" }, { of: visit, reads: "inserts" });
  expect(planCapture(catalogue, stateOf({ all: [deal], inserts: [visit], parts: [whole(deal, "full"), whole(visit, "none")] }))).toEqual(
    [],
  );
});

test("a table that is new comes in, one that nothing reads any more leaves", () => {
  const catalogue = catalogueOf({ of: deal, reads: "old values" });
  expect(planCapture(catalogue, stateOf({ all: [visit], parts: [whole(deal, "full")] }))).toEqual([
    `alter publication "ancrage_16384" add table "public"."deal"`,
    `alter publication "ancrage_16384" drop table "public"."visit"`,
  ]);
});

test.each([
  { from: "inserts", reads: "changes", added: "ancrage_16384", dropped: "ancrage_16384_inserts" },
  { from: "all", reads: "inserts", added: "ancrage_16384_inserts", dropped: "ancrage_16384" },
] as const)("a table that moves to $added stands in both for a moment, never in neither", ({ from, reads, added, dropped }) => {
  const state = stateOf({ [from]: [deal], parts: [whole(deal, "key")] });
  expect(planCapture(catalogueOf({ of: deal, reads }), state)).toEqual([
    `alter publication "${added}" add table "public"."deal"`,
    `alter publication "${dropped}" drop table "public"."deal"`,
  ]);
});

test.each([
  { reads: "inserts", identity: "none", isSet: false },
  { reads: "changes", identity: "key", isSet: false },
  { reads: "changes", identity: "full", isSet: false },
  { reads: "changes", identity: "other", isSet: true },
  // PostgreSQL would refuse the application's own update.
  { reads: "changes", identity: "none", isSet: true },
  { reads: "old values", identity: "key", isSet: true },
  { reads: "old values", identity: "none", isSet: true },
  { reads: "old values", identity: "full", isSet: false },
] as const)("what reads $reads of a table whose identity is $identity: set to full? $isSet", ({ reads, identity, isSet }) => {
  const place = reads === "inserts" ? "inserts" : "all";
  const plan = planCapture(catalogueOf({ of: deal, reads }), stateOf({ [place]: [deal], parts: [whole(deal, identity)] }));
  expect(plan).toEqual(isSet ? [`alter table "public"."deal" replica identity full`] : []);
});

test("of a partitioned table each partition has an identity of its own", () => {
  const visits = table("visits", { isPartitioned: true });
  const parts: readonly Part[] = [
    { schema: "public", table: "visits_2025", identity: "full" },
    { schema: "archive", table: "visits_2024", identity: "key" },
  ];
  const state = stateOf({ all: [visits], parts: [[visits.oid, parts]] });
  const sql = `alter table "archive"."visits_2024" replica identity full`;
  // One that was attached since holds up neither a start nor what runs.
  expect(planSteps(catalogueOf({ of: visits, reads: "old values" }), state)).toEqual([
    { sql, isNeeded: true, makesSlot: false, partition: "archive.visits_2024" },
  ]);
  const root: Part = { schema: visits.schema, table: visits.table, identity: "key" };
  const asMade = stateOf({ all: [visits], parts: [[visits.oid, [root, ...parts]]] });
  expect(planSteps(catalogueOf({ of: visits, reads: "old values" }), asMade).at(-1)).toEqual({ sql, isNeeded: true, makesSlot: false });
});

test("a publication that somebody changed is set right before tables are added", () => {
  const state = stateOf({ all: [], parts: [whole(deal, "full")] });
  const changed: CaptureState = {
    ...state,
    publications: new Map([
      ...state.publications,
      [names.publication, { tables: [], actions: ["delete", "insert", "update"], viaRoot: false, publishesGenerated: false }],
    ]),
  };
  expect(planCapture(catalogueOf({ of: deal, reads: "old values" }), changed)).toEqual([
    `alter publication "ancrage_16384" set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`,
    `alter publication "ancrage_16384" add table "public"."deal"`,
  ]);
});

test("more than these definitions read does no harm: a process of before goes on beside a migration of newer ones", () => {
  const actions = ["delete", "insert", "truncate", "update"];
  const carried = (isNarrowed: boolean): CaptureState => ({
    ...stateOf({ parts: [whole(deal, "full")] }),
    publications: new Map([
      [names.publication, { tables: [{ ...published(deal), isNarrowed }], actions, viaRoot: true, publishesGenerated: false }],
      [names.insertPublication, { tables: [published(visit)], actions, viaRoot: true, publishesGenerated: true }],
    ]),
  });
  const older = catalogueOf({ of: deal, reads: "inserts" });
  expect(planSteps(older, carried(false))).toEqual([
    { sql: expect.stringContaining("_inserts\" set (publish = 'insert, truncate'"), isNeeded: false, makesSlot: false },
    { sql: expect.stringContaining('_inserts" add table "public"."deal"'), isNeeded: false, makesSlot: false, takesOut: true },
    { sql: expect.stringContaining('drop table "public"."deal"'), isNeeded: false, makesSlot: false, takesOut: true },
    { sql: expect.stringContaining('drop table "public"."visit"'), isNeeded: false, makesSlot: false, takesOut: true },
  ]);
  // A filter that somebody put on it there would leave rows out.
  expect(planSteps(older, carried(true)).filter(({ isNeeded }) => isNeeded)).toMatchObject([
    { sql: expect.stringContaining('_inserts" add table "public"."deal"') },
  ]);
});

test("what nothing reads any more may stay: a start needs all but that", () => {
  const state = stateOf({ all: [visit], parts: [whole(deal, "full")], hasSlot: false });
  expect(planSteps(catalogueOf({ of: deal, reads: "old values" }), state).map(({ isNeeded }) => isNeeded)).toEqual([true, false, true]);
});

test("a filter or a list of columns that somebody put on a table is taken off", () => {
  const state = stateOf({ parts: [whole(deal, "full")] });
  const tables = [{ ...published(deal), isNarrowed: true }, published(visit)];
  const narrowed: CaptureState = {
    ...state,
    publications: new Map([
      ...state.publications,
      [names.publication, { tables, actions: ["delete", "insert", "truncate", "update"], viaRoot: true, publishesGenerated: false }],
    ]),
  };
  expect(planCapture(catalogueOf({ of: deal, reads: "old values" }), narrowed)[0]).toBe(
    `alter publication "ancrage_16384" set table "public"."deal", "public"."visit"`,
  );
});

test("from PostgreSQL 18 on stored generated columns are published, as an identity that holds them takes", () => {
  expect(planCapture(catalogueOf(), { ...fresh(), version: 180_000 })[0]).toContain(", publish_generated_columns = stored)");
  expect(planCapture(catalogueOf(), { ...stateOf({}), version: 180_000 })[0]).toBe(
    `alter publication "ancrage_16384" set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true, publish_generated_columns = stored)`,
  );
});

test("names are quoted, whatever stands in them", () => {
  const odd = table(`de"al.x`, { schema: "my.Sales", name: `my.Sales.de"al.x` });
  const catalogue = catalogueOf({ of: odd, reads: "inserts" });
  expect(planCapture(catalogue, stateOf({ inserts: [odd] }))).toEqual([]);
  expect(planCapture(catalogue, stateOf({}))).toEqual([`alter publication "ancrage_16384_inserts" add table "my.Sales"."de""al.x"`]);
});
