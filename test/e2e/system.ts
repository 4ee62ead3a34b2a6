import { randomBytes } from "node:crypto";
import { pino } from "pino";
import { createAncrage, migrate, type Ancrage, type Internals } from "../../src/create-ancrage.ts";
import type { AncrageOptions } from "../../src/options.ts";
import { cloneDatabase, type TestDatabase } from "../database.ts";
import { startReceiver, type Receiver } from "../receiver.ts";

/** A whole system for a test: a database, what runs on it, and a receiver. */
export interface System {
  readonly database: TestDatabase;
  readonly receiver: Receiver;
  readonly options: AncrageOptions;
  /** The one that runs now. */
  readonly ancrage: () => Ancrage;
  /** Rows of one statement, on the test's own session. */
  rows<Row extends object>(sql: string, values?: readonly unknown[]): Promise<Row[]>;
  /** Asks a statement that selects one value until it is as expected: what waits for the journal has no signal of its own. */
  until(sql: string, expected: unknown): Promise<void>;
  /** Calls the API with the operator's token. */
  call(method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Answered>;
  /** Stops what runs and starts it anew. */
  restart(): Promise<void>;
  /** One more on the same database, not started; it is stopped with the system. */
  another(internals?: Internals): Ancrage;
  close(): Promise<void>;
}

interface Answered {
  readonly status: number;
  // What a test reads of it, it states.
  readonly body: any; // oxlint-disable-line typescript/no-explicit-any
}

interface SystemOptions {
  /** SQL that makes the application's tables. */
  readonly schema: string;
  readonly events: NonNullable<Exclude<AncrageOptions["events"], string>>;
  readonly options?: AncrageOptions;
  readonly internals?: Internals;
  /** Default: a clone of the template, on the server of all tests. */
  readonly database?: TestDatabase;
  /** Default: it is. */
  readonly isStarted?: boolean;
}

const token = "a-token-of-the-operator";
const silent = pino({ level: process.env["LOG"] ?? "silent" });

export async function startSystem({ schema, events, options: given, internals, isStarted = true, ...on }: SystemOptions): Promise<System> {
  const database = on.database ?? (await cloneDatabase());
  const receiver = await startReceiver();
  await database.client.query(schema);
  const options: AncrageOptions = {
    database: database.url,
    events,
    token,
    secretKey: randomBytes(32).toString("base64"),
    allowHttp: true,
    allowNetworks: ["127.0.0.0/8"],
    ...given,
  };
  await migrate(options);
  const all: Ancrage[] = [];
  const another = (more: Internals = {}): Ancrage => {
    const made = createAncrage(options, { log: silent, ...internals, ...more });
    all.push(made);
    return made;
  };
  let ancrage = another();
  const rows = async <Row extends object>(sql: string, values: readonly unknown[] = []): Promise<Row[]> =>
    (await database.client.query<Row>(sql, [...values])).rows;
  const system: System = {
    database,
    receiver,
    options,
    ancrage: () => ancrage,
    rows,
    async until(sql, expected) {
      for (let last: unknown; ;) {
        const [row] = await rows<Record<string, unknown>>(sql);
        last = row === undefined ? undefined : Object.values(row)[0];
        if (String(last) === String(expected)) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async call(method, path, body, headers = {}) {
      const answer = await ancrage.fetch(
        new Request(`http://ancrage.test${path}`, {
          method,
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        }),
      );
      const text = await answer.text();
      return { status: answer.status, body: text === "" ? undefined : JSON.parse(text) };
    },
    async restart() {
      await ancrage.stop();
      ancrage = another();
      await ancrage.start();
    },
    another,
    async close() {
      await Promise.all(all.map((one) => one.stop()));
      await receiver.close();
      await database.remove();
    },
  };
  if (isStarted) await ancrage.start();
  return system;
}
