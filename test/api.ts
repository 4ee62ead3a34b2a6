import { randomBytes } from "node:crypto";
import type pg from "pg";
import type { Catalogue, CatalogueEvent } from "../src/event/catalogue.ts";
import { createApp } from "../src/http/app.ts";
import type { Services } from "../src/http/services.ts";
import { createTokenService } from "../src/tokens.ts";
import { createJobService } from "../src/job/service.ts";
import { createPool } from "../src/store/database.ts";
import { parseSecretKey } from "../src/subscription/secret.ts";
import { createSubscriptionService, type SubscriptionServiceOptions } from "../src/subscription/subscription.ts";
import type { TestDatabase } from "./database.ts";

export const operatorToken = "operator-token-of-the-tests";

export interface TestApi {
  readonly pool: pg.Pool;
  readonly services: Services;
  /** Errors that were answered as 500 or 503. */
  readonly logged: { readonly error: unknown; readonly id: string }[];
  /** Calls the API as a client would: JSON in, JSON out, with the operator's token unless one is given. */
  call(method: string, path: string, options?: CallOptions): Promise<Answer>;
}

export interface CallOptions {
  readonly body?: unknown;
  /** Sent as it is, in place of `body`. */
  readonly raw?: string;
  /** Null: no token. */
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // What a test reads of it, it states.
  readonly body: any; // oxlint-disable-line typescript/no-explicit-any
}

/** Two events, enough for the API: what a catalogue is built from is not its matter. */
function catalogueOf(...names: readonly string[]): Catalogue {
  const eventOf = (name: string): CatalogueEvent => ({
    name,
    file: `events/${name}.ts`,
    definition: { kind: "event", description: `${name} happened.`, payload: () => undefined },
    table: undefined,
    rules: [{ kind: "insert" }, { kind: "update-columns", columns: ["status"] }],
    jsonSchema: { type: "object" },
  });
  return {
    events: new Map(names.map((name) => [name, eventOf(name)])),
    tables: new Map(),
    allTables: new Map(),
    projectOf: () => "default",
  };
}

/**
 * The API on a real database. What is dynamic (samples, explain, trigger, status) refuses unless a test hands it in.
 */
export function createTestApi(
  database: TestDatabase,
  given: Partial<Services> = {},
  subscriptionOptions: Partial<SubscriptionServiceOptions> = {},
): TestApi {
  const pool = createPool({ connectionString: database.url, applicationName: "api", size: 4, onIdleError: () => undefined });
  const logged: { error: unknown; id: string }[] = [];
  const catalogue = catalogueOf("NewOpportunity", "deal.won");
  const notGiven = (name: string) => async (): Promise<never> => {
    throw new Error(`this test hands in no ${name}`);
  };
  const services: Services = {
    db: pool,
    subscriptions: createSubscriptionService({
      db: pool,
      secretKey: parseSecretKey(randomBytes(32).toString("base64")),
      events: () => catalogue.events.keys(),
      ...subscriptionOptions,
    }),
    jobs: createJobService({
      db: pool,
      catalogue: () => catalogue,
      payload: {
        catalogue,
        readers: { byKeys: notGiven("readers"), where: notGiven("readers") },
        sql: notGiven("sql reader"),
      },
      sourceId: async () => "wal-test",
      onChanged: () => undefined,
      wake: () => undefined,
      unpark: () => undefined,
    }),
    tokens: createTokenService({ db: pool, secretKey: parseSecretKey(randomBytes(32).toString("base64")) }),
    catalogue: () => catalogue,
    samples: notGiven("samples"),
    explain: notGiven("explain"),
    trigger: notGiven("trigger"),
    status: notGiven("status"),
    metrics: notGiven("metrics"),
    cursorKey: parseSecretKey(randomBytes(32).toString("base64")),
    operatorToken,
    logError: (error, { id }) => logged.push({ error, id }),
    ...given,
  };
  const { fetch } = createApp(services);
  return {
    pool,
    services,
    logged,
    async call(method, path, { body, raw, token = operatorToken, headers = {} } = {}) {
      const content = raw ?? (body === undefined ? undefined : JSON.stringify(body));
      const request = new Request(`http://ancrage.test${path}`, {
        method,
        headers: {
          ...(token === null ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        // Bytes rather than a text: of a text `Request` makes a content type by itself.
        ...(content === undefined ? {} : { body: new TextEncoder().encode(content) }),
      });
      const answer = await fetch(request);
      const text = await answer.text();
      return { status: answer.status, headers: answer.headers, body: text === "" ? undefined : JSON.parse(text) };
    },
  };
}
