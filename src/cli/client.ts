import type { Command } from "commander";
import { readNearestDev } from "../dev/dev-file.ts";
import { AncrageError, type ErrorCode } from "../errors.ts";
import type { CommandContext } from "./command.ts";

/** A running Ancrage, and how to be let in. */
export interface Server {
  readonly url: string;
  readonly token: string;
}

export interface ServerFlags {
  readonly url?: string;
  readonly token?: string;
}

/** Gives a command the flags that say which server it talks to. */
export function addServerFlags(command: Command): Command {
  return command
    .option("--url <url>", "the running Ancrage [ANCRAGE_URL, else the `ancrage dev` that runs here]")
    .option("--token <token>", "its bearer token [ANCRAGE_TOKEN]")
    .option("--json", "print the answer as JSON");
}

/**
 * Which server a command talks to: flags, then `ANCRAGE_URL` and `ANCRAGE_TOKEN`, then the nearest `.ancrage/dev.json`, upwards
 * from the working folder, whose `dev` is alive.
 *
 * @throws AncrageError `ANCRAGE_SERVER_UNREACHABLE`, `ANCRAGE_OPTION_INVALID`
 */
export async function findServer(context: Pick<CommandContext, "env" | "workingFolder">, flags: ServerFlags): Promise<Server> {
  const url = flags.url ?? nonEmpty(context.env["ANCRAGE_URL"]);
  const token = flags.token ?? nonEmpty(context.env["ANCRAGE_TOKEN"]);
  if (url === undefined) {
    const dev = await readNearestDev(context.workingFolder);
    if (dev === undefined) {
      throw new AncrageError("ANCRAGE_SERVER_UNREACHABLE", "no server was named, and no `ancrage dev` runs in this folder or above it.", {
        hint: "Start one with `ancrage dev <folder>`, or give --url and --token, or set ANCRAGE_URL and ANCRAGE_TOKEN.",
      });
    }
    // The token of dev.json and not of the environment: that one may be for another server.
    return { url: dev.url, token: flags.token ?? dev.token };
  }
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
    throw new AncrageError("ANCRAGE_OPTION_INVALID", `--url: expected an http: or https: URL, got ${JSON.stringify(url)}`);
  }
  if (token === undefined) {
    throw new AncrageError("ANCRAGE_OPTION_INVALID", `--token: expected the bearer token of ${url}, got undefined`, {
      hint: "Give --token or set ANCRAGE_TOKEN.",
    });
  }
  return { url, token };
}

function nonEmpty(value: string | undefined): string | undefined {
  return value === "" ? undefined : value;
}

export interface ApiRequest {
  readonly method?: "GET" | "POST" | "PATCH" | "DELETE";
  /** Below the server's URL, with its slash. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  /** Which token it wants, where that is not any one of the server; shown where the token was refused. */
  readonly tokenHint?: string;
}

export interface ApiAnswer {
  readonly status: number;
  readonly body: unknown;
}

/**
 * One request to the API.
 *
 * @throws AncrageError `ANCRAGE_SERVER_UNREACHABLE` where nothing answers or it says 503 or 429, `ANCRAGE_OPTION_INVALID` where what was
 * asked is refused (4xx), `ANCRAGE_TRIGGER_UNKNOWN_EVENT` where there is no such event, `ANCRAGE_SAMPLE_NONE` where it has none,
 * `ANCRAGE_COMMAND_FAILED` for all else
 */
export async function requestApi(server: Server, request: ApiRequest): Promise<ApiAnswer> {
  const url = new URL(server.url.replace(/\/+$/, "") + request.path);
  for (const [name, value] of Object.entries(request.query ?? {})) if (value !== undefined) url.searchParams.set(name, value);
  const response = await send(server, url, request);
  const text = await response.text();
  const body = parseJson(text);
  if (response.ok && body !== undefined) return { status: response.status, body };
  throw errorOfAnswer(url, response.status, body, text, request);
}

async function send(server: Server, url: URL, request: ApiRequest): Promise<Response> {
  try {
    return await fetch(url, {
      method: request.method ?? "GET",
      headers: {
        authorization: `Bearer ${server.token}`,
        accept: "application/json",
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
        ...request.headers,
      },
      body: request.body === undefined ? null : JSON.stringify(request.body),
      // The token is for this server and no other.
      redirect: "error",
      signal: AbortSignal.timeout(request.timeoutMs ?? 30_000),
    });
  } catch (cause) {
    throw new AncrageError("ANCRAGE_SERVER_UNREACHABLE", `${url.origin} did not answer: ${reasonOf(cause)}`, {
      hint: "Check that it runs, and the URL that was given with --url or ANCRAGE_URL.",
      cause,
    });
  }
}

/** `fetch` says "fetch failed" and hides the reason in its cause. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause instanceof AggregateError) return error.cause.errors.map(reasonOf).join(", ");
  return error.cause instanceof Error ? reasonOf(error.cause) : error.message;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function errorOfAnswer(url: URL, status: number, body: unknown, text: string, request: ApiRequest): AncrageError {
  const problem = isProblem(body) ? body : undefined;
  const code = codeOfAnswer(status, problem);
  const faults = problem?.errors ?? [];
  // The detail of a problem with faults repeats them in one line.
  const said =
    problem === undefined
      ? `expected JSON, got ${JSON.stringify(text.slice(0, 200))}`
      : faults.length === 0
        ? problem.detail
        : faults.map(({ pointer, detail }) => `\n  ${pointer === "" ? "" : `${pointer}: `}${detail}`).join("");
  const isTokenRefused = status === 401 || status === 403;
  const hint = (isTokenRefused ? request.tokenHint : undefined) ?? problem?.hint ?? (status === 401 ? anyToken : undefined);
  const message = `${url.pathname} answered ${status}:${faults.length === 0 ? " " : ""}${said}`;
  return new AncrageError(code, message, hint === undefined ? {} : { hint });
}

const anyToken = "Give the server's token with --token or ANCRAGE_TOKEN.";

function codeOfAnswer(status: number, problem: Problem | undefined): ErrorCode {
  // Both pass by themselves.
  if (status === 503 || status === 429) return "ANCRAGE_SERVER_UNREACHABLE";
  if (problem?.code === "sample-none") return "ANCRAGE_SAMPLE_NONE";
  if (problem?.code === "unknown-event") return "ANCRAGE_TRIGGER_UNKNOWN_EVENT";
  return status >= 400 && status < 500 ? "ANCRAGE_OPTION_INVALID" : "ANCRAGE_COMMAND_FAILED";
}

interface Problem {
  readonly code?: string;
  readonly detail: string;
  readonly hint?: string;
  readonly errors?: readonly { readonly pointer: string; readonly detail: string }[];
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && "detail" in body && typeof body.detail === "string";
}
