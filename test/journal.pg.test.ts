import type pg from "pg";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startOfLog, type Position } from "../src/capture/change.ts";
import { computeMessageId, dayOfMessage, formatDay } from "../src/message-id.ts";
import { Journal, type Batch, type JournalOptions } from "../src/journal/journal.ts";
import { outcomesSql } from "../src/store/outcomes.ts";
import { readLastBatch } from "../src/store/batches.ts";
import type { AttemptRow, BatchInFlight, DeliveryRow, DeliveryState, DeliveryUpdate, Message, Rejection } from "../src/message.ts";
import type { TestSignal } from "../src/test-signal.ts";
import { cloneDatabase, type TestDatabase } from "./database.ts";
import { startProxy } from "./proxy.ts";

const sourceId = "wal-test";
const committedAtUs = 1_795_500_000_000_000n;

let database: TestDatabase;
let journals: Journal[];
/** Called at the points that the journal signals; a test acts there. */
let onSignal: TestSignal;

beforeEach(async () => {
  database = await cloneDatabase();
  journals = [];
  onSignal = () => undefined;
});
afterEach(async () => {
  await Promise.all(journals.map((journal) => journal.stop()));
  await database.remove();
});

function createJournal(options: Partial<JournalOptions> = {}): Journal {
  const journal = new Journal({
    connectionString: database.url,
    sourceId,
    processName: "test",
    log: pino({ level: process.env["LOG"] ?? "silent" }),
    signal: (name, detail) => onSignal(name, detail),
    ...options,
  });
  journals.push(journal);
  return journal;
}

async function lead(options?: Partial<JournalOptions>): Promise<Journal> {
  const journal = createJournal(options);
  await journal.lead(() => expect.fail("another one leads"));
  return journal;
}

const at = (lsn: number): Position => ({ commitLsn: BigInt(lsn), changeLsn: BigInt(lsn), ordinal: 0 });

function message(lsn: number, given: Partial<Message> & { readonly committedAtUs?: bigint } = {}): Message {
  const position = at(lsn);
  const us = given.committedAtUs ?? committedAtUs;
  const transaction = { xid: 1, commitLsn: position.commitLsn, committedAtUs: us };
  const id = computeMessageId({ sourceId, transaction, position, event: given.event ?? "E", key: given.key ?? String(lsn) });
  return {
    id,
    project: "default",
    event: "E",
    key: String(lsn),
    position,
    committedAtUs: us,
    body: Buffer.from("{}"),
    envelopes: {},
    ...given,
  };
}

function rejection(lsn: number, given: Partial<Rejection> = {}): Rejection {
  const { body: _, ...rest } = message(lsn);
  return { ...rest, id: rest.id.replace("msg_", "rej_"), reason: "schema", error: "wrong", occurrence: Buffer.from("{}"), ...given };
}

function batch(lsn: number, given: Partial<Batch> = {}): Batch {
  return { messages: [], rejections: [], updates: [], starts: [], journaled: at(lsn), endLsn: BigInt(lsn) + 1n, ...given };
}

function update(
  to: Partial<DeliveryRow> & { readonly messageId: string; readonly state: DeliveryState },
  from?: DeliveryUpdate["from"],
  rest: Partial<DeliveryUpdate> = {},
): DeliveryUpdate {
  const row: DeliveryRow = {
    subscriptionId: "sub_A",
    project: "default",
    round: 1,
    attempts: 1,
    nextAttemptAtMs: undefined,
    lastStatus: undefined,
    lastReason: undefined,
    durationMs: undefined,
    updatedAtMs: 1_795_500_001_000,
    ...to,
  };
  return { row, from, attempt: undefined, batch: undefined, ...rest };
}

const failedAttempt = (messageId: string, number: number): AttemptRow => ({
  messageId,
  subscriptionId: "sub_A",
  round: 1,
  number,
  atMs: 1_795_500_000_500,
  status: 500,
  reason: "status",
  durationMs: 3,
  response: Buffer.from("no\0"),
});

async function select<Row extends pg.QueryResultRow>(sql: string): Promise<readonly Row[]> {
  return (await database.client.query<Row>(sql)).rows;
}
const storedKeys = async (): Promise<readonly string[]> =>
  (await select<{ key: string }>("select key from ancrage.messages order by commit_lsn, id")).map((row) => row.key);
const batchCount = async (): Promise<number> => Number((await select<{ n: string }>("select count(*) as n from ancrage.batches"))[0]?.n);

/** The journal's own backend, as a test ends or cancels it. */
const onBackend = (what: "terminate" | "cancel"): Promise<unknown> =>
  select(
    `select pg_${what}_backend(pid) from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database()`,
  );

