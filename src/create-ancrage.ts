import type pg from "pg";
import type { TriggerCame } from "./build-messages.ts";
import { systemClock, type Clock } from "./clock.ts";
import { Engine } from "./engine.ts";
import { AncrageError } from "./errors.ts";
import { buildCatalogue, type Catalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { explain } from "./explain.ts";
import { formatMessage } from "./format.ts";
import { createApp } from "./http/app.ts";
import type { Services, Triggered, TriggerOptions } from "./http/services.ts";
import { createLogger, type Logger } from "./log.ts";
import { readOptions, requireOptions, type AncrageOptions, type CheckedOptions } from "./options.ts";
import type { PayloadDeps } from "./payload/build.ts";
import { createRecordReaders } from "./payload/record-readers.ts";
import { readSamples } from "./payload/sample.ts";
import { createSqlReader } from "./payload/sql.ts";
import { readStatus } from "./status.ts";
import { createPool } from "./store/database.ts";
import { readNewestMessages } from "./store/newest-messages.ts";
import { readNewest } from "./store/read.ts";
import { listSubscriptions } from "./store/subscriptions.ts";
import { readTables } from "./store/tables.ts";
import { emitTrigger } from "./store/triggers.ts";
import { readTypes, type ValueTypes } from "./store/types.ts";
import { parseSecretKey } from "./subscription/secret.ts";
import { createSubscriptionService, type SubscriptionService } from "./subscription/subscription.ts";
import type { TestSignal } from "./test-signal.ts";

export { migrate } from "./migrate.ts";

/** The running system, as a library. */
export interface Ancrage {
  /** Answers Ancrage's HTTP API, with or without `start`. Connects on the first request. */
  readonly fetch: (request: Request) => Promise<Response>;
  /** The functions that the subscription routes call. */
  readonly subscriptions: SubscriptionService;
  /**
   * Begins to capture and deliver; resolves when capture streams, or when this process waits as the standby of another one.
   *
   * @throws AncrageError `ANCRAGE_DEFINITION_INVALID`, `ANCRAGE_DATABASE_UNREACHABLE`, `ANCRAGE_NOT_MIGRATED` with the SQL, `ANCRAGE_SLOT_LOST`
   */
  start(): Promise<void>;
  /** Reads no more, finishes what is in flight, journals it. Idempotent, and safe before `start`. */
  stop(): Promise<void>;
}

/** What only our own tests hand in. */
export interface Internals {
  readonly clock?: Clock;
  readonly log?: Logger;
  readonly signal?: TestSignal;
}

/** Sessions for the API, apart from those of delivery and payloads: a slow listing holds up nobody else. */
const apiSessions = 5;
const readSessions = 6;

/**
 * Makes the system; nothing connects before `start` or the first request.
 *
 * @example
 * ```ts
 * const ancrage = createAncrage({ database: process.env.DATABASE_URL, events: "./hooks", token, secretKey });
 * await ancrage.start();
 * serve({ fetch: ancrage.fetch });
 * await ancrage.subscriptions.create({ events: ["NewOpportunity"], url: "https://example.com/hook" });
 * ```
 * @throws AncrageError `ANCRAGE_OPTION_INVALID` with all that is wrong
 */
export function createAncrage(given: AncrageOptions, internals: Internals = {}): Ancrage {
  const options = readOptions(given);
  const { database, token, secretKey } = requireOptions(options, "database", "token", "secretKey");
  const key = parseSecretKey(secretKey);
  const log = internals.log ?? createLogger({ level: options.logLevel, secrets: [token, secretKey] });
  const clock = internals.clock ?? systemClock;
  const pool = (applicationName: string, size: number, settings: Readonly<Record<string, string>> = {}): pg.Pool =>
    createPool({
      connectionString: database,
      applicationName,
      size,
      settings,
      onIdleError: (error) => log.warn({ err: error }, `an idle session of ${applicationName} was lost`),
    });

  /** Callers of `trigger` that wait for what comes of it, by the trigger's UUID. */
  const waiting = new Map<string, (came: TriggerCame) => void>();
  let parts: Promise<Parts> | undefined;
  let stopping: Promise<void> | undefined;

  const connect = (): Promise<Parts> => {
    if (stopping !== undefined) throw new AncrageError("ANCRAGE_COMMAND_FAILED", "this instance was stopped; make another one.");
    parts ??= makeParts().catch((error: unknown) => {
      // The next request tries again: the database may only be late.
      parts = undefined;
      throw error;
    });
    return parts;
  };

  async function makeParts(): Promise<Parts> {
    const api = pool("ancrage api", apiSessions, { statement_timeout: "15000" });
    const reads = pool("ancrage reads", readSessions, { statement_timeout: "30000" });
    try {
      const found = await discover(options.events ?? ".");
      const session = await reads.connect();
      let catalogue: Catalogue;
      let types: ValueTypes;
      try {
        types = await readTypes(session);
        catalogue = buildCatalogue({ ...found, tables: await readTables(session), config: options });
      } finally {
        session.release();
      }
      const payload: PayloadDeps = {
        catalogue,
        readers: createRecordReaders(reads, types),
        sql: createSqlReader({ pool: reads, types }),
        limits: { timeoutMs: options.payload.timeoutMs },
      };
      const engine = new Engine({
        database,
        options,
        secretKey: key,
        catalogue,
        types,
        payload,
        db: reads,
        onTrigger(id, came) {
          waiting.get(id)?.(came);
          waiting.delete(id);
        },
        clock,
        log,
        signal: internals.signal,
      });
      const subscriptions = createSubscriptionService({
        db: api,
        secretKey: key,
        events: () => catalogue.events.keys(),
        url: { allowHttp: options.allowHttp },
        onChanged: (row) => engine.subscriptionChanged(row),
      });
      const services = createServices({ options, token, log, waiting, api, reads, catalogue, types, payload, engine, subscriptions });
      return { api, reads, engine, subscriptions, fetch: createApp(services).fetch };
    } catch (error) {
      await Promise.all([api.end(), reads.end()]);
      throw error;
    }
  }

  const lazily = async (): Promise<SubscriptionService> => (await connect()).subscriptions;
  return {
    async fetch(request) {
      return (await connect()).fetch(request);
    },
    subscriptions: {
      create: async (input) => (await lazily()).create(input),
      get: async (id, project) => (await lazily()).get(id, project),
      secret: async (id, project) => (await lazily()).secret(id, project),
      list: async (filter) => (await lazily()).list(filter),
      delete: async (id, project) => (await lazily()).delete(id, project),
    },
    async start() {
      const made = connect();
      const { engine } = await made;
      try {
        await engine.start();
      } catch (error) {
        // What failed is not kept: its sessions end, and the next start, or the next request, begins anew.
        if (parts === made) parts = undefined;
        await close(await made);
        throw error;
      }
    },
    stop() {
      stopping ??= (async () => {
        const made = await parts?.catch(() => undefined);
        if (made !== undefined) await close(made);
      })();
      return stopping;
    },
  };
}

async function close({ engine, api, reads }: Parts): Promise<void> {
  await engine.stop();
  // Two that stop at once, a failed start and `stop`, end each pool once.
  await Promise.all([api, reads].filter((pool) => !pool.ending).map((pool) => pool.end()));
}

interface Parts {
  readonly api: pg.Pool;
  readonly reads: pg.Pool;
  readonly engine: Engine;
  readonly subscriptions: SubscriptionService;
  readonly fetch: (request: Request) => Promise<Response>;
}

interface ServiceParts extends Omit<Parts, "fetch"> {
  readonly options: CheckedOptions;
  readonly token: string;
  readonly log: Logger;
  readonly waiting: Map<string, (came: TriggerCame) => void>;
  readonly catalogue: Catalogue;
  readonly types: ValueTypes;
  readonly payload: PayloadDeps;
}

/** What the routes are handed. */
function createServices(parts: ServiceParts): Services {
  const { api, reads, catalogue, types, payload, engine, log } = parts;
  const eventOf = (name: string): NonNullable<ReturnType<Catalogue["events"]["get"]>> => {
    const event = catalogue.events.get(name);
    if (event === undefined) throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", `no file defines the event "${name}".`);
    return event;
  };
  return {
    db: api,
    subscriptions: parts.subscriptions,
    catalogue: () => catalogue,
    publicUrl: parts.options.publicUrl,
    operatorToken: parts.token,
    logError: (error, context) => log.error({ err: error, ...context }, "the API answered with an error of ours"),
    status: () => readStatus(engine, catalogue),
    async samples(name, { limit, project, format }) {
      const { samples } = await readSamples(
        eventOf(name),
        { limit, project },
        {
          ...payload,
          newestRecords: (table, page) => readNewest(reads, table, { types, ...page }),
          newestMessages: (event, of, count) => readNewestMessages(api, event, of, count),
        },
      );
      // What a delivery's body holds, of a message that has not happened: its id and time are those of a sample.
      return samples.map(({ json, key }): unknown =>
        JSON.parse(
          formatMessage(format, {
            id: "msg_SAMPLE",
            event: name,
            key: key ?? "",
            committedAtUs: BigInt(Date.now()) * 1000n,
            body: Buffer.from(json),
          }).toString("utf8"),
        ),
      );
    },
    explain: (name, { key, project }) =>
      explain(
        name,
        { key, project },
        {
          ...payload,
          catalogue,
          isParked: (event) => engine.pipeline?.parked().includes(event) === true,
          subscriptionsOf: (of, event) => listSubscriptions(api, { project: of, event, limit: 100 }),
        },
      ),
    trigger: (name, trigger) => triggerEvent(name, trigger, parts),
  };
}

async function triggerEvent(name: string, options: TriggerOptions, parts: ServiceParts): Promise<Triggered | undefined> {
  const { key, data, waitMs, project } = options;
  if (project !== undefined && (await projectOfKey(name, options, parts)) !== project) return undefined;
  let answer: ((came: TriggerCame | undefined) => void) | undefined;
  const came = new Promise<TriggerCame | undefined>((resolve) => (answer = resolve));
  const id = await emitTrigger(parts.api, { event: name, key, data }, (uuid) => {
    // Before the commit: the log may come to it before the answer to the commit does.
    if (waitMs !== undefined && answer !== undefined) parts.waiting.set(uuid, answer);
  });
  if (waitMs === undefined) return { id, outcome: { kind: "pending" } };
  const timer = setTimeout(() => answer?.(undefined), waitMs);
  const outcome = await came;
  clearTimeout(timer);
  parts.waiting.delete(id);
  return { id, outcome: outcome ?? { kind: "pending" } };
}

/** Whose record a key is; undefined where there is none. One project's token must not make events of another. */
async function projectOfKey(
  name: string,
  { key, data }: TriggerOptions,
  { catalogue, payload }: ServiceParts,
): Promise<string | undefined> {
  const event = catalogue.events.get(name);
  if (event === undefined) return undefined;
  if (event.table === undefined) return catalogue.projectOf(event, { key, data });
  const record = (await payload.readers.byKeys(event.table, [key])).get(key);
  return record === undefined ? undefined : catalogue.projectOf(event, record);
}
