import { pino } from "pino";
import { expect, test } from "vitest";
import { createMessageBuilder, type MessageBuilder, type MessageBuilderOptions } from "./build-messages.ts";
import { systemClock } from "./clock.ts";
import type { Change, Row } from "./capture/change.ts";
import { defineLacking } from "./capture/lacking.ts";
import { AncrageError } from "./errors.ts";
import { buildCatalogue } from "./event/catalogue.ts";
import { defineEvent, type EventDefinition } from "./event/define.ts";
import type { TrackingHandler } from "./event/track.ts";
import type { PayloadDeps } from "./payload/build.ts";
import type { BatchFault } from "./payload/fault.ts";
import { parkedAfterRejections } from "./payload/reject.ts";
import type { TableInfo } from "./store/tables.ts";

const deal: TableInfo = {
  oid: 1,
  schema: "public",
  table: "deal",
  name: "deal",
  columns: [{ name: "id", typeOid: 23, typeName: "integer", castType: "integer", isNullable: false, isGenerated: false }],
  keyColumns: ["id"],
  replicaIdentity: "f",
  isPartitioned: false,
};

function builderOf(
  definitions: Readonly<Record<string, Partial<EventDefinition>>>,
  handle?: (key: string, after: Row | undefined) => void,
  more: Partial<MessageBuilderOptions> & Pick<Partial<PayloadDeps>, "sql" | "readers"> = {},
): MessageBuilder {
  const handler = {
    kind: "tracking",
    table: "deal",
    handle: ({ key, after }: Change) => handle?.(key, after),
  } as unknown as TrackingHandler;
  const catalogue = buildCatalogue({
    events: Object.entries(definitions).map(([name, over]) => ({
      name,
      file: `events/${name}.ts`,
      definition: { kind: "event", table: "deal", on: "insert", payload: () => ({}), ...over },
    })),
    tracking: handle === undefined ? [] : [{ file: "tracking/deal.ts", handler }],
    tables: [deal],
  });
  const unread = (): Promise<never> => Promise.reject(new Error("nothing is read here"));
  const payload: PayloadDeps = { catalogue, readers: more.readers ?? { byKeys: unread, where: unread }, sql: more.sql ?? unread };
  return createMessageBuilder({
    sourceId: "test",
    catalogue,
    payload,
    clock: systemClock,
    log: pino({ enabled: false }),
    stopping: new AbortController().signal,
    ...more,
  });
}

/** Inserts with the keys `from` to `to`, the latter not included. */
const inserts = (from: number, to: number): Change[] =>
  Array.from({ length: to - from }, (_, index) => ({
    kind: "change",
    transaction: { xid: 7, commitLsn: 100n, committedAtUs: 0n },
    position: { commitLsn: 100n, changeLsn: 90n, ordinal: from + index },
    table: "deal",
    action: "insert",
    key: String(from + index),
    before: undefined,
    after: { id: from + index },
  }));

const failing = (): never => {
  throw new Error("no such thing");
};

test("a handler that always throws is parked like an event: no rejection for each change any more, and the events go on", async () => {
  let calls = 0;
  const builder = builderOf({ Fine: {} }, () => {
    calls++;
    failing();
  });
  const first = await builder.build(inserts(0, parkedAfterRejections));
  expect(first?.rejections).toHaveLength(parkedAfterRejections);
  expect(builder.parked()).toEqual(["tracking/deal.ts"]);

  const second = await builder.build(inserts(parkedAfterRejections, parkedAfterRejections + 300));
  expect(second?.messages).toHaveLength(300);
  expect(second?.rejections).toMatchObject([{ event: "tracking/deal.ts", key: "1000", reason: "event-parked" }]);
  expect(second?.rejections[0]?.error).toContain("it was not asked about 300 changes");
  expect(calls).toBe(parkedAfterRejections);
});

/** As updates that left a large column untouched are in the log. */
const lacking = (changes: readonly Change[]): Change[] =>
  changes.map((change) => {
    const after: Record<string, unknown> = { ...change.after };
    defineLacking(after, "deal", "body", "unchanged");
    return { ...change, after };
  });

