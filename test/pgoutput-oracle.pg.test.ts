import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { decode, unchanged, type PgOutputMessage, type RelationMessage, type Tuple } from "../src/capture/wal/pgoutput.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";

/**
 * The same transactions through our decoder and through PostgreSQL's own `test_decoding`, which writes them as text: the two must say
 * the same, line by line.
 */
let database: TestDatabase;
/** What `format_type` calls a column's type, by oid. */
let typeNames: ReadonlyMap<number, string>;

beforeAll(async () => {
  database = await cloneDatabase();
  // Slots are read up to what is on disk, which the server under test takes its time with.
  await database.client.query("set synchronous_commit = on");
  await database.client.query(`
    create table deal (id integer primary key, label text, note text, amount numeric(10,2));
    create table deal_full (id integer primary key, label text, note text);
    alter table deal_full replica identity full;
    create table deal_index (id integer primary key, code text not null, label text);
    create unique index deal_index_code on deal_index (code);
    alter table deal_index replica identity using index deal_index_code;
    create table line (label text, deal_id integer, place integer, primary key (place, deal_id));
    create schema sales;
    create table sales.offer (id integer primary key, label text);
    create schema "My.Schema";
    create table "My.Schema"."Odd ""Name" ("Key Col" integer primary key, "été" text);
    create table visit (id integer, at date, note text, primary key (at, id)) partition by range (at);
    create table visit_2025 partition of visit for values from ('2025-01-01') to ('2026-01-01');
    create table visit_2026 partition of visit for values from ('2026-01-01') to ('2027-01-01');
    create publication everything for all tables with (publish_via_partition_root = true)`);
  for (const table of ["deal", "deal_full"]) await database.client.query(`alter table ${table} alter note set storage external`);
  const { rows: own } = await database.client.query<{ oid: number }>("select oid from pg_database where datname = current_database()");
  // Not in one statement with the scan: PostgreSQL 15 may then fail with "buffer is not owned by resource owner TopTransaction".
  await database.client.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [`oracle_ours_${own[0]?.oid}`]);
  await database.client.query("select pg_create_logical_replication_slot($1, 'test_decoding')", [`oracle_text_${own[0]?.oid}`]);
  const { rows } = await database.client.query<{ oid: number; name: string }>("select oid, format_type(oid, null) as name from pg_type");
  typeNames = new Map(rows.map((row) => [row.oid, row.name]));
});
afterAll(() => database.remove());
beforeEach(async () => {
  await readOurs();
  await readOracle();
});

/** A message alone is flushed by nobody; a change of the catalogue is, and is decoded as nothing. */
const flush = (): Promise<unknown> => database.client.query("comment on schema sales is 'flushed'");

async function readOurs(): Promise<readonly PgOutputMessage[]> {
  await flush();
  const { rows } = await database.client.query<{ data: Buffer }>(
    `select data from pg_database, pg_logical_slot_get_binary_changes(
       'oracle_ours_' || oid, null, null, 'proto_version', '1', 'publication_names', 'everything', 'messages', 'true')
     where datname = current_database()`,
  );
  return rows.map(({ data }) => decode(data));
}

async function readOracle(): Promise<readonly string[]> {
  await flush();
  const { rows } = await database.client.query<{ data: string }>(
    `select data from pg_database, pg_logical_slot_get_changes('oracle_text_' || oid, null, null, 'include-xids', 'false', 'skip-empty-xacts', 'true')
     where datname = current_database()`,
  );
  const lines = rows.map(({ data }) => data);
  // Before PostgreSQL 17 test_decoding writes a message that comes first in its transaction before that one's BEGIN.
  for (const [index, line] of lines.entries()) {
    if (lines[index + 1] !== "BEGIN" || !line.startsWith("message: transactional: 1")) continue;
    [lines[index], lines[index + 1]] = ["BEGIN", line];
  }
  return lines;
}

// --- ours, in the oracle's words ---------------------------------------------------------------------------------------------

const quoteName = (name: string): string => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

