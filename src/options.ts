import type { Row } from "./capture/change.ts";
import { AncrageError } from "./errors.ts";
import type { EventDefinition } from "./event/define.ts";
import {
  boolean,
  fraction,
  functionOf,
  httpUrl,
  integer,
  isPlainObject,
  kind,
  list,
  network,
  oneOf,
  postgresUrl,
  seconds,
  show,
  showSecret,
  text,
  type Report,
  type Kind,
} from "./option-kinds.ts";
import { nearestName } from "./nearest-name.ts";
import type { TrackingHandler } from "./event/track.ts";

type EventModules = Readonly<Record<string, EventDefinition | TrackingHandler>>;

/** THE options, each once: its kind, default, environment variable, flag and help. Types, checks, flags and docs come from here. */
const table = {
  database: optional(postgresUrl(), {
    env: "DATABASE_URL",
    flag: "--database <url>",
    isSecret: true,
    help: "The database whose changes are tracked. The journal lives in its schema `ancrage`.",
  }),
  replicationUrl: optional(postgresUrl(), {
    env: "ANCRAGE_REPLICATION_URL",
    isSecret: true,
    help: "The same database for reading the log: a role with LOGIN and REPLICATION, never through a pooler. Another server or database is refused; `dev` with a database of its own ignores it. Without it `database` is used.",
  }),
  publicUrl: optional(httpUrl(), {
    env: "ANCRAGE_PUBLIC_URL",
    flag: "--public-url <url>",
    help: "Where the API is reached from outside. `Location`, openapi.json and links are built from it, else from the request.",
  }),
  environment: withDefault(text("a name of letters, digits, - and _", /^[\w-]{1,63}$/), "production", {
    env: "ANCRAGE_ENVIRONMENT",
    flag: "--environment <name>",
    help: "Kept in the journal. A copy of the database that is started under another name does not send.",
  }),
  capture: withDefault(oneOf("wal", "outbox"), "wal", {
    env: "ANCRAGE_CAPTURE",
    help: "How changes are seen: `wal` reads the write-ahead log; `outbox` reads what triggers write, where there is no logical replication. `ancrage migrate` changes from one to the other.",
  }),
  failover: withDefault(boolean(), false, {
    env: "ANCRAGE_FAILOVER",
    help: "Makes the slot a failover slot (PostgreSQL 17 and later): standbys that synchronize slots can go on from it after a promotion.",
  }),
  events: optional(eventModules(), {
    help: "The folder that holds `events/` and `tracking/`, or an object of definitions by name, for bundlers. The command line names the folder.",
  }),
  project: optional(functionOf<(record: Row) => string>("a function from a record to a project's name"), {
    help: "The project (tenant) that a record belongs to, for all events that do not say it themselves. Without it there is one, `default`.",
  }),
  token: optional(text("a text of at least 16 characters without spaces", /^\S{16,}$/), {
    env: "ANCRAGE_TOKEN",
    isSecret: true,
    help: "The operator's bearer token for the API, good for all projects. `dev` makes one.",
  }),
  secretKey: optional(text("32 bytes in base64", /^[A-Za-z0-9+/]{43}=$/), {
    env: "ANCRAGE_SECRET_KEY",
    isSecret: true,
    help: "Seals the secrets and headers of subscriptions: `openssl rand -base64 32`. Whoever loses it loses them. `dev` makes one.",
  }),
  port: withDefault(integer(0, 65_535), 8787, {
    env: "PORT",
    flag: "--port <number>",
    help: "The port that the API listens on; 0 takes a free one.",
  }),
  host: withDefault(text("an address or a host name", /^[\w.:-]+$/), "127.0.0.1", {
    env: "ANCRAGE_HOST",
    flag: "--host <address>",
    help: "The address that the API listens on; `0.0.0.0` is all of them.",
  }),
  allowHttp: withDefault(boolean(), false, {
    env: "ANCRAGE_ALLOW_HTTP",
    flag: "--allow-http",
    help: "Lets subscriptions have `http:` URLs. `dev` allows them.",
  }),
  allowNetworks: withDefault(list(network(), { minimum: 0 }), [], {
    env: "ANCRAGE_ALLOW_NETWORKS",
    flag: "--allow-network <cidr>",
    help: "Networks that requests may go to although they are not public. `dev` allows loopback.",
  }),
  retry: {
    schedule: withDefault(
      list(seconds("> 0"), { minimum: 1, first: seconds(">= 0") }),
      [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
      {
        env: "ANCRAGE_RETRY_SCHEDULE",
        help: "Seconds to wait before each attempt; their number is the number of attempts. (The example of Standard Webhooks.)",
      },
    ),
    jitter: withDefault(fraction(), 0.2, {
      env: "ANCRAGE_RETRY_JITTER",
      help: "How far a wait may be off, as a part of it, so that what failed together does not return together.",
    }),
  },
  delivery: {
    timeoutMs: withDefault(integer(1, 600_000), 15_000, {
      env: "ANCRAGE_DELIVERY_TIMEOUT_MS",
      help: "Milliseconds that one attempt may take, answer included.",
    }),
    connectionsPerOrigin: withDefault(integer(1, 10_000), 256, {
      env: "ANCRAGE_DELIVERY_CONNECTIONS_PER_ORIGIN",
      help: "Connections to one origin (scheme, host and port) at a time, shared out in turn among its subscriptions.",
    }),
  },
  payload: {
    timeoutMs: withDefault(integer(1, 600_000), 10_000, {
      env: "ANCRAGE_PAYLOAD_TIMEOUT_MS",
      help: "Milliseconds that a payload function may take before its occurrence becomes a rejection.",
    }),
  },
  batch: {
    maxOccurrences: withDefault(integer(1, 100_000), 1000, {
      env: "ANCRAGE_BATCH_MAX_OCCURRENCES",
      help: "Occurrences that are journaled in one transaction, at most.",
    }),
  },
  retention: {
    messagesDays: withDefault(integer(1, 3_650), 30, {
      env: "ANCRAGE_RETENTION_MESSAGES_DAYS",
      help: "Days that messages and rejections are kept, with what payloads hold. What is not delivered by then ends as `expired`.",
    }),
    deliveriesDays: withDefault(integer(1, 3_650), 90, {
      env: "ANCRAGE_RETENTION_DELIVERIES_DAYS",
      help: "Days that deliveries and attempts are kept; never fewer than messages.",
    }),
  },
  shutdown: {
    graceS: withDefault(integer(0, 3_600), 10, {
      env: "ANCRAGE_SHUTDOWN_GRACE_S",
      help: "Seconds that a process that is asked to end waits for requests, and pages of jobs, in flight. What has not ended then is sent, or done, again by the next one.",
    }),
  },
  logLevel: withDefault(oneOf("trace", "debug", "info", "warn", "error", "fatal", "silent"), "info", {
    env: "ANCRAGE_LOG_LEVEL",
    flag: "--log-level <level>",
    help: "The least level that is logged.",
  }),
};

/** What a user gives: in `ancrage.config.ts`, to `createAncrage`. An option that is `undefined` takes its default. */
export type AncrageOptions = Given<typeof table>;

/** What the running system reads: checked, with the defaults in. Good as `AncrageOptions` again. */
export type CheckedOptions = Checked<typeof table>;

type Given<Table> = {
  readonly [Name in keyof Table]?: (Table[Name] extends Option<infer Value, unknown> ? Value : Given<Table[Name]>) | undefined;
};
type Checked<Table> = {
  readonly [Name in keyof Table]: Table[Name] extends Option<infer Value, infer Default> ? Value | Default : Checked<Table[Name]>;
};

/**
 * Types `ancrage.config.ts`; returns what it is given.
 *
 * @example
 * export default defineConfig({ database: process.env.DATABASE_URL, retry: { schedule: [0, 5, 60] } });
 */
export function defineConfig(config: AncrageOptions): AncrageOptions {
  return config;
}

export interface OptionSources {
  /** The environment; only the command line hands `process.env` over. An empty variable counts as unset. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** What the flags said, by the option's path (`port`, `retry.schedule`). */
  readonly flags?: Readonly<Record<string, FlagValue>>;
}

export type FlagValue = string | boolean | readonly string[] | undefined;

/**
 * Checks options and puts the defaults in. A flag goes before the environment, the environment before the config.
 *
 * @throws AncrageError `ANCRAGE_OPTION_INVALID` with all faults, a line each:
 * `options.retry.schedule[2]: expected a number of seconds > 0, got "5m"`
 */
export function readOptions(given: unknown, sources: OptionSources = {}): CheckedOptions {
  const faults: string[] = [];
  if (!isPlainObject(given)) {
    throw new AncrageError("ANCRAGE_OPTION_INVALID", `options: expected an object, got ${show(given)}`, { hint: seeReference });
  }
  reportUnknown(given, table, "options", faults);
  const checked: Record<string, unknown> = {};
  for (const { path, option } of declaredOptions) {
    const found = findValue(given, path, option, sources);
    const report: Report = (place, expected, got) =>
      faults.push(`${place}: expected ${expected}, got ${option.isSecret === true ? showSecret(got) : show(got)}`);
    if (found !== undefined) option.kind.check(found.value, found.place, report);
    setAt(checked, path, found === undefined ? option.default : found.value);
  }
  if (faults.length > 0) throw new AncrageError("ANCRAGE_OPTION_INVALID", faults.join("\n"), { hint: seeReference });
  return checked as unknown as CheckedOptions;
}

/**
 * The options that have no default and that a running system cannot do without.
 *
 * @throws AncrageError `ANCRAGE_OPTION_INVALID` with all that are missing
 */
export function requireOptions<Name extends "database" | "token" | "secretKey">(
  options: CheckedOptions,
  ...names: readonly Name[]
): Readonly<Record<Name, string>> {
  const missing = names.filter((name) => options[name] === undefined);
  if (missing.length > 0) {
    throw new AncrageError(
      "ANCRAGE_OPTION_INVALID",
      missing.map((name) => `options.${name}: expected ${table[name].kind.expected}, got undefined`).join("\n"),
      { hint: `Set ${missing.map((name) => table[name].env).join(" and ")}, or the option in ancrage.config.ts.` },
    );
  }
  return Object.fromEntries(names.map((name) => [name, options[name]])) as Record<Name, string>;
}

const seeReference = "Each option is described in docs/reference/options.md.";

/** One declaration of `table`, and where it stands. */
export interface DeclaredOption {
  readonly path: string;
  readonly option: Option<unknown, unknown>;
}

/** All options, in the order of the table, for flags and docs. */
export const declaredOptions: readonly DeclaredOption[] = flatten(table);

interface Option<Value, Default> {
  readonly kind: Kind<Value>;
  readonly default: Default;
  readonly env?: string;
  /** As `commander` takes it. */
  readonly flag?: string;
  readonly help: string;
  /** Its value never stands in a fault, a log or the docs. */
  readonly isSecret?: true;
}

type Description = Omit<Option<unknown, unknown>, "kind" | "default">;

function optional<Value, Described extends Description>(kind: Kind<Value>, described: Described): Option<Value, undefined> & Described {
  return { kind, default: undefined, ...described };
}

function withDefault<Value>(kind: Kind<Value>, value: Value, described: Description): Option<Value, Value> {
  return { kind, default: value, ...described };
}

function flatten(options: object, prefix = ""): readonly DeclaredOption[] {
  return Object.entries(options).flatMap(([name, entry]: [string, object]) =>
    isOption(entry) ? [{ path: prefix + name, option: entry }] : flatten(entry, `${prefix}${name}.`),
  );
}

function isOption(entry: object): entry is Option<unknown, unknown> {
  return "kind" in entry;
}

interface Found {
  readonly value: unknown;
  /** Where the user wrote it: a fault names the flag or the variable and not the option behind it. */
  readonly place: string;
}

function findValue(given: unknown, path: string, option: Option<unknown, unknown>, sources: OptionSources): Found | undefined {
  const flag = sources.flags?.[path];
  if (flag !== undefined) {
    const value = typeof flag === "string" ? option.kind.parse(flag) : Array.isArray(flag) ? option.kind.parse(flag.join(",")) : flag;
    return { value, place: option.flag?.split(" ")[0] ?? path };
  }
  const variable = option.env === undefined ? undefined : sources.env?.[option.env];
  if (variable !== undefined && variable !== "") return { value: option.kind.parse(variable), place: option.env ?? path };
  const value = valueAt(given, path);
  return value === undefined ? undefined : { value, place: `options.${path}` };
}

function reportUnknown(given: object, known: object, place: string, faults: string[]): void {
  for (const [name, value] of Object.entries(given)) {
    const declared: unknown = Object.hasOwn(known, name) ? Reflect.get(known, name) : undefined;
    if (typeof declared !== "object" || declared === null) {
      const similar = nearestName(
        name,
        flatten(table).flatMap(({ path }) => [path, path.split(".").at(-1) ?? path]),
      );
      const meant = declaredOptions.find(({ path }) => path === similar || path.endsWith(`.${String(similar)}`));
      faults.push(
        `${place}.${name}: expected the name of an option, got "${name}"${meant === undefined ? "" : `; did you mean options.${meant.path}?`}`,
      );
    } else if (!isOption(declared) && value !== undefined) {
      if (isPlainObject(value)) reportUnknown(value, declared, `${place}.${name}`, faults);
      else faults.push(`${place}.${name}: expected an object, got ${show(value)}`);
    }
  }
}

function valueAt(given: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((at, name) => (isPlainObject(at) ? at[name] : undefined), given);
}

function setAt(target: Record<string, unknown>, path: string, value: unknown): void {
  const [head = "", ...rest] = path.split(".");
  if (rest.length === 0) target[head] = value;
  else setAt((target[head] ??= {}) as Record<string, unknown>, rest.join("."), value);
}

function eventModules(): Kind<string | EventModules> {
  return kind("a folder, or an object of definitions", (value) => (typeof value === "string" && value !== "") || isPlainObject(value));
}
