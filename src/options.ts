import ipaddr from "ipaddr.js";
import type { Row } from "./capture/change.ts";
import { AncrageError } from "./errors.ts";
import type { EventDefinition } from "./event/define.ts";
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
    help: "The same database for reading the log: a role with LOGIN and REPLICATION, never through a pooler. Without it `database` is used.",
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
  capture: withDefault(oneOf("wal"), "wal", {
    help: "How changes are seen: `wal` reads the write-ahead log.",
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
    help: "Seals the secrets of subscriptions: `openssl rand -base64 32`. Whoever loses it loses them. `dev` makes one.",
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

type Report = (place: string, expected: string, got: unknown) => void;

/** How a value is recognised, as it stands in a config, and how it is read out of the text of a variable or a flag. */
interface Kind<Value> {
  /** What it takes, for faults and docs. */
  readonly expected: string;
  check(value: unknown, place: string, report: Report): value is Value;
  /** A text that cannot be read stays as it is: `check` then refuses it and shows it. */
  parse(text: string): unknown;
}

function kind<Value>(
  expected: string,
  accepts: (value: unknown) => boolean,
  parse: (text: string) => unknown = (text) => text,
): Kind<Value> {
  return {
    expected,
    parse,
    check(value, place, report): value is Value {
      const isGood = accepts(value);
      if (!isGood) report(place, expected, value);
      return isGood;
    },
  };
}

function text(expected: string, pattern: RegExp): Kind<string> {
  return kind(expected, (value) => typeof value === "string" && pattern.test(value));
}

function oneOf<const Word extends string>(...words: readonly Word[]): Kind<Word> {
  return kind(words.map((word) => `"${word}"`).join(" or "), (value) => words.some((word) => word === value));
}

function boolean(): Kind<boolean> {
  const words: Readonly<Record<string, boolean>> = { true: true, "1": true, false: false, "0": false };
  return kind(
    "true or false",
    (value) => typeof value === "boolean",
    (text) => words[text] ?? text,
  );
}

function integer(minimum: number, maximum: number): Kind<number> {
  return kind(
    `a whole number from ${minimum} to ${maximum}`,
    (value) => Number.isInteger(value) && Number(value) >= minimum && Number(value) <= maximum,
    parseNumber,
  );
}

function fraction(): Kind<number> {
  return kind("a number from 0 to 1", (value) => typeof value === "number" && value >= 0 && value <= 1, parseNumber);
}

function seconds(bound: "> 0" | ">= 0"): Kind<number> {
  const isAbove = (value: number): boolean => (bound === "> 0" ? value > 0 : value >= 0);
  return kind(
    `a number of seconds ${bound}`,
    (value) => typeof value === "number" && Number.isFinite(value) && isAbove(value),
    parseNumber,
  );
}

function parseNumber(text: string): unknown {
  return /^-?\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : text;
}

function postgresUrl(): Kind<string> {
  return kind(
    "a connection string postgres://user:password@host:port/database",
    (value) => typeof value === "string" && /^postgres(ql)?:\/\//.test(value) && URL.canParse(value),
  );
}

function httpUrl(): Kind<string> {
  return kind("an http: or https: URL without query and fragment", (value) => {
    if (typeof value !== "string" || !URL.canParse(value)) return false;
    const url = new URL(value);
    return /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "" && url.username === "";
  });
}

function network(): Kind<string> {
  return kind('a network such as "10.20.0.0/16"', (value) => typeof value === "string" && ipaddr.isValidCIDR(value));
}

function functionOf<Signature extends (...values: never) => unknown>(expected: string): Kind<Signature> {
  return kind(expected, (value) => typeof value === "function");
}

function eventModules(): Kind<string | EventModules> {
  return kind("a folder, or an object of definitions", (value) => (typeof value === "string" && value !== "") || isPlainObject(value));
}

function list<Value>(element: Kind<Value>, bounds: { readonly minimum: number; readonly first?: Kind<Value> }): Kind<readonly Value[]> {
  const expected = `a list, each ${element.expected}`;
  return {
    expected,
    parse: (text) => text.split(",").map((part) => element.parse(part.trim())),
    check(value, place, report): value is readonly Value[] {
      if (!Array.isArray(value) || value.length < bounds.minimum) {
        report(place, expected, value);
        return false;
      }
      return value
        .map((item, index) => (index === 0 ? (bounds.first ?? element) : element).check(item, `${place}[${index}]`, report))
        .every(Boolean);
    },
  };
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  if (typeof value === "function") return "a function";
  const shown = typeof value === "bigint" ? `${value}n` : (JSON.stringify(value) ?? String(value));
  return shown.length > 80 ? `${shown.slice(0, 79)}…` : shown;
}

/** A fault ends up in logs: of a secret it tells the kind and the length. */
function showSecret(value: unknown): string {
  return typeof value === "string" ? `a text of ${value.length} characters` : `a value of type ${typeof value}`;
}