function formatTuple(relation: RelationMessage, tuple: Tuple, skipsNulls: boolean): string {
  return relation.columns
    .map(({ name, typeOid }, index) => {
      const value = tuple[index];
      if (value === null && skipsNulls) return "";
      const type = typeNames.get(typeOid) ?? "?";
      const label = ` ${quoteName(name)}[${type}]:`;
      if (value === null) return `${label}null`;
      if (value === unchanged || value === undefined) return `${label}unchanged-toast-datum`;
      return `${label}${type === "integer" || type === "numeric" ? value : `'${value.replaceAll("'", "''")}'`}`;
    })
    .join("");
}

function format(messages: readonly PgOutputMessage[]): readonly string[] {
  const relations = new Map<number, RelationMessage>();
  const relationOf = (oid: number): RelationMessage => relations.get(oid)!;
  const nameOf = (oid: number): string => `${quoteName(relationOf(oid).schema)}.${quoteName(relationOf(oid).table)}`;
  return messages.flatMap((message): readonly string[] => {
    switch (message.kind) {
      case "begin":
        return ["BEGIN"];
      case "commit":
        return ["COMMIT"];
      case "relation":
        relations.set(message.oid, message);
        return [];
      case "insert":
        return [`table ${nameOf(message.relationOid)}: INSERT:${formatTuple(relationOf(message.relationOid), message.newTuple, false)}`];
      case "update": {
        const relation = relationOf(message.relationOid);
        const old = message.oldTuple ?? message.oldKey;
        const oldText = old === undefined ? "" : ` old-key:${formatTuple(relation, old, true)} new-tuple:`;
        return [`table ${nameOf(message.relationOid)}: UPDATE:${oldText}${formatTuple(relation, message.newTuple, false)}`];
      }
      case "delete":
        return [
          `table ${nameOf(message.relationOid)}: DELETE:${formatTuple(relationOf(message.relationOid), message.oldTuple ?? message.oldKey ?? [], true)}`,
        ];
      case "truncate": {
        const flags = [...(message.restartsIdentity ? [" restart_seqs"] : []), ...(message.cascades ? [" cascade"] : [])];
        return [`table ${message.relationOids.map(nameOf).join(", ")}: TRUNCATE:${flags.length === 0 ? " (no-flags)" : flags.join("")}`];
      }
      case "message":
        return [
          `message: transactional: ${message.isTransactional ? 1 : 0} prefix: ${message.prefix}, sz: ${message.content.length} content:${message.content.toString("utf8")}`,
        ];
      case "origin":
      case "type":
        return [];
      default:
        return message satisfies never;
    }
  });
}

async function expectSame(...transactions: readonly string[]): Promise<readonly string[]> {
  for (const sql of transactions) await database.client.query(sql);
  const oracle = await readOracle();
  const ours = format(await readOurs());
  expect(ours).toEqual(oracle);
  expect(ours.length).toBeGreaterThan(0);
  return ours;
}

test("inserts, updates with and without a change of the key, deletes, under the default identity", async () => {
  const lines = await expectSame(
    "insert into deal values (1, 'a', null, 1.50), (2, '', 'it''s', null)",
    "update deal set label = 'b' where id = 1",
    "update deal set id = 3 where id = 1",
    "delete from deal where id = 2",
  );
  expect(lines.filter((line) => line.startsWith("table"))).toHaveLength(5);
  expect(lines).toContain("table public.deal: DELETE: id[integer]:2");
});

test("the same under replica identity full, and under an index's", async () => {
  for (const table of ["deal_full", "deal_index"]) {
    const lines = await expectSame(
      `insert into ${table} values (1, 'a', null), (2, 'b', 'x')`,
      `update ${table} set id = 5 where id = 1`,
      `update ${table} set ${table === "deal_full" ? "label" : "code"} = 'c' where id = 5`,
      `delete from ${table}`,
    );
    expect(lines.filter((line) => line.includes("old-key"))).toHaveLength(table === "deal_full" ? 2 : 1);
  }
});

test("a large value that an update does not touch is carried by no tuple under the default identity, and by the old one under full", async () => {
  const large = "repeat('0123456789', 2000)";
  for (const table of ["deal", "deal_full"]) {
    const lines = await expectSame(
      `insert into ${table} (id, label, note) values (100, 'a', ${large})`,
      `update ${table} set label = 'b' where id = 100`,
    );
    expect(lines.filter((line) => line.includes("unchanged-toast-datum"))).toHaveLength(1);
    expect(lines.some((line) => line.includes("old-key") && line.includes("0123456789"))).toBe(table === "deal_full");
  }
});