/** Resolves when the journal has said that it takes no batch. */
function refusing(journal: Journal): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (journal.state.kind === "refusing") resolve();
      else setImmediate(look);
    };
    look();
  });
}

test("a batch is there whole, and a start reads where it ended", async () => {
  const journal = await lead();
  const taken = await journal.commit(batch(20, { messages: [message(10), message(11)], rejections: [rejection(12)] }));
  expect(taken.map(({ key }) => key)).toEqual(["10", "11"]);
  expect(await storedKeys()).toEqual(["10", "11"]);
  await journal.stop();
  const next = createJournal();
  expect(await next.lead(() => expect.fail("another one leads"))).toMatchObject({
    number: 1n,
    epoch: 1n,
    journaled: at(20),
    settled: startOfLog,
    unsettledFrom: message(10).id,
    endLsn: 21n,
  });
});

describe("what the database refuses", () => {
  test("one row of 500 that cannot be stored becomes a rejection, and its neighbours are taken", async () => {
    const journal = await lead();
    const messages = Array.from({ length: 500 }, (_, i) => message(100 + i, i === 321 ? { key: "a\0b" } : {}));
    const taken = await journal.commit(batch(1_000, { messages, rejections: [rejection(150), rejection(700)] }));
    expect(taken).toEqual(messages.filter(({ key }) => key !== "a\0b"));
    expect(await storedKeys()).toEqual(taken.map(({ key }) => key));
    expect(await select("select key, reason, event from ancrage.rejections order by commit_lsn")).toEqual([
      { key: "150", reason: "schema", event: "E" },
      { key: "a\uFFFDb", reason: "journal-refused", event: "E" },
      { key: "700", reason: "schema", event: "E" },
    ]);
    expect([journal.journaled, journal.endLsn, journal.state]).toEqual([at(1_000), 1_001n, { kind: "ok" }]);
  });

  test("of several messages of one change only the one at fault is rejected", async () => {
    const journal = await lead();
    const messages = [message(10, { event: "A" }), message(10, { event: "B\0" }), message(10, { event: "C" })];
    expect((await journal.commit(batch(20, { messages }))).map(({ event }) => event)).toEqual(["A", "C"]);
    expect(await select("select event from ancrage.rejections")).toEqual([{ event: "B\uFFFD" }]);
  });

  test("an id that is there already is a rejection, and ends nothing", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)] }));
    const taken = await journal.commit(batch(20, { messages: [message(10), message(12)] }));
    expect(taken.map(({ key }) => key)).toEqual(["12"]);
    expect(await select("select reason from ancrage.rejections")).toEqual([{ reason: "journal-refused" }]);
  });

  test("a rejection that is there already is left out, and the others are taken", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { rejections: [rejection(10)] }));
    await journal.commit(batch(20, { rejections: [rejection(10), rejection(11), rejection(12)] }));
    expect(await select("select key from ancrage.rejections order by 1")).toEqual([{ key: "10" }, { key: "11" }, { key: "12" }]);
  });

  test("a row that is refused while megabytes are still being sent ends that COPY, and not the process", async () => {
    const journal = await lead();
    const messages = [
      message(10, { key: "a\0" }),
      ...Array.from({ length: 20 }, (_, i) => message(20 + i, { body: Buffer.alloc(1_000_000, 32) })),
    ];
    expect(await journal.commit(batch(100, { messages }))).toHaveLength(20);
    expect(await storedKeys()).toHaveLength(20);
  });

  test("a trigger that raises is waited out: nothing is in until it is mended, and then all is", async () => {
    await database.client.query(`
      create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
      create trigger refuse before insert on ancrage.messages for each row execute function public.refuse()`);
    const journal = await lead();
    const commit = journal.commit(
      batch(20, { messages: [message(10)], updates: [update({ messageId: message(5).id, state: "delivered" })] }),
    );
    await refusing(journal);
    expect(journal.state).toMatchObject({ because: "not now" });
    expect([journal.endLsn, await batchCount()]).toEqual([0n, 0]);
    await database.client.query("drop function public.refuse cascade");
    expect(await commit).toHaveLength(1);
    expect([journal.endLsn, await batchCount(), journal.state]).toEqual([21n, 1, { kind: "ok" }]);
    expect(await select("select state from ancrage.deliveries")).toEqual([{ state: "delivered" }]);
  });

  test("a statement that is canceled is done again", async () => {
    const journal = await lead();
    await database.client.query("begin; lock table ancrage.messages in access exclusive mode");
    const commit = journal.commit(batch(20, { messages: [message(10)] }));
    const other = await database.connect();
    let canceled = 0;
    while (journal.state.kind === "ok") {
      const { rowCount } = await other.query(
        "select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database() and wait_event_type = 'Lock'",
      );
      canceled += rowCount ?? 0;
    }
    expect(canceled).toBeGreaterThan(0);
    await database.client.query("commit");
    await commit;
    expect([await storedKeys(), await batchCount()]).toEqual([["10"], 1]);
  });

  test("no timeout of the server, the database or the role ends a wait of the journal", async () => {
    // A commit that waits for a synchronous standby and is ended by a timeout counts as done, and is on one machine only.
    await database.client.query(`alter database ${database.name} set statement_timeout = '1ms'`);
    await database.client.query(`alter database ${database.name} set synchronous_commit = 'off'`);
    await database.client.query(`alter database ${database.name} set idle_in_transaction_session_timeout = '1ms'`);
    const log: string[] = [];
    const journal = await lead({ log: pino({ level: "warn" }, { write: (line: string) => log.push(line) }) });
    await journal.commit(batch(20, { messages: Array.from({ length: 2_000 }, (_, i) => message(100 + i)) }));
    expect([await batchCount(), log]).toEqual([1, []]);
  });

  test("a session that is ended in the middle of a batch is made anew, and the batch is written once", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)] }));
    let isEnded = false;
    onSignal = async (name) => {
      if (name !== "journaling" || isEnded) return;
      isEnded = true;
      await onBackend("terminate");
    };
    expect(await journal.commit(batch(20, { messages: [message(20)] }))).toHaveLength(1);
    expect(isEnded).toBe(true);
    expect([await storedKeys(), await batchCount()]).toEqual([["10", "20"], 2]);
  });

  test("a session that ended between two batches is made anew", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)] }));
    await onBackend("terminate");
    await journal.commit(batch(20, { messages: [message(20)] }));
    expect([await storedKeys(), await batchCount()]).toEqual([["10", "20"], 2]);
  });

  test("a batch that is committed while a database is asked whether it has all is not missing there; one that it lost is", async () => {
    const journal = await lead();
    await journal.commit(batch(10));
    let isAsked = false;
    const query = async (text: string, values?: unknown[]): Promise<pg.QueryResult> => {
      const answer = await database.client.query(text, values);
      // The answer travels, and the pipeline goes on.
      if (!isAsked) await journal.commit(batch(20));
      isAsked = true;
      return answer;
    };
    await journal.assertWhole({ query } as unknown as pg.Client);
    expect([isAsked, await batchCount()]).toEqual([true, 2]);
    await database.client.query("delete from ancrage.batches where number = 2");
    await expect(journal.assertWhole(database.client)).rejects.toMatchObject({ code: "ANCRAGE_JOURNAL_WENT_BACK" });
  });

  test("a commit whose answer is lost is neither repeated nor lost", async () => {
    const proxy = await startProxy(database.url);
    const journal = await lead({ connectionString: proxy.url });
    await journal.commit(batch(10, { messages: [message(10)] }));
    await database.client.query(`
      create table public.gate (id integer);
      create function public.wait() returns trigger language plpgsql as $$ begin perform 1 from public.gate; return null; end $$;
      create constraint trigger wait after insert on ancrage.batches deferrable initially deferred
        for each row execute function public.wait()`);
    await database.client.query("begin; lock table public.gate in access exclusive mode");
    const commit = journal.commit(batch(20, { messages: [message(20)] }));
    const other = await database.connect();
    const isCommitting = async (): Promise<boolean> => {
      const { rowCount } = await other.query(
        `select 1 from pg_stat_activity
         where application_name = 'ancrage journal' and datname = current_database() and wait_event_type = 'Lock'`,
      );
      return rowCount === 1;
    };
    while (!(await isCommitting()));
    proxy.cut();
    await refusing(journal);
    await database.client.query("commit");
    expect(await commit).toHaveLength(1);
    expect([await storedKeys(), await batchCount()]).toEqual([["10", "20"], 2]);
    await journal.commit(batch(30));
    expect(await batchCount()).toBe(3);
    await journal.stop();
    await proxy.close();
  });

  test("a batch that waits for the database ends with an error when the journal is stopped", async () => {
    const journal = await lead();
    await database.client.query("alter table ancrage.messages rename to away");
    const commit = journal.commit(batch(20, { messages: [message(10)] }));
    await refusing(journal);
    await Promise.all([expect(commit).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_JOURNAL_REFUSED" })), journal.stop()]);
  });
});

