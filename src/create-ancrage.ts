import type pg from "pg";
import type { TriggerCame } from "./build-messages.ts";
import type { HealthLimits } from "./capture/health.ts";
import { systemClock, type Clock } from "./clock.ts";
import { Engine } from "./engine.ts";
import { AncrageError } from "./errors.ts";
import { buildCatalogue, type Catalogue } from "./event/catalogue.ts";
import { discover } from "./event/discover.ts";
import { createApp } from "./http/app.ts";
import { answerProbe, answerStopped, answerUnconnected } from "./http/unconnected.ts";
import { createLogger, type Logger } from "./log.ts";
import { readOptions, requireOptions, type AncrageOptions } from "./options.ts";
import type { PayloadDeps } from "./payload/build.ts";
import { createRecordReaders, createSampleReaders } from "./payload/record-readers.ts";
import { readSamples } from "./payload/sample.ts";
import { createSqlReader } from "./payload/sql.ts";
import { createTestSender, type TestSender } from "./send-test.ts";
import { createServices } from "./services.ts";
import { atMost } from "./pause.ts";
import { createPool } from "./store/database.ts";
import { readTables } from "./store/tables.ts";
import { readTypes, type ValueTypes } from "./store/types.ts";
import { parseSecretKey } from "./subscription/secret.ts";
import { createSubscriptionService, type SubscriptionService } from "./subscription/subscription.ts";
import type { TestSignal } from "./test-signal.ts";

export { migrate } from "./migrate.ts";

/** The running system, as a library. */
export interface Ancrage {
  /**
   * Answers Ancrage's HTTP API, with or without `start`. Connects on the first request; while the database does not answer, and once this
   * was stopped, the answer is 503. Rejects only where definitions are wrong.
   */
  readonly fetch: (request: Request) => Promise<Response>;
  /** The functions that the subscription routes call. */
  readonly subscriptions: SubscriptionService;
  /**
   * Begins to capture and deliver; resolves when capture streams, or when this process waits as the standby of another one.
   *
   * @throws AncrageError `ANCRAGE_DEFINITION_INVALID`, `ANCRAGE_DATABASE_UNREACHABLE`, `ANCRAGE_NOT_MIGRATED` with the SQL, `ANCRAGE_SLOT_LOST`
   */
  start(): Promise<void>;
  /**
   * Resolves with the error once it has ended without being stopped: another process has taken over (`ANCRAGE_SUPERSEDED`), or a fault of
   * its own. `fetch` goes on answering. Who has started anew by then is a standby: `ancrage start` exits, so that whoever watches it
   * does that.
   */
  readonly ended: Promise<unknown>;
  /** Reads no more, finishes what is in flight, journals it. Idempotent, and safe before `start`. */
  stop(): Promise<void>;
}

/** What only our own tests hand in. */
export interface Internals {
  readonly clock?: Clock;
  readonly log?: Logger;
  /** A shorter lease, where a test waits for one to run out. */
  readonly leaseMs?: number;
  readonly signal?: TestSignal;
  readonly captureWatchMs?: number;
  readonly healthLimits?: Partial<HealthLimits>;
  readonly readPatienceMs?: number;
  readonly subscriptionSweepMs?: number;
}