test("truncate, of one and of several tables", async () => {
  await expectSame("truncate deal", "truncate deal_full, deal_index restart identity cascade");
});

test("the rows of a multi-insert, and a transaction with savepoints of which one is rolled back", async () => {
  const lines = await expectSame(
    "insert into deal select i, 'row ' || i from generate_series(1, 300) i",
    `begin;
     insert into deal values (1001, 'kept');
     savepoint s;
     insert into deal values (1002, 'rolled back');
     rollback to s;
     savepoint t;
     update deal set label = 'kept too' where id = 1001;
     release t;
     commit`,
  );
  expect(lines.join("\n")).not.toContain("rolled back");
});

test("logical messages, transactional or not, also of a transaction that rolls back", async () => {
  const lines = await expectSame(
    "begin; select pg_logical_emit_message(true, 'ours', 'in'); insert into deal values (2001); commit",
    "select pg_logical_emit_message(false, 'ours', 'out')",
    "begin; select pg_logical_emit_message(true, 'ours', 'never'); select pg_logical_emit_message(false, 'ours', 'always'); rollback",
  );
  expect(lines.filter((line) => line.startsWith("message"))).toEqual([
    "message: transactional: 1 prefix: ours, sz: 2 content:in",
    "message: transactional: 0 prefix: ours, sz: 3 content:out",
    "message: transactional: 0 prefix: ours, sz: 6 content:always",
  ]);
});

test("an origin is read, and changes nothing of what follows", async () => {
  const name = `origin_${database.name}`;
  await database.client.query("select pg_replication_origin_create($1)", [name]);
  await database.client.query("select pg_replication_origin_session_setup($1)", [name]);
  try {
    await database.client.query("insert into deal values (3001, 'from elsewhere')");
    const messages = await readOurs();
    expect(messages.map((message) => message.kind)).toEqual(["begin", "origin", "relation", "insert", "commit"]);
    expect(messages[1]).toMatchObject({ name });
    expect(format(messages)).toEqual(await readOracle());
  } finally {
    await database.client.query("select pg_replication_origin_session_reset()");
    await database.client.query("select pg_replication_origin_drop($1)", [name]);
  }
});

test("composite keys, keys that do not come first, other schemas, odd names, non-ASCII", async () => {
  await expectSame(
    "insert into line values ('x', 1, 1), ('y', 1, 2)",
    "update line set place = 3 where place = 1",
    "delete from line where place = 2",
    "insert into sales.offer values (1, 'Ünïcödé 🎉 ''quoted''')",
    `insert into "My.Schema"."Odd ""Name" values (1, 'œuvre'), (2, null)`,
    `update "My.Schema"."Odd ""Name" set "été" = 'fini' where "Key Col" = 1`,
  );
});

test("what happens to a partition is told of its root", async () => {
  await database.client.query("insert into visit values (1, '2025-06-01', 'a'), (2, '2026-06-01', 'b')");
  await database.client.query("update visit set note = 'c' where id = 1");
  await database.client.query("update visit set at = '2026-07-01' where id = 1");
  await database.client.query("delete from visit where id = 2");
  const oracle = await readOracle();
  // The oracle knows partitions only.
  const ofRoot = oracle.map((line) => line.replace(/^table public\.visit_202[56]/, "table public.visit"));
  expect(format(await readOurs())).toEqual(ofRoot);
  expect(ofRoot.filter((line) => line.startsWith("table public.visit:"))).toHaveLength(6);
});

test("a table that is altered in between is described anew", async () => {
  const lines = await expectSame(
    "insert into sales.offer values (10, 'before')",
    "alter table sales.offer add column grade integer default 5",
    "insert into sales.offer values (11, 'between', 1)",
    "alter table sales.offer drop column label",
    "insert into sales.offer values (12, 2)",
  );
  expect(lines.filter((line) => line.startsWith("table"))).toEqual([
    "table sales.offer: INSERT: id[integer]:10 label[text]:'before'",
    "table sales.offer: INSERT: id[integer]:11 label[text]:'between' grade[integer]:1",
    "table sales.offer: INSERT: id[integer]:12 grade[integer]:2",
  ]);
});