describe("the settled mark", () => {
  const lastRow = async (): ReturnType<typeof readLastBatch> => await readLastBatch(database.client, sourceId);

  test("stays before a message until each of its deliveries is a row", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)] }));
    const inFlight: BatchInFlight = { before: startOfLog, leastId: message(10).id, open: 2 };
    journal.track(inFlight);
    await journal.commit(batch(20));
    expect(await lastRow()).toMatchObject({ settled: startOfLog, unsettledFrom: message(10).id });
    const first = (subscriptionId: string): DeliveryUpdate =>
      update({ messageId: message(10).id, subscriptionId, state: "delivered" }, undefined, { batch: inFlight });
    await journal.commit(batch(30, { updates: [first("sub_A")] }));
    expect(await lastRow()).toMatchObject({ settled: startOfLog });
    await journal.commit(batch(40, { updates: [first("sub_B")] }));
    expect(await lastRow()).toMatchObject({ settled: at(40), unsettledFrom: undefined });
  });

  test("moves with the batch after the rows that were written beside it; rows that are there already stay as they are", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)] }));
    const inFlight: BatchInFlight = { before: startOfLog, leastId: message(10).id, open: 2 };
    journal.track(inFlight);
    const delivered = update({ messageId: message(10).id, subscriptionId: "sub_A", state: "delivered" }, undefined, { batch: inFlight });
    const waiting = (subscriptionId: string): DeliveryUpdate =>
      update({ messageId: message(10).id, subscriptionId, state: "pending", attempts: 0 }, undefined, { batch: inFlight });
    await journal.commit(batch(20, { updates: [delivered] }));
    expect(await lastRow()).toMatchObject({ settled: startOfLog });
    await journal.writeRows([waiting("sub_B")]);
    // As after an answer that was lost.
    await journal.writeRows([{ ...waiting("sub_A"), batch: undefined }]);
    expect(await lastRow()).toMatchObject({ settled: startOfLog });
    await journal.commit(batch(30));
    expect(await lastRow()).toMatchObject({ settled: at(30), unsettledFrom: undefined });
    expect(await select("select subscription_id, state from ancrage.deliveries order by 1")).toEqual([
      { subscription_id: "sub_A", state: "delivered" },
      { subscription_id: "sub_B", state: "pending" },
    ]);
  });

  test("does not pass what one half of a refused batch holds while the other is written", async () => {
    const journal = await lead();
    const rows: Awaited<ReturnType<typeof lastRow>>[] = [];
    onSignal = async (name) => {
      if (name === "journaling") rows.push(await lastRow());
    };
    // Nothing of it is handed to delivery before `commit` returns: a crash in between must find all of it.
    await journal.commit(batch(100, { messages: [message(10), message(20), message(30, { key: "\0" })], rejections: [rejection(90)] }));
    rows.push(await lastRow());
    expect(rows.length).toBeGreaterThan(3);
    for (const row of rows) expect(row?.settled ?? startOfLog).toEqual(startOfLog);
    expect(rows.at(-1)).toMatchObject({ journaled: at(100), unsettledFrom: message(10).id });
  });

  test("stays where it is when the row that would have moved it is refused", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)] }));
    const inFlight: BatchInFlight = { before: startOfLog, leastId: message(10).id, open: 1 };
    journal.track(inFlight);
    const bad = update({ messageId: message(10).id, state: "delivered", project: "\0" }, undefined, { batch: inFlight });
    await journal.commit(batch(20, { updates: [bad], messages: [message(20)] }));
    expect(inFlight.open).toBe(1);
    expect(await lastRow()).toMatchObject({ settled: startOfLog, unsettledFrom: message(10).id });
    // One that has a row already owes none.
    await database.client.query(
      "insert into ancrage.deliveries select $1, 'sub_A', 'default', 'delivered', 1, 1, null, 200, null, 1, now()",
      [message(10).id],
    );
    await journal.commit(
      batch(30, { updates: [update({ messageId: message(10).id, state: "delivered" }, undefined, { batch: inFlight })] }),
    );
    expect(inFlight.open).toBe(0);
  });
});

