import { execFile } from "node:child_process";
import { access } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { markPool, withMarks } from "../../src/marks.ts";
import { startSystem, type System } from "../e2e/system.ts";

/**
 * Prisma with its adapter for `pg`: with `ANCRAGE_TEST_PRISMA=1` alone, which installs it into a folder of its own. That is 300 MB and
 * most of a minute, too much for each run of all tests.
 */
const isAsked = process.env["ANCRAGE_TEST_PRISMA"] === "1";
const run = promisify(execFile);
/** Not among the packages of the repository. */
const adapter = "@prisma/adapter-pg";
const folder = new URL("prisma/", import.meta.url);

/** What is used of the client that Prisma generates. */
interface Client {
  readonly item: Items;
  $transaction<Result>(work: (transaction: Client) => Promise<Result>, options?: TransactionOptions): Promise<Result>;
  $transaction(all: readonly unknown[]): Promise<unknown>;
  $disconnect(): Promise<void>;
}
interface TransactionOptions {
  readonly maxWait: number;
  readonly isolationLevel?: string;
}
interface Items {
  update(what: {
    readonly where: { readonly id: number };
    readonly data: { readonly n: { readonly increment: number } };
  }): Promise<unknown>;
  findMany(): Promise<unknown>;
}

describe.skipIf(!isAsked)("Prisma", () => {
  const ItemChanged = defineEvent({
    table: "item",
    on: "update",
    payload: (item, { actor }) => ({ id: item["id"], n: item["n"], actor: actor ?? null }),
  });
  let system: System;
  let pool: pg.Pool;
  let prisma: Client;
  beforeAll(async () => {
    await install();
    system = await startSystem({
      schema: "create table item (id integer primary key, n integer not null default 0)",
      events: { ItemChanged },
    });
    const require = createRequire(new URL("package.json", folder));
    // The adapter takes a pool of its own copy of `pg` alone.
    const { Pool } = require("pg") as typeof pg;
    const { PrismaPg } = require(adapter) as { readonly PrismaPg: new (pool: pg.Pool) => unknown };
    const generated = new URL(".ancrage/client/client.ts", folder).href;
    const { PrismaClient } = (await import(generated)) as { readonly PrismaClient: new (options: object) => Client };
    pool = markPool(new Pool({ connectionString: system.database.url, application_name: "test", max: 2 }));
    prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
    await system.call("POST", "/v1/subscriptions", { event: "ItemChanged", url: system.receiver.url, format: "bare" });
  }, 300_000);
  afterAll(async () => {
    await prisma?.$disconnect();
    await pool?.end();
    await system?.close();
  });

  test("each way of writing carries the marks of its request, forty at once on two sessions", async () => {
    const plusOne = (client: Client, id: number): Promise<unknown> => client.item.update({ where: { id }, data: { n: { increment: 1 } } });
    // For one of the two sessions.
    const maxWait = 60_000;
    const ways: readonly ((id: number) => Promise<unknown>)[] = [
      (id) => plusOne(prisma, id),
      (id) => prisma.$transaction((transaction) => plusOne(transaction, id), { maxWait }),
      (id) => prisma.$transaction((transaction) => plusOne(transaction, id), { maxWait, isolationLevel: "ReadCommitted" }),
    ];
    const ids = Array.from({ length: 40 }, (_, index) => index);
    await system.rows("insert into item select generate_series(0, 39)");
    await Promise.all(ids.map((id) => withMarks({ actor: id % 2 === 0 ? undefined : `user:${id}` }, () => ways[id % 3]!(id))));
    const requests = await system.receiver.until((requests) => requests.length === 40);
    const told = requests.map(({ body }) => JSON.parse(body) as { readonly id: number });
    expect(told.toSorted((a, b) => a.id - b.id)).toEqual(ids.map((id) => ({ id, n: 1, actor: id % 2 === 0 ? null : `user:${id}` })));
    // A list is sent off together with all that Prisma was handed in the same turn, under the marks of the first: docs/guides/avoid-echoes.md.
    await withMarks({ actor: "list" }, () => prisma.$transaction([prisma.item.findMany(), plusOne(prisma, 0)]));
    const [last] = (await system.receiver.until((requests) => requests.length === 41)).slice(-1);
    expect(JSON.parse(last?.body ?? "")).toEqual({ id: 0, n: 2, actor: "list" });
  });
});

/** `prisma generate` wants the engine that migrates and does not run it: any file will do, and nothing is downloaded. */
async function install(): Promise<void> {
  const isThere = await access(new URL("node_modules/.package-lock.json", folder)).then(
    () => true,
    () => false,
  );
  const cwd = fileURLToPath(folder);
  if (!isThere) await run("npm", ["install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"], { cwd });
  const env = { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: process.execPath };
  await run("npx", ["prisma", "generate", "--schema", "schema.prisma"], { cwd, env });
}
