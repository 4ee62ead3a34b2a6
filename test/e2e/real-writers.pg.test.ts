import { execFile } from "node:child_process";
import { access, constants, readdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { defineEvent } from "../../src/event/define.ts";
import { markPool, withMarks } from "../../src/marks.ts";
import { cloneDatabase } from "../database.ts";
import { startSystem, type System } from "./system.ts";

/** Writers that nobody here wrote, as they are: PostgreSQL's own `pgbench`, and a library that brings its own tables and ORM. */
const run = promisify(execFile);
const transactions = 400;

const HistoryWritten = defineEvent({ table: "pgbench_history", on: "insert", payload: ({ hid, aid, delta }) => ({ hid, aid, delta }) });
const BalanceChanged = defineEvent({
  table: "pgbench_accounts",
  on: { update: ["abalance"] },
  payload: ({ aid, abalance }, { before }) => ({ aid, delta: Number(abalance) - Number(before?.["abalance"]) }),
});
const UserCreated = defineEvent({
  table: "user",
  on: "insert",
  payload: ({ email, name, emailVerified }, { actor }) => ({ email, name, emailVerified, actor: actor ?? null }),
});
const UserRenamed = defineEvent({
  table: "user",
  on: { update: ["name"] },
  payload: ({ name }, { before, actor }) => ({ from: before?.["name"], to: name, actor: actor ?? null }),
});
const SessionChanged = defineEvent({
  table: "session",
  on: ["insert", "delete"],
  async payload(session, { action, load }) {
    return { action, email: (await load("user", session["userId"] as string))?.["email"] };
  },
});

let system: System;
let pool: pg.Pool;
let auth: ReturnType<typeof createAuth>;
let pgbench: string | undefined;
beforeAll(async () => {
  const database = await cloneDatabase();
  pgbench = await findPgbench();
  if (pgbench !== undefined) await run(pgbench, ["--initialize", "--quiet", database.url]);
  // An application whose driver reads its times as they are written: node-postgres knows the ISO style alone, whatever its database has.
  const options = "-c datestyle=ISO -c timezone=UTC";
  pool = markPool(new pg.Pool({ connectionString: database.url, application_name: "test", max: 3, options }));
  auth = createAuth(pool);
  await (await getMigrations(auth.options)).runMigrations();
  const ofPgbench = pgbench === undefined ? {} : { HistoryWritten, BalanceChanged };
  system = await startSystem({
    database,
    // Messages name a record by its key, and this one table has none. pgbench names its columns, so it does not mind one more.
    schema: pgbench === undefined ? "" : "alter table pgbench_history add hid bigint generated always as identity primary key",
    events: { UserCreated, UserRenamed, SessionChanged, ...ofPgbench },
  });
});
afterAll(async () => {
  await pool?.end();
  await system?.close();
});

const subscribe = (event: string): Promise<unknown> =>
  system.call("POST", "/v1/subscriptions", { event, url: `${system.receiver.url}/${event}`, format: "bare" });
const bodies = <Body>(event: string): readonly Body[] =>
  system.receiver.requests.filter(({ path }) => path === `/${event}`).map(({ body }) => JSON.parse(body) as Body);

test("pgbench's TPC-B: each row is delivered once, with what was committed", async ({ skip }) => {
  if (pgbench === undefined) return skip("this machine has no pgbench, in the PATH or where Debian puts it");
  await subscribe("HistoryWritten");
  await subscribe("BalanceChanged");
  await run(pgbench, ["--client=4", "--jobs=2", `--transactions=${transactions / 4}`, system.database.url]);
  await system.receiver.until(
    () => bodies("HistoryWritten").length >= transactions && bodies("BalanceChanged").length >= changedBalances(),
  );
  // What would come twice had come by now: the journal is drained in order, and nothing of it waits.
  await system.until("select count(*) from ancrage.deliveries where state = 'delivered'", transactions + changedBalances());
  const rows = await system.rows<{ hid: string; aid: number; delta: number }>("select hid, aid, delta from pgbench_history order by hid");
  expect(rows.length).toBe(transactions);
  const told = bodies<{ hid: string; aid: number; delta: number }>("HistoryWritten");
  expect(told.toSorted((a, b) => Number(a.hid) - Number(b.hid))).toEqual(rows);
  const perAccount = (changes: readonly { readonly aid: number; readonly delta: number }[]): readonly string[] =>
    changes
      .filter(({ delta }) => delta !== 0)
      .map(({ aid, delta }) => `${aid} ${delta}`)
      .toSorted();
  expect(perAccount(bodies("BalanceChanged"))).toEqual(perAccount(rows));
});

/** A transaction in 10,000 adds nothing to its account's balance: no event. Known once all of the history has come. */
const changedBalances = (): number => bodies<{ delta: number }>("HistoryWritten").filter(({ delta }) => delta !== 0).length;

test("better-auth: its users and sessions are told as they come and go", async () => {
  for (const event of ["UserCreated", "UserRenamed", "SessionChanged"]) await subscribe(event);
  const ada = { email: "ada@example.com", password: "a-long-password", name: "Ada" };
  await ask("sign-up/email", ada);
  const cookie = await ask("sign-in/email", ada);
  await withMarks({ actor: "ada" }, () => ask("update-user", { name: "Ada Lovelace" }, cookie));
  await ask("sign-out", {}, cookie);
  await system.receiver.until(() => bodies("SessionChanged").length === 3 && bodies("UserRenamed").length === 1);
  expect(bodies("UserCreated")).toEqual([{ email: ada.email, name: "Ada", emailVerified: false, actor: null }]);
  expect(bodies("UserRenamed")).toEqual([{ from: "Ada", to: "Ada Lovelace", actor: "ada" }]);
  expect(bodies<{ action: string }>("SessionChanged").toSorted((a, b) => b.action.localeCompare(a.action))).toEqual([
    { action: "insert", email: ada.email },
    { action: "insert", email: ada.email },
    { action: "delete", email: ada.email },
  ]);
});

const createAuth = (database: pg.Pool) =>
  betterAuth({
    database,
    baseURL: "http://auth.test",
    secret: "a secret of thirty-two characters or more",
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    rateLimit: { enabled: false },
  });

/** Asks the library's own HTTP handler. @returns the cookies that it set */
async function ask(path: string, body: unknown, cookie = ""): Promise<string> {
  const headers = { "content-type": "application/json", origin: "http://auth.test", cookie };
  const answer = await auth.handler(
    new Request(`http://auth.test/api/auth/${path}`, { method: "POST", headers, body: JSON.stringify(body) }),
  );
  expect([path, answer.status, answer.ok ? "" : await answer.text()]).toEqual([path, 200, ""]);
  return answer.headers
    .getSetCookie()
    .map((each) => each.split(";")[0])
    .join("; ");
}

/** In the PATH, or beside a server as Debian installs it. */
async function findPgbench(): Promise<string | undefined> {
  const versions = await readdir("/usr/lib/postgresql").catch(() => []);
  const folders = [
    ...(process.env["PATH"] ?? "").split(delimiter),
    ...versions.map((version) => join("/usr/lib/postgresql", version, "bin")),
  ];
  for (const folder of folders) {
    const isThere = await access(join(folder, "pgbench"), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return join(folder, "pgbench");
  }
  return undefined;
}