describe("outcomes", () => {
  const id = message(10).id;
  const deliveries = (): Promise<readonly unknown[]> => select("select state, round, attempts, last_status from ancrage.deliveries");
  const attempts = (): Promise<readonly unknown[]> =>
    select("select number, status, reason, is_late, response from ancrage.attempts order by number, is_late");

  test("several of one delivery in one batch are one row, and each failed attempt is kept", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)], updates: [update({ messageId: id, state: "pending", attempts: 0 })] }));
    await journal.commit(
      batch(20, {
        updates: [
          update({ messageId: id, state: "retrying", attempts: 1 }, { state: "pending", attempts: 0 }, { attempt: failedAttempt(id, 1) }),
          update({ messageId: id, state: "retrying", attempts: 2 }, { state: "retrying", attempts: 1 }, { attempt: failedAttempt(id, 2) }),
          update({ messageId: id, state: "delivered", attempts: 3, lastStatus: 200 }, { state: "retrying", attempts: 2 }),
        ],
      }),
    );
    expect(await deliveries()).toEqual([{ state: "delivered", round: 1, attempts: 3, last_status: 200 }]);
    const kept = { status: 500, reason: "status", is_late: false, response: Buffer.from("no\0") };
    expect(await attempts()).toEqual([
      { number: 1, ...kept },
      { number: 2, ...kept },
    ]);
  });

  test("one that comes late changes nothing and is kept as a late attempt, failed or not", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)], updates: [update({ messageId: id, state: "pending", attempts: 0 })] }));
    await database.client.query("update ancrage.deliveries set state = 'canceled'");
    const from = { state: "pending", attempts: 0 } as const;
    await journal.commit(
      batch(20, {
        updates: [
          update({ messageId: id, state: "retrying", attempts: 1 }, from, { attempt: failedAttempt(id, 1) }),
          update({ messageId: id, state: "delivered", attempts: 1, lastStatus: 204, durationMs: 7 }, from),
          // Not an outcome: there is nothing to keep of it.
          update({ messageId: id, state: "canceled", attempts: 0 }, from),
        ],
      }),
    );
    expect(await deliveries()).toEqual([{ state: "canceled", round: 1, attempts: 0, last_status: null }]);
    expect(await attempts()).toMatchObject([
      { number: 1, status: 500, is_late: true },
      { number: 1, status: 204, reason: "delivered", is_late: true },
    ]);
  });

  test("texts and answers are kept as they are", async () => {
    const journal = await lead();
    const ids = [message(10).id, message(11).id];
    const from = { state: "pending", attempts: 0 } as const;
    const said = `it's "a\\b", {null} \u00e9\n`;
    const kept = [Buffer.from(said), Buffer.alloc(0)];
    await journal.commit(
      batch(11, { messages: [message(10), message(11)], updates: ids.map((messageId) => update({ messageId, ...from })) }),
    );
    await journal.commit(
      batch(20, {
        updates: ids.map((messageId, index) => {
          const attempt = { ...failedAttempt(messageId, 1), reason: said, response: kept[index] };
          return update({ messageId, state: "retrying", lastReason: said }, from, { attempt });
        }),
      }),
    );
    expect(
      await select(
        "select last_reason as delivery, reason, response from ancrage.deliveries join ancrage.attempts using (message_id) order by message_id",
      ),
    ).toEqual(kept.map((response) => ({ delivery: said, reason: said, response })));
  });

  test("one of an earlier round is late, though state and attempts are the same again", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)], updates: [update({ messageId: id, state: "pending", attempts: 0 })] }));
    await database.client.query("update ancrage.deliveries set round = 2");
    const delivered = update({ messageId: id, state: "delivered", lastStatus: 200, durationMs: 1 }, { state: "pending", attempts: 0 });
    await journal.commit(batch(20, { updates: [delivered] }));
    expect(await deliveries()).toEqual([{ state: "pending", round: 2, attempts: 0, last_status: null }]);
    expect(await attempts()).toHaveLength(1);
  });

  test("one whose day was dropped by retention is late and blocks nothing", async () => {
    const journal = await lead();
    await journal.commit(batch(10, { messages: [message(10)], updates: [update({ messageId: id, state: "pending", attempts: 0 })] }));
    const day = formatDay(dayOfMessage(id)).replaceAll("-", "");
    for (const table of ["messages", "deliveries", "attempts", "rejections"])
      await database.client.query(`drop table ancrage.${table}_${day}`);
    const delivered = update({ messageId: id, state: "delivered", lastStatus: 200, durationMs: 1 }, { state: "pending", attempts: 0 });
    await journal.commit(batch(20, { updates: [delivered], messages: [message(20)] }));
    expect([await storedKeys(), await deliveries()]).toEqual([["20"], []]);
    expect(await select("select key from ancrage.rejections")).toEqual([]);
  });

  test.each([
    { way: "in one round trip", size: 100 },
    { way: "a large one, whose commit is asked for on its own", size: 50_000 },
  ])("a batch with all kinds of them, over two days, is written alike: $way", async ({ size }) => {
    const journal = await lead();
    const messages = [1, 2, 3, 4, 5, 6].map((n) => message(10 + n, { committedAtUs: committedAtUs + BigInt(n % 2) * 86_400_000_000n }));
    const [retried, delivered, lateFailure, lateSuccess, first, canceled] = messages.map((one) => one.id) as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const waiting = [retried, delivered, lateFailure, lateSuccess, canceled];
    const pending = { state: "pending", attempts: 0 } as const;
    await journal.commit(batch(20, { messages, updates: waiting.map((messageId) => update({ messageId, ...pending })) }));
    await database.client.query("update ancrage.deliveries set state = 'canceled' where message_id = any($1)", [
      [lateFailure, lateSuccess],
    ]);
    const many = Array.from({ length: 40 }, (_, index) => message(100 + index, { body: Buffer.alloc(size, "x") }));
    const next = { nextAttemptAtMs: 1_795_500_005_000, lastStatus: 500, lastReason: "status", durationMs: 3 };
    const success = { state: "delivered", lastStatus: 200, durationMs: 7 } as const;
    await journal.commit(
      batch(200, {
        messages: many,
        updates: [
          update({ messageId: retried, state: "retrying", ...next }, pending, { attempt: failedAttempt(retried, 1) }),
          update({ messageId: delivered, ...success }, pending),
          update({ messageId: lateFailure, state: "retrying", ...next }, pending, { attempt: failedAttempt(lateFailure, 1) }),
          update({ messageId: lateSuccess, ...success }, pending),
          update({ messageId: first, state: "retrying", ...next }, undefined, { attempt: failedAttempt(first, 1) }),
          update({ messageId: canceled, state: "canceled", attempts: 0 }, pending),
          ...many.map((one) => update({ messageId: one.id, state: "delivered" })),
        ],
      }),
    );
    const rows = await select<{ message_id: string }>(
      "select message_id, state, attempts, extract(epoch from next_attempt_at) * 1000 as next, last_status, last_reason, duration_ms from ancrage.deliveries order by 1",
    );
    const unchanged = { state: "canceled", attempts: 0, next: null, last_status: null, last_reason: null, duration_ms: null };
    const failing = {
      state: "retrying",
      attempts: 1,
      next: "1795500005000.000000",
      last_status: 500,
      last_reason: "status",
      duration_ms: 3,
    };
    expect(
      Object.fromEntries(
        rows.filter((row) => messages.some(({ id: one }) => one === row.message_id)).map(({ message_id, ...row }) => [message_id, row]),
      ),
    ).toEqual({
      [retried]: failing,
      [delivered]: { ...unchanged, state: "delivered", attempts: 1, last_status: 200, duration_ms: 7 },
      [lateFailure]: unchanged,
      [lateSuccess]: unchanged,
      [first]: failing,
      [canceled]: unchanged,
    });
    const failed = { status: 500, reason: "status", duration_ms: 3, response: Buffer.from("no\0") };
    const kept = await select<{ message_id: string }>(
      "select message_id, number, status, reason, duration_ms, is_late, response, extract(epoch from at) * 1000 as at from ancrage.attempts",
    );
    expect(Object.fromEntries(kept.map(({ message_id, ...row }) => [message_id, row]))).toEqual({
      [retried]: { number: 1, ...failed, is_late: false, at: "1795500000500.000000" },
      [lateFailure]: { number: 1, ...failed, is_late: true, at: "1795500000500.000000" },
      [lateSuccess]: {
        number: 1,
        status: 200,
        reason: "delivered",
        duration_ms: 7,
        is_late: true,
        response: null,
        at: "1795500000993.000000",
      },
      [first]: { number: 1, ...failed, is_late: false, at: "1795500000500.000000" },
    });
  });

  test.each([1, 200])("the statement for %i goes by the primary key of one partition, whatever the statistics say", async (outcomes) => {
    const journal = await lead();
    for (let day = 0; day < 5; day++) {
      const us = committedAtUs + BigInt(day) * 86_400_000_000n;
      const messages = Array.from({ length: 200 }, (_, i) => message(1_000 * (day + 1) + i, { committedAtUs: us }));
      await journal.commit(
        batch(1_000 * (day + 1) + 500, {
          messages,
          updates: messages.map((one) => update({ messageId: one.id, state: "pending", attempts: 0 })),
        }),
      );
    }
    await database.client.query("analyze ancrage.deliveries");
    const day = formatDay(dayOfMessage(id));
    await database.client.query("set enable_hashjoin = off; set enable_mergejoin = off");
    const pending = { state: "pending", attempts: 0 } as const;
    const updates = Array.from({ length: outcomes }, (_, i) => update({ messageId: message(1_000 + i).id, state: "delivered" }, pending));
    const attempts = updates.map(({ row }) => ({ ...failedAttempt(row.messageId, 1), isOnlyIfLate: false }));
    const { rows } = await database.client.query<{ "QUERY PLAN": string }>(
      `explain (costs off, verbose) ${outcomesSql(updates, attempts)}`,
    );
    const plan = rows.map((row) => row["QUERY PLAN"]).join("\n");
    const partition = `deliveries_${day.replaceAll("-", "")}`;
    expect(plan).toMatch(new RegExp(`Index Scan using ${partition}_pkey on (ancrage\\.)?${partition}`));
    expect(plan.match(/deliveries_\d{8}\b/g)?.every((name) => name === partition)).toBe(true);
    expect(plan).not.toContain("Seq Scan");
    // Whether an attempt is late is not asked of each pair.
    expect(plan).toContain("hashed SubPlan");
  });
});

