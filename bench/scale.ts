import { createSecretKey } from "node:crypto";
import type { Change } from "../src/capture/change.ts";
import { buildCatalogue, type Catalogue } from "../src/event/catalogue.ts";
import { defineEvent } from "../src/event/define.ts";
import { fanOut } from "../src/fan-out.ts";
import { matchChange } from "../src/match.ts";
import type { Message } from "../src/message.ts";
import type { TableInfo } from "../src/store/tables.ts";
import { createRegistry, type Registry } from "../src/subscription/registry.ts";
import { measureManySubscriptions, type ManySubscriptions } from "./many-subscriptions.ts";
import type { Server } from "./server.ts";
import { computeMedian } from "./statistics.ts";

/** What matching and fan-out take for one change that goes to ten subscriptions, among few and among many others. */
export interface Scale {
  /** Among many ÷ among few: 1 where neither the number of subscriptions nor that of events matters. */
  readonly ratio: number;
  readonly manyNsPerChange: number;
  readonly fewNsPerChange: number;
  readonly subscriptions: number;
  readonly events: number;
  /** The whole system over many. */
  readonly system: ManySubscriptions;
}

const many = { subscriptions: 100_000, events: 1_000 };
const few = { subscriptions: 10, events: 1 };
/** The measured event's own, in both. */
const own = 10;
const rounds = 15;
const changes = 100_000;

/** @param systemSubscriptions for the whole system; the rest is always measured with 100,000 */
export async function measureScale(server: Server, systemSubscriptions: number, tell: (words: string) => void): Promise<Scale> {
  const system = await measureManySubscriptions(server, systemSubscriptions, tell);
  const worlds = [createWorld(few), createWorld(many)] as const;
  const [fewNs, manyNs]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    fewNs.push(measure(worlds[0]));
    manyNs.push(measure(worlds[1]));
  }
  // The first rounds meet code that is not compiled yet.
  const [fewNsPerChange, manyNsPerChange] = [fewNs, manyNs].map((all) => computeMedian(all.slice(5))) as [number, number];
  tell(`scale: ${Math.round(fewNsPerChange)} ns a change among few, ${Math.round(manyNsPerChange)} ns among many`);
  return { ratio: manyNsPerChange / fewNsPerChange, manyNsPerChange, fewNsPerChange, ...many, system };
}

interface World {
  readonly catalogue: Catalogue;
  readonly registry: Registry;
}

function measure({ catalogue, registry }: World): number {
  let reached = 0;
  const startedAtMs = performance.now();
  for (let i = 0; i < changes; i++) {
    for (const { event, position, key } of matchChange(change, catalogue).occurrences) {
      const message = { project: "default", event: event.name, key, position } as unknown as Message;
      reached += fanOut(message, registry).length;
    }
  }
  const ns = ((performance.now() - startedAtMs) * 1e6) / changes;
  if (reached !== own * changes) throw new Error(`expected ${own * changes} deliveries, got ${reached}`);
  return ns;
}

function createWorld({ subscriptions, events }: typeof many): World {
  const numbers = Array.from({ length: events }, (_, number) => number);
  const catalogue = buildCatalogue({
    events: numbers.map((number) => ({
      name: `Event${number}`,
      file: `events/Event${number}.ts`,
      definition: defineEvent({ description: "A row was inserted.", table: `table${number}`, on: "insert", payload: () => ({}) }),
    })),
    tracking: [],
    tables: numbers.map(tableOf),
  });
  const registry = createRegistry();
  const key = createSecretKey(Buffer.alloc(32));
  for (let number = 0; number < subscriptions; number++) {
    registry.put({
      id: `sub_${number}`,
      project: "default",
      events: [`Event${number < own ? 0 : 1 + (number % (events - 1))}`],
      origin: "https://example.com",
      path: "/hook",
      format: "standard",
      keys: [key],
      revision: 1n,
      startLsn: 0n,
      state: "enabled",
    });
  }
  return { catalogue, registry };
}

const tableOf = (number: number): TableInfo => ({
  oid: number + 1,
  schema: "public",
  table: `table${number}`,
  name: `table${number}`,
  columns: [{ name: "id", typeOid: 23, typeName: "integer", castType: "pg_catalog.int4", isNullable: false, isGenerated: false }],
  keyColumns: ["id"],
  replicaIdentity: "d",
  isPartitioned: false,
});

const change: Change = {
  kind: "change",
  transaction: { xid: 1, commitLsn: 10n, committedAtUs: 0n },
  position: { commitLsn: 10n, changeLsn: 9n, ordinal: 0 },
  table: "table0",
  action: "insert",
  key: "1",
  before: undefined,
  after: { id: 1 },
};