test("a rule and a handler that read what the log did not carry are asked again, once it was read for all", async () => {
  let asked = 0;
  const readers = {
    byKeys: async (_: TableInfo, keys: readonly string[]) => Promise.resolve(new Map(keys.map((key) => [key, { body: `body ${key}` }]))),
    where: failing,
  };
  const events = { Where: { where: (row: Row) => (row["body"] as string).endsWith("7") } };
  const seen: unknown[] = [];
  const handle = (_: string, after: Row | undefined): void => void seen.push(after?.["body"]);
  const counting = { ...readers, byKeys: (...given: Parameters<typeof readers.byKeys>) => (asked++, readers.byKeys(...given)) };
  const built = await builderOf(events, handle, { readers: counting }).build(lacking(inserts(0, 20)));
  expect(built).toMatchObject({ messages: [{ key: "7" }, { key: "17" }], rejections: [] });
  expect(seen).toHaveLength(20);
  expect(asked).toBe(1);
});

test("what cannot be read in time is a rejection that says so, once it was waited for", async () => {
  let attempts = 0;
  const byKeys = async (): Promise<never> => {
    attempts++;
    return Promise.reject(Object.assign(new Error("canceling statement due to statement timeout"), { code: "57014" }));
  };
  const events = { Where: { where: (row: Row) => row["body"] !== null }, Fine: {} };
  const built = await builderOf(events, undefined, { readers: { byKeys, where: failing }, readPatienceMs: 50 }).build(
    lacking(inserts(0, 2)),
  );
  expect(attempts).toBeGreaterThan(1);
  expect(built).toMatchObject({
    messages: [{ event: "Fine" }, { event: "Fine" }],
    rejections: [{ event: "Where", reason: "where-threw", error: expect.stringContaining('column "body" of "deal"') }, { event: "Where" }],
  });
});

test("what reads a column that is gone is kept change by change, also once it is parked: a retry sends all of it", async () => {
  const gone = (): never => {
    throw new AncrageError("ANCRAGE_COLUMN_NOT_LOGGED", `"deal" had no column "label" when this change was made.`);
  };
  const builder = builderOf({ Where: { where: gone } }, gone);
  await builder.build(inserts(0, parkedAfterRejections));
  expect(builder.parked()).toEqual(["tracking/deal.ts", "Where"]);
  const after = await builder.build(inserts(1_000, 1_003));
  expect(after?.rejections.map(({ reason }) => reason).toSorted()).toEqual([
    ...Array<string>(3).fill("handler-threw"),
    ...Array<string>(3).fill("where-threw"),
  ]);
});

test("a handler that throws for some records only is not parked", async () => {
  const builder = builderOf({}, (key) => (Number(key) % 2 === 0 ? failing() : undefined));
  await builder.build(inserts(0, 3 * parkedAfterRejections));
  expect(builder.parked()).toEqual([]);
});

test("a where that always throws is parked; one that works goes on telling which occurrences a parked payload owes", async () => {
  const builder = builderOf({ Where: { where: failing }, Payload: { where: (row) => row["id"] !== 1001, payload: failing } });
  await builder.build(inserts(0, parkedAfterRejections));
  const after = await builder.build(inserts(1000, 1003));
  expect(after?.rejections.map(({ event, key, reason }) => [event, key, reason])).toEqual([
    ["Where", "1000", "event-parked"],
    ["Payload", "1000", "event-parked"],
    ["Payload", "1002", "event-parked"],
  ]);
});

test("an event whose reads begin to run out of time when another's patience is over has its own", async () => {
  const readPatienceMs = 1_000;
  let nowMs = 0;
  const stopping = new AbortController();
  const timeout = Object.assign(new Error("canceling statement due to statement timeout"), { code: "57014" });
  const builder = builderOf(
    {
      First: defineEvent({ table: "deal", on: "insert", payload: async (_, { sql }) => ({ rows: await sql`select 'first'` }) }),
      Second: defineEvent({ table: "deal", on: "insert", payload: async (_, { sql }) => ({ rows: await sql`select 'second'` }) }),
    },
    undefined,
    {
      readPatienceMs,
      clock: { nowMs: () => nowMs, monotonicMs: () => nowMs },
      stopping: stopping.signal,
      // The second answers until the first was told apart.
      sql: (text) => (text.includes("first") || builder.readable.slow().has("First") ? Promise.reject(timeout) : Promise.resolve([])),
      signal: (name, detail) => {
        if (name !== "rebuilding") return;
        nowMs += readPatienceMs / 2;
        if ((detail as BatchFault).events.includes("Second")) setImmediate(() => stopping.abort());
      },
    },
  );
  expect(await builder.build(inserts(0, 1))).toBeUndefined();
  expect([...builder.readable.slow().keys()]).toEqual(["First"]);
});