/** Sessions for the API, for what capture and payloads read, and for what delivery does: none of the three holds up another one. */
const apiSessions = 5;
const readSessions = 6;
const deliverySessions = 4;
/** How long the sessions of these may take to end. */
const goodbyeMs = 5_000;

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
  const ended = Promise.withResolvers<unknown>();
  let parts: Promise<Parts> | undefined;
  /** Once the routes were there. */
  let isConnected = false;
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
    const api = pool("ancrage api", apiSessions, {
      statement_timeout: "15000",
      // Lists go by the order that they are asked for in, and end once they have a page; whole days are read by nobody, and by one
      // processor at most. [M: of 3 million deliveries in 7 days, 51 of one subscription took 1,027 ms by the planner's own choice, 16 ms so.]
      max_parallel_workers_per_gather: "0",
      enable_seqscan: "off",
      enable_bitmapscan: "off",
      jit: "off",
    });
    const reads = pool("ancrage reads", readSessions, { statement_timeout: "30000" });
    const deliveries = pool("ancrage deliveries", deliverySessions, {
      statement_timeout: "30000",
      // All of its statements go by an index. [M: with statistics of a backlog of 300,000 in 28 days, the planner's own choice took the
      // sweep 560 to 1,330 ms, this one 310.]
      enable_seqscan: "off",
      enable_bitmapscan: "off",
      enable_hashjoin: "off",
      enable_mergejoin: "off",
    });
    const pools = [api, reads, deliveries];
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
        deliveryDb: deliveries,
        onTrigger(id, came) {
          waiting.get(id)?.(came);
          waiting.delete(id);
        },
        clock,
        log,
        leaseMs: internals.leaseMs,
        signal: internals.signal,
        captureWatchMs: internals.captureWatchMs,
        healthLimits: internals.healthLimits,
        readPatienceMs: internals.readPatienceMs,
        subscriptionSweepMs: internals.subscriptionSweepMs,
      });
      const sampleReaders = createSampleReaders(api, types, clock);
      const tests = createTestSender({
        db: api,
        options,
        secretKey: key,
        async sample(name, project) {
          const event = catalogue.events.get(name);
          if (event === undefined) throw new AncrageError("ANCRAGE_TRIGGER_UNKNOWN_EVENT", `no file defines the event "${name}".`);
          const { samples } = await readSamples(event, { limit: 1, project }, { ...payload, ...sampleReaders });
          const [sample] = samples;
          if (sample === undefined) throw new AncrageError("ANCRAGE_SAMPLE_NONE", `the event "${name}" has nothing to show as a sample.`);
          return sample;
        },
        clock,
      });
      const subscriptions = createSubscriptionService({
        sendTest: tests.sendTest,
        db: api,
        secretKey: key,
        events: () => catalogue.events.keys(),
        url: { allowHttp: options.allowHttp },
        onChanged: (row) => engine.subscriptionChanged(row),
      });
      const services = createServices({
        options,
        token,
        secretKey: key,
        log,
        clock,
        waiting,
        api,
        catalogue,
        types,
        payload,
        engine,
        subscriptions,
      });
      isConnected = true;
      return { pools, engine, subscriptions, tests, fetch: createApp(services).fetch };
    } catch (error) {
      await Promise.all(pools.map((one) => one.end()));
      throw error;
    }
  }

  const lazily = async (): Promise<SubscriptionService> => (await connect()).subscriptions;
  return {
    async fetch(request) {
      if (stopping !== undefined) return answerStopped();
      const probed = isConnected ? undefined : answerProbe(request);
      if (probed !== undefined) return probed;
      let made: Parts;
      try {
        made = await connect();
      } catch (error) {
        return answerUnconnected(error, request, log);
      }
      return made.fetch(request);
    },
    subscriptions: {
      create: async (input, options) => (await lazily()).create(input, options),
      get: async (id, project) => (await lazily()).get(id, project),
      secret: async (id, project) => (await lazily()).secret(id, project),
      list: async (filter) => (await lazily()).list(filter),
      update: async (id, patch, project) => (await lazily()).update(id, patch, project),
      pause: async (id, project) => (await lazily()).pause(id, project),
      resume: async (id, project) => (await lazily()).resume(id, project),
      enable: async (id, project) => (await lazily()).enable(id, project),
      rotateSecret: async (id, rotation, project) => (await lazily()).rotateSecret(id, rotation, project),
      test: async (id, options, project) => (await lazily()).test(id, options, project),
      delete: async (id, project) => (await lazily()).delete(id, project),
    },
    ended: ended.promise,
    async start() {
      const made = connect();
      const { engine } = await made;
      try {
        await engine.start();
        void engine.ended.then(ended.resolve);
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

async function close({ engine, tests, pools }: Parts): Promise<void> {
  await engine.stop();
  await tests.close();
  // Two that stop at once, a failed start and `stop`, end each pool once. Behind a cut network a session never says goodbye.
  await atMost(goodbyeMs, Promise.all(pools.filter((pool) => !pool.ending).map((pool) => pool.end())));
}

interface Parts {
  readonly pools: readonly pg.Pool[];
  readonly engine: Engine;
  readonly subscriptions: SubscriptionService;
  readonly tests: TestSender;
  readonly fetch: (request: Request) => Promise<Response>;
}
