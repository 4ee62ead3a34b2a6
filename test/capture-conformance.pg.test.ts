import { finished } from "node:stream/promises";
import { from } from "pg-copy-streams";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { comparePositions, startOfLog, type Captured, type Change, type ChangeSource, type ResumePoint } from "../src/capture/change.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { migrateOutbox, startOutboxSource } from "./outbox-source.ts";
import { takeUntil } from "./take-until.ts";
import { commits, migrateCapture, startSource, type Reads } from "./wal-source.ts";

/** What every source of changes does. Each is asked the same, on the same tables. */
interface SourceUnderTest {
  migrate(database: TestDatabase, reads: Readonly<Record<string, Reads>>): Promise<unknown>;
  start(database: TestDatabase, resume?: ResumePoint): Promise<ChangeSource>;
}

const sources: Readonly<Record<string, SourceUnderTest>> = {
  wal: {
    migrate: migrateCapture,
    start: async (database, resume) => (await startSource(database, resume === undefined ? {} : { resume })).source,
  },
  outbox: {
    migrate: migrateOutbox,
    start: (database, resume) => startOutboxSource(database, resume === undefined ? {} : { resume }),
  },
};

describe.each(Object.entries(sources))("changes out of the %s", (_, { migrate, start: startSourceUnderTest }) => {
  let database: TestDatabase;
  let running: ChangeSource[];

  beforeEach(async () => {
    database = await cloneDatabase();
    running = [];
    await database.client.query(`
      set synchronous_commit = on;
      create table deal (id integer primary key, label text, amount numeric(12, 2));
      create table line (deal_id integer, place integer, note text, primary key (place, deal_id));
      create table plain (note text)`);
  });
  afterEach(async () => {
    await Promise.all(running.map((source) => source.stop()));
    await database.remove();
  });

  const query = (sql: string): Promise<unknown> => database.client.query(sql);
  const start = async (resume?: ResumePoint): Promise<ChangeSource> => {
    const source = await startSourceUnderTest(database, resume);
    running.push(source);
    return source;
  };
  const everything = { deal: "old values", line: "old values", plain: "inserts" } as const;
  /** All that was committed, up to a last row that is written for this. */
  const untilLast = async (source: ChangeSource, limit?: number): Promise<Captured[]> => {
    await query("insert into deal values (999999, 'the last')");
    let isThere = false;
    const items = await takeUntil(
      source,
      (all) => {
        isThere ||= changesOf(all).some(({ key }) => key === "999999");
        return isThere && all.at(-1)?.kind === "commit";
      },
      limit,
    );
    const last = items.findIndex((item) => item.kind === "change" && item.key === "999999");
    return items.filter((item, index) => index < last || index > last + 1);
  };
  const described = (items: readonly Captured[]): readonly string[] => items.map(describeItem);

  test("inserts, updates and deletes, with their keys and old values", async () => {
    await migrate(database, everything);
    const source = await start();
    await query("insert into deal values (1, 'a', 1.5)");
    await query("update deal set label = null where id = 1");
    await query("update deal set id = 2");
    await query("delete from deal");
    await query("insert into line values (7, 1, 'x')");
    await query("insert into plain values ('no key')");
    expect(described(await untilLast(source))).toEqual([
      `deal insert 1 none -> {"id":1,"label":"a","amount":"1.50"}`,
      "commit",
      `deal update 1 {"id":1,"label":"a","amount":"1.50"} -> {"id":1,"label":null,"amount":"1.50"}`,
      "commit",
      `deal update 2 {"id":1,"label":null,"amount":"1.50"} -> {"id":2,"label":null,"amount":"1.50"}`,
      "commit",
      `deal delete 2 {"id":2,"label":null,"amount":"1.50"} -> none`,
      "commit",
      `line insert ["1","7"] none -> {"deal_id":7,"place":1,"note":"x"}`,
      "commit",
      `plain insert  none -> {"note":"no key"}`,
      "commit",
    ]);
  });

  test("what is not tracked, or not of a kind that is read, is not there", async () => {
    await query("create table other (id integer primary key)");
    await migrate(database, { deal: "inserts" });
    const source = await start();
    await query("insert into other values (1); insert into deal values (1, 'a')");
    await query("update deal set label = 'b'");
    await query("delete from deal");
    expect(described(await untilLast(source)).filter((one) => one !== "commit")).toEqual([
      `deal insert 1 none -> {"id":1,"label":"a","amount":null}`,
    ]);
  });

  test("without old values an update has none, and a delete has its key", async () => {
    await migrate(database, { deal: "changes" });
    const source = await start();
    await query("insert into deal values (1, 'a')");
    await query("update deal set label = 'b'");
    await query("delete from deal");
    const [, update, deletion] = changesOf(await untilLast(source));
    expect(update).toMatchObject({ key: "1", before: undefined, after: { label: "b" } });
    expect(deletion?.key).toBe("1");
    expect(deletion?.before?.["id"]).toBe(1);
  });

  test("a large value that an update does not touch is there, before and after", async () => {
    await query("alter table deal alter label set storage external");
    await migrate(database, everything);
    const source = await start();
    await query("insert into deal values (1, repeat('long ', 20000), 1)");
    await query("update deal set amount = 2");
    const [, update] = changesOf(await untilLast(source));
    expect(update).toMatchObject({ before: { amount: "1.00" }, after: { amount: "2.00" } });
    expect(update?.after?.["label"]).toBe("long ".repeat(20_000));
    expect(update?.before?.["label"]).toBe("long ".repeat(20_000));
  });

  test("a rolled back savepoint, and a rolled back transaction, leave nothing", async () => {
    await migrate(database, everything);
    const source = await start();
    await query(
      "begin; insert into deal values (1); savepoint s; insert into deal values (2); rollback to s; insert into deal values (3); commit",
    );
    await query("begin; insert into deal values (4); rollback");
    expect(keysOf(await untilLast(source))).toEqual(["1", "3"]);
  });

  test("the rows of one COPY come in order, each with a position of its own", async () => {
    await migrate(database, { deal: "inserts" });
    const source = await start();
    const copy = database.client.query(from("copy deal from stdin"));
    copy.end(
      numbers(1, 500)
        .map((id) => `${id}\tx\t1\n`)
        .join(""),
    );
    await finished(copy);
    const changes = changesOf(await untilLast(source));
    expect(changes.map(({ key }) => key)).toEqual(numbers(1, 500));
    for (const [i, change] of changes.slice(1).entries()) expect(comparePositions(changes[i]!.position, change.position)).toBeLessThan(0);
  });

  test("a transaction is whole and shares one object; what became visible first comes first, whenever it was begun", async () => {
    await migrate(database, everything);
    const source = await start();
    const [slow, quick] = [await database.connect(), await database.connect()];
    await slow.query("begin; insert into deal values (1)");
    await quick.query("begin; insert into deal values (2); insert into deal values (3)");
    await slow.query("insert into deal values (4)");
    await quick.query("commit");
    const first = await takeUntil(source, commits(1));
    expect(keysOf(first)).toEqual(["2", "3"]);
    await slow.query("commit");
    const second = await takeUntil(source, commits(1));
    expect(keysOf(second)).toEqual(["1", "4"]);
    expect(new Set([...first, ...second].map(({ transaction }) => transaction)).size).toBe(2);
  });

  test("two that are seen at once come in the order that their records saw", async () => {
    await migrate(database, everything);
    await query("insert into deal values (1, 'a'), (2, 'a')");
    const [early, late] = [await database.connect(), await database.connect()];
    await early.query("begin; update deal set label = 'early' where id = 2");
    await late.query("begin; update deal set label = 'late' where id = 1; commit");
    // It began first, and comes to this record last.
    await early.query("update deal set label = 'early' where id = 1; commit");
    const source = await start();
    const labels = changesOf(await untilLast(source)).flatMap(({ key, after }) => (key === "1" ? [after?.["label"]] : []));
    expect(labels.slice(-2)).toEqual(["late", "early"]);
  });

  test("nothing is lost and nothing comes twice among writers of every length, while some are never idle", async () => {
    await migrate(database, { deal: "inserts" });
    const source = await start();
    const writers = await Promise.all(Array.from({ length: 4 }, () => database.connect()));
    const written = Promise.all(
      writers.map(async (writer, w) => {
        for (let i = 0; i < 50; i++) {
          const id = 1_000 * (w + 1) + 3 * i;
          if (w === 0) await writer.query(`insert into deal values (${id}), (${id + 1})`);
          else if (i % 7 === 3) await writer.query(`begin; insert into deal values (${id}); rollback`);
          else if (w === 1)
            await writer.query(
              `begin; insert into deal values (${id}); select pg_sleep(0.002); insert into deal values (${id + 1}); commit`,
            );
          else
            await writer.query(
              `begin; insert into deal values (${id}); savepoint s; insert into deal values (${id + 1}); release s; commit`,
            );
        }
      }),
    );
    const taken: Captured[] = [];
    const taking = takeUntil(source, (all) => changesOf(all).some(({ key }) => key === "999999"), 7).then((all) => taken.push(...all));
    await written;
    await query("insert into deal values (999999)");
    await taking;
    const { rows } = await database.client.query<{ id: string }>("select id::text from deal order by id");
    const keys = keysOf(taken);
    expect(keys.toSorted((a, b) => Number(a) - Number(b))).toEqual(rows.map(({ id }) => id));
    const positions = taken.flatMap((item) => (item.kind === "commit" ? [] : [item.position]));
    for (const [i, position] of positions.slice(1).entries()) expect(comparePositions(positions[i]!, position)).toBeLessThan(0);
    // Rows of one transaction are not among those of another.
    const transactions = taken.map(({ transaction }) => transaction);
    expect(transactions.filter((one, i) => one !== transactions[i - 1]).length).toBe(new Set(transactions).size);
  });

  test("a start goes on where a position was journaled: between two transactions, and in one", async () => {
    await migrate(database, { deal: "inserts" });
    const first = await start();
    await query("insert into deal values (1); ");
    await query("insert into deal values (2), (3)");
    await query("insert into deal select generate_series(4, 700)");
    await query("insert into deal select generate_series(701, 720)");
    const places: { readonly resume: ResumePoint; readonly seen: number }[] = [];
    let seen = 0;
    let endLsn = 0n;
    const all: Captured[] = [];
    while (seen < 720) {
      const items = await takeSome(first, 50);
      for (const item of items) {
        all.push(item);
        if (item.kind === "commit") endLsn = item.endLsn;
        else seen++;
        const journaled =
          item.kind === "commit" ? { commitLsn: item.transaction.commitLsn, changeLsn: 0xffff_ffff_ffff_ffffn, ordinal: 0 } : item.position;
        places.push({ resume: { endLsn, journaled, cursor: first.cursor?.() }, seen });
      }
    }
    await first.stop();
    await query("insert into deal values (721)");
    for (const { resume, seen } of places.filter((_, i) => i < 6 || i % 241 === 0 || i > places.length - 3)) {
      const again = await start(resume);
      const rest = await takeUntil(again, (items) => keysOf(items).at(-1) === "721", 60);
      expect(keysOf(rest)).toEqual(numbers(seen + 1, 721));
      // The same positions: ids are made of them. Of what was not begun, another look may have seen other transactions together.
      const begun = all.find(
        (item) =>
          item.kind === "change" &&
          item.position.commitLsn === resume.journaled.commitLsn &&
          comparePositions(item.position, resume.journaled) > 0,
      ) as Change | undefined;
      const first = begun === undefined ? undefined : changesOf(rest)[0]?.position;
      expect(first).toEqual(begun?.position);
      await again.stop();
    }
  });

  test("explicit triggers are marks of their transaction, and forged ones are not", async () => {
    await migrate(database, everything);
    const source = await start();
    const { rows } = await database.client.query<{ id: string }>(`select ancrage.trigger('NewDeal', '42', '{"by": "hand"}') as id`);
    await query("begin; insert into deal values (1); select ancrage.trigger('NewDeal', '43'); insert into deal values (2); commit");
    await query("begin; savepoint s; select ancrage.trigger('NewDeal', '44'); rollback to s; insert into deal values (3); commit");
    await query("begin; select ancrage.trigger('NewDeal', '45'); rollback");
    await query("select ancrage.write_mark('ancrage.trigger', repeat('x', 40)::bytea)");
    const items = (await untilLast(source)).filter(({ kind }) => kind !== "commit");
    expect(items.map((item) => (item.kind === "subscription" || item.kind === "commit" ? item.kind : item.key))).toEqual([
      "42",
      "1",
      "43",
      "2",
      "3",
    ]);
    expect(items[0]).toMatchObject({ kind: "trigger", id: rows[0]!.id, event: "NewDeal", data: { by: "hand" } });
    expect(source.ignoredMarks).toBe(1);
  });

  test("a subscription's mark stands between what was committed before it and what was after, also where all is seen at once", async () => {
    await migrate(database, everything);
    const [open, other] = [await database.connect(), await database.connect()];
    await open.query("begin; insert into deal values (1)");
    await other.query("begin; insert into deal values (2); commit");
    await query("select ancrage.write_mark('ancrage.subscription', 'sub_1 7')");
    await open.query("commit");
    await query("insert into deal values (3)");
    const source = await start();
    const items = (await untilLast(source)).filter((item) => item.kind === "change" || item.kind === "subscription");
    expect(items.map((item) => (item.kind === "change" ? item.key : item.kind))).toEqual(["2", "subscription", "1", "3"]);
    const [before, mark, after] = items.map(({ position }) => position.commitLsn);
    expect(before).toBeLessThan(mark!);
    expect(mark).toBeLessThan(after!);
  });

  test("a partitioned table is one, whichever partition has the row, and one of later", async () => {
    await query(`
      create table visit (id integer, at date, note text, primary key (id, at)) partition by range (at);
      create table visit_1 partition of visit for values from ('2026-01-01') to ('2026-07-01');
      create table visit_2 (note text, gone text, at date not null, id integer not null);
      alter table visit_2 drop gone;
      alter table visit attach partition visit_2 for values from ('2026-07-01') to ('2027-01-01')`);
    await migrate(database, { ...everything, visit: "old values" });
    const source = await start();
    await query("insert into visit values (1, '2026-02-01', 'a'), (2, '2026-08-01', 'b')");
    await query("insert into visit_2 (id, at, note) values (3, '2026-08-02', 'c')");
    await query("update visit set note = 'd' where id = 2");
    await query(
      "create table visit_3 partition of visit for values from ('2027-01-01') to ('2028-01-01'); insert into visit values (4, '2027-01-01', 'e')",
    );
    const changes = changesOf(await untilLast(source));
    expect(changes.map(({ table, action, key }) => `${table} ${action} ${key}`)).toEqual([
      `visit insert ["1","2026-02-01"]`,
      `visit insert ["2","2026-08-01"]`,
      `visit insert ["3","2026-08-02"]`,
      `visit update ["2","2026-08-01"]`,
      `visit insert ["4","2027-01-01"]`,
    ]);
    expect(changes[3]).toMatchObject({ before: { note: "b", id: 2 }, after: { note: "d", id: 2, at: "2026-08-01" } });
  });

  test("columns that are added, renamed, retyped and dropped meanwhile are as each row was written", async () => {
    await migrate(database, everything);
    const source = await start();
    const writer = await database.connect();
    await writer.query("insert into deal values (1, 'a', 1)");
    await query("alter table deal rename label to title");
    await writer.query("insert into deal values (2, 'b', 2)");
    await query("alter table deal add note text default 'n'");
    await writer.query(
      "begin; insert into deal values (3, 'c', 3); alter table deal drop amount; insert into deal values (4, 'd'); commit",
    );
    await query("alter table deal alter title type integer using 5");
    await writer.query("insert into deal values (5, 6)");
    const rows = changesOf(await untilLast5(source)).map(({ after }) => JSON.stringify(readable(after)));
    expect(rows).toEqual([
      `{"id":1,"label":"a","amount":"1.00"}`,
      `{"id":2,"title":"b","amount":"2.00"}`,
      `{"id":3,"title":"c","amount":"3.00","note":"n"}`,
      `{"id":4,"title":"d","note":"n"}`,
      `{"id":5,"title":6,"note":"n"}`,
    ]);
  });
  const untilLast5 = (source: ChangeSource): Promise<Captured[]> => takeUntil(source, (all) => keysOf(all).at(-1) === "5");

  test("a truncated table makes no events", async () => {
    await migrate(database, everything);
    const source = await start();
    await query("insert into deal values (1)");
    await query("truncate deal");
    expect(keysOf(await untilLast(source))).toEqual(["1"]);
  });

  test("values are the same however the session that wrote them shows them", async () => {
    await query(
      "create table odd (id integer primary key, at timestamptz, day date, every interval, ratio float8, bytes bytea, price money, spans tstzrange[])",
    );
    await migrate(database, { ...everything, odd: "inserts" });
    const source = await start();
    const odd = await database.connect();
    await odd.query(
      "set timezone = 'Asia/Kolkata'; set datestyle = 'German'; set intervalstyle = 'sql_standard'; set extra_float_digits = -5; set bytea_output = 'escape'",
    );
    await odd.query(
      `insert into odd values (1, '2023-10-31 00:00:00.5+00', '2023-10-31', '3 days 2 hours', 0.1::float8 + 0.2, '\\x00ff', 12.5, array['[2023-10-31 00:00+00,)'::tstzrange])`,
    );
    const [change] = changesOf(await untilLast(source));
    expect(change?.after).toEqual({
      id: 1,
      at: "2023-10-31T00:00:00.500000Z",
      day: "2023-10-31",
      every: "3 days 02:00:00",
      ratio: 0.300_000_000_000_000_04,
      bytes: Buffer.from([0, 255]),
      price: "$12.50",
      spans: [`["2023-10-31 00:00:00+00",)`],
    });
  });

  test("rows that a replication of the application's own brings are changes as well", async () => {
    await migrate(database, everything);
    const source = await start();
    await query("set session_replication_role = replica; insert into deal values (1); reset session_replication_role");
    expect(keysOf(await untilLast(source))).toEqual(["1"]);
  });

  test("a deletion comes before those that it caused", async () => {
    await query("create table child (id integer primary key, deal_id integer references deal on delete cascade)");
    await migrate(database, { ...everything, child: "old values" });
    const source = await start();
    await query("insert into deal values (1), (2); insert into child values (10, 1), (20, 2)");
    await query("delete from deal");
    const deleted = changesOf(await untilLast(source)).filter(({ action }) => action === "delete");
    expect(deleted.map(({ key }) => key)).toEqual(["1", "2", "10", "20"]);
  });

  test("a session that ends under it is made anew", async () => {
    await migrate(database, everything);
    const source = await start();
    await query("insert into deal values (1)");
    const taken = await takeUntil(source, commits(1));
    await query(
      "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and application_name like 'ancrage%'",
    );
    await query("insert into deal values (2)");
    taken.push(...(await takeUntil(source, commits(1))));
    expect(keysOf(taken)).toEqual(["1", "2"]);
    expect(taken[0]!.transaction.commitLsn).toBeGreaterThan(startOfLog.commitLsn);
  });
});

async function takeSome(source: ChangeSource, limit: number): Promise<readonly Captured[]> {
  for (;;) {
    if (source.hasWork()) return await source.take(limit);
    await new Promise<void>((resolve) => source.onWork(resolve));
  }
}

const changesOf = (items: readonly Captured[]): readonly Change[] => items.filter((item) => item.kind === "change");
const keysOf = (items: readonly Captured[]): readonly string[] => changesOf(items).map(({ key }) => key);
const numbers = (from: number, to: number): readonly string[] => Array.from({ length: to - from + 1 }, (_, i) => String(from + i));

function describeItem(item: Captured): string {
  if (item.kind !== "change") return item.kind;
  const show = (row: unknown): string => (row === undefined ? "none" : JSON.stringify(row));
  return `${item.table} ${item.action} ${item.key} ${show(item.before)} -> ${show(item.after)}`;
}

/** Without the columns that throw: those that were there when the tables were read, and are no more. */
function readable(row: Change["after"]): object {
  return Object.fromEntries(
    Object.entries(Object.getOwnPropertyDescriptors(row ?? {})).flatMap(([name, { value, get }]) =>
      get === undefined ? [[name, value]] : [],
    ),
  );
}
