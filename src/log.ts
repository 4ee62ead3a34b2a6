import { pino, type DestinationStream, type Logger } from "pino";
import { AncrageError } from "./errors.ts";
import type { CheckedOptions } from "./options.ts";

export type { Logger };

export interface LogOptions {
  readonly level: CheckedOptions["logLevel"];
  /** Texts that must never appear, wherever they turn up: the token, the key that seals secrets. */
  readonly secrets?: readonly (string | undefined)[];
  /** Default: standard error, so that a command's answer on standard output stays clean. */
  readonly destination?: DestinationStream;
}

/**
 * The process's log: a line of JSON each, `{"level":"info","time":"2026-11-24T04:20:00.000Z","msg":…}`.
 *
 * Secrets are taken out twice. By key, since a value may have any form; and by form on the finished line, since a URL or a token
 * also turns up inside the message of somebody else's error.
 *
 * @example
 * const log = createLogger({ level: options.logLevel, secrets: [options.token, options.secretKey] });
 * log.info({ delivery: "dlv_…", status: 200, durationMs: 3 }, "delivered");
 * log.error({ err: error }, "capture stopped");
 */
export function createLogger(options: LogOptions): Logger {
  const secrets = (options.secrets ?? []).filter((secret): secret is string => secret !== undefined && secret !== "");
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { err: describeError },
      formatters: {
        level: (label) => ({ level: label }),
        log: redactKeys,
      },
      hooks: { streamWrite: (line) => redactText(redactTextMembers(shorten(line)), secrets) },
    },
    options.destination ?? pino.destination({ dest: 2, sync: true }),
  );
}

/** A line longer than this has its long texts cut: they are somebody's data, and what looks for secrets in them takes its time. */
const longestLine = 8_192;
const longestText = 1_000;

function shorten(line: string): string {
  if (line.length <= longestLine) return line;
  const cut = (_key: string, value: unknown): unknown =>
    typeof value === "string" && value.length > longestText ? `${value.slice(0, longestText)}… (${value.length} characters)` : value;
  const shorter = JSON.stringify(JSON.parse(line), cut);
  const isStillLong = shorter.length > 4 * longestLine;
  return `${isStillLong ? JSON.stringify({ level: "warn", msg: `a line of ${line.length} characters was left out` }) : shorter}\n`;
}

const redacted = "[redacted]";

const secretKey = /authorization|cookie|token|secret|signature|password|api[-_]?key/i;

/** Custom headers may carry a receiver's credentials under any name, so only what we know to be harmless is shown. */
const harmlessHeaders = new Set([
  "accept",
  "content-length",
  "content-type",
  "host",
  "retry-after",
  "user-agent",
  "webhook-id",
  "webhook-timestamp",
]);

/** Deeper than anything that is logged on purpose; a cycle ends here. */
const deepest = 8;

function redactKeys(fields: Record<string, unknown>): Record<string, unknown> {
  return redactObject(fields, false, 0);
}

function redactObject(fields: object, isHeaders: boolean, depth: number): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]: [string, unknown]) => {
      const isSecret = isHeaders ? !harmlessHeaders.has(key.toLowerCase()) : secretKey.test(key);
      return [key, isSecret ? redacted : redactValue(value, /headers$/i.test(key), depth + 1)];
    }),
  );
}

function redactValue(value: unknown, isHeaders: boolean, depth: number): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (depth > deepest) return "[too deep]";
  if (value instanceof Error) return describeError(value);
  if (Array.isArray(value)) return value.map((item: unknown) => redactValue(item, isHeaders, depth + 1));
  // A Date, a Buffer or a URL says itself what it is in JSON.
  if ("toJSON" in value && typeof value.toJSON === "function") return value;
  return redactObject(value, isHeaders, depth);
}

/** What an error tells, and no more: the errors of `pg` carry rows with them. */
export function describeError(error: unknown): unknown {
  return describeCause(error, 0);
}

function describeCause(error: unknown, depth: number): unknown {
  if (!(error instanceof Error)) return error;
  const code = "code" in error && typeof error.code === "string" ? error.code : undefined;
  return {
    type: error.name,
    ...(code === undefined ? {} : { code }),
    message: error.message,
    ...(error instanceof AncrageError && error.hint !== undefined ? { hint: error.hint } : {}),
    stack: error.stack,
    ...(error.cause === undefined || depth === deepest ? {} : { cause: describeCause(error.cause, depth + 1) }),
  };
}

/** The bindings of a child logger come to us only as finished JSON. */
function redactTextMembers(line: string): string {
  return line.replaceAll(/"([^"\\]*)":"(?:[^"\\]|\\.)*"/g, (member, key: string) =>
    secretKey.test(key) ? `"${key}":"${redacted}"` : member,
  );
}

/** Takes out of a text what has the form of a secret: `whsec_…`, `anc_…`, a bearer token, a URL's user, password and query. */
export function redactText(text: string, secrets: readonly string[] = []): string {
  const known = secrets.reduce((rest, secret) => rest.replaceAll(secret, redacted), text);
  return known
    .replaceAll(/\b(whsec_|whsk_|anc_)[\w+/=-]+/g, `$1${redacted}`)
    .replaceAll(/\b(bearer)\s+[^\s"'\\]+/gi, `$1 ${redacted}`)
    .replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/"'\\?#@]*@/gi, `$1${redacted}@`)
    .replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/[^\s"'\\?#]*)\?[^\s"'\\]*/gi, `$1?${redacted}`);
}