test("partitions are made for whatever day a message was committed on", async () => {
  const journal = await lead();
  const old = message(10, { committedAtUs: 946_684_800_000_000n });
  const now = message(11);
  await journal.commit(batch(20, { messages: [old, now] }));
  expect(await select("select tableoid::regclass::text as part from ancrage.messages order by 1")).toEqual([
    { part: "ancrage.messages_20000101" },
    { part: `ancrage.messages_${formatDay(dayOfMessage(now.id)).replaceAll("-", "")}` },
  ]);
});

describe("one leads", () => {
  test("a second waits as its standby, and takes over where the first's session ends", async () => {
    const first = await lead();
    await first.commit(batch(10, { messages: [message(10)] }));
    const second = createJournal();
    const standby = Promise.withResolvers<void>();
    const leading = second.lead(standby.resolve);
    await standby.promise;
    await first.stop();
    expect(await leading).toMatchObject({ number: 1n, journaled: at(10) });
    await second.commit(batch(20, { messages: [message(20)] }));
    expect(await select("select number, epoch from ancrage.batches order by 1")).toEqual([
      { number: "1", epoch: "1" },
      { number: "2", epoch: "2" },
    ]);
  });

  test("a standby outlives the loss of its own session", async () => {
    const first = await lead();
    const second = createJournal();
    const standby = Promise.withResolvers<void>();
    const leading = second.lead(standby.resolve);
    await standby.promise;
    // Those that wait; the leader's session holds the lock.
    await select(
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'ancrage journal' and datname = current_database()
       and not exists (select 1 from pg_locks l where l.pid = pg_stat_activity.pid and l.locktype = 'advisory' and l.granted)`,
    );
    await first.stop();
    expect(await leading).toBeUndefined();
  });

  test("a standby that is stopped says so", async () => {
    await lead();
    const second = createJournal();
    const standby = Promise.withResolvers<void>();
    const leading = second.lead(standby.resolve);
    await standby.promise;
    await second.stop();
    expect(await leading).toBe("stopped");
  });

  /** How the sessions of a journal end when its process is killed, or its database restarts. */
  const terminate = (names: string): Promise<unknown> =>
    select(
      `select pg_terminate_backend(l.pid, 5000) from pg_locks l join pg_stat_activity a on a.pid = l.pid
       where a.application_name in (${names}) and a.datname = current_database() and l.locktype = 'advisory' and l.granted`,
    );
  const leaders = (): Promise<readonly unknown[]> => select("select epoch, sessions from ancrage.leaders");

  test("one behind a cut network is replaced, and then neither sends nor writes nor moves the position", async () => {
    const proxy = await startProxy(database.url);
    const first = await lead({ connectionString: proxy.url, leaseMs: 500 });
    await first.commit(batch(10, { messages: [message(10)] }));
    expect(first.maySend).toBe(true);
    const second = createJournal({ leaseMs: 500 });
    const standby = Promise.withResolvers<void>();
    const leading = second.lead(standby.resolve);
    await standby.promise;
    proxy.stall();
    const written = Promise.allSettled([
      first.commit(batch(20, { messages: [message(20)] })),
      first.writeRows([update({ messageId: message(10).id, state: "pending", attempts: 0 })]),
    ]);
    expect(await leading).toMatchObject({ number: 1n });
    // On its own clocks: nobody has told it.
    expect(first.maySend).toBe(false);
    await second.commit(batch(30, { messages: [message(30)] }));
    proxy.resume();
    const refused = { status: "rejected", reason: { code: "ANCRAGE_SUPERSEDED" } };
    expect(await written).toMatchObject([refused, refused]);
    expect(await select("select from ancrage.deliveries")).toEqual([]);
    expect([first.isSuperseded, first.maySend, first.journaled]).toEqual([true, false, at(10)]);
    await expect(first.commit(batch(40))).rejects.toThrow(expect.objectContaining({ code: "ANCRAGE_SUPERSEDED" }));
    await second.commit(batch(50));
    expect(await storedKeys()).toEqual(["10", "30"]);
    await proxy.close();
  });

  test("one that lost its sessions goes on under its epoch, although another waits", async () => {
    const first = await lead({ leaseMs: 1_000 });
    await first.commit(batch(10, { messages: [message(10)] }));
    const second = createJournal({ leaseMs: 1_000 });
    const standby = Promise.withResolvers<void>();
    void second.lead(standby.resolve);
    await standby.promise;
    await terminate("'ancrage lease', 'ancrage journal'");
    while (JSON.stringify(await leaders()) !== JSON.stringify([{ epoch: "1", sessions: "2" }]));
    await first.commit(batch(20, { messages: [message(20)] }));
    expect([first.maySend, await storedKeys(), await leaders()]).toEqual([true, ["10", "20"], [{ epoch: "1", sessions: "2" }]]);
  });

  test("one that is gone is waited for as long as its lease may run, one that ended in order is not", async () => {
    const proxy = await startProxy(database.url);
    await lead({ connectionString: proxy.url, leaseMs: 500 });
    await proxy.close();
    const goneAtMs = performance.now();
    const second = createJournal({ leaseMs: 500 });
    await second.lead(() => undefined);
    expect(performance.now() - goneAtMs).toBeGreaterThan(500);
    await second.stop();
    const endedAtMs = performance.now();
    await lead({ leaseMs: 60_000 });
    expect(performance.now() - endedAtMs).toBeLessThan(30_000);
    expect(await leaders()).toEqual([{ epoch: "3", sessions: "1" }]);
  });

  test("a lease that has run out is renewed under the same epoch, and what waited is written", async () => {
    const proxy = await startProxy(database.url);
    const journal = await lead({ connectionString: proxy.url, leaseMs: 400 });
    await journal.commit(batch(10, { messages: [message(10)] }));
    proxy.stall({ connection: 0 });
    while (journal.maySend) await new Promise(setImmediate);
    const commit = journal.commit(batch(20, { messages: [message(20)] }));
    expect(journal.state).toMatchObject({ kind: "refusing", because: expect.stringContaining("the lease has run out") });
    expect(await commit).toHaveLength(1);
    expect([journal.maySend, await storedKeys()]).toEqual([true, ["10", "20"]]);
    await proxy.close();
  });

  for (const answersOnly of [false, true]) {
    test(`a commit whose ${answersOnly ? "answer" : "words"} a network swallowed is asked for on another session`, async () => {
      const proxy = await startProxy(database.url);
      const journal = await lead({ connectionString: proxy.url, leaseMs: 400 });
      await journal.commit(batch(10, { messages: [message(10)] }));
      proxy.stall({ connection: 1, answersOnly });
      expect(await journal.commit(batch(20, { messages: [message(20)] }))).toHaveLength(1);
      await journal.commit(batch(30, { messages: [message(30)] }));
      expect([await storedKeys(), await batchCount()]).toEqual([["10", "20", "30"], 3]);
      await proxy.close();
    });
  }

  test("a commit that takes long, and an idle leader, are left alone", async () => {
    const log: string[] = [];
    const journal = await lead({ leaseMs: 300, log: pino({ level: "warn" }, { write: (line: string) => log.push(line) }) });
    await database.client.query(`
      create function public.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(1.5); return null; end $$;
      create trigger slow after insert on ancrage.batches for each statement execute function public.slow()`);
    expect(await journal.commit(batch(20, { messages: [message(20)] }))).toHaveLength(1);
    expect([journal.maySend, log, await leaders()]).toEqual([true, [], [{ epoch: "1", sessions: "1" }]]);
  });

  test("a number that another has taken is the fence behind the lock", async () => {
    const first = await lead();
    await database.client.query(
      `insert into ancrage.batches (source, number, epoch, journaled_commit_lsn, journaled_change_lsn, journaled_ordinal, settled_commit_lsn,
         settled_change_lsn, settled_ordinal, end_lsn) values ($1, 1, 2, '0/1', '0/1', 0, '0/1', '0/1', 0, '0/1')`,
      [sourceId],
    );
    await expect(first.commit(batch(20, { messages: [message(20)] }))).rejects.toThrow(
      expect.objectContaining({ code: "ANCRAGE_SUPERSEDED" }),
    );
    expect(await storedKeys()).toEqual([]);
  });
});
