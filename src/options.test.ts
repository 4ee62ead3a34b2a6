import { readFile } from "node:fs/promises";
import { expect, expectTypeOf, test } from "vitest";
import { AncrageError } from "./errors.ts";
import { type AncrageOptions, type CheckedOptions, declaredOptions, defineConfig, readOptions, requireOptions } from "./options.ts";

test("nothing given: the defaults", () => {
  const options = readOptions({});
  expect(options).toMatchObject({ port: 8787, host: "127.0.0.1", capture: "wal", allowHttp: false, allowNetworks: [], logLevel: "info" });
  expect(options.retry).toEqual({ schedule: [0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400], jitter: 0.2 });
  expect(options).toMatchObject({ delivery: { timeoutMs: 15_000 }, payload: { timeoutMs: 10_000 }, batch: { maxOccurrences: 1000 } });
  expect(options.database).toBeUndefined();
});

test("all faults come at once, each with its place, what was expected and what was got", () => {
  const given = { port: "80", retry: { schedule: [0, 5, "5m", -1], jitter: 2 }, allowNetworks: ["10.0.0.0"], payload: 3 };
  expect(faultsOf(() => readOptions(given))).toEqual([
    "options.payload: expected an object, got 3",
    'options.port: expected a whole number from 0 to 65535, got "80"',
    'options.allowNetworks[0]: expected a network such as "10.20.0.0/16", got "10.0.0.0"',
    'options.retry.schedule[2]: expected a number of seconds > 0, got "5m"',
    "options.retry.schedule[3]: expected a number of seconds > 0, got -1",
    "options.retry.jitter: expected a number from 0 to 1, got 2",
  ]);
});

test("only the first attempt may come at once", () => {
  expect(faultsOf(() => readOptions({ retry: { schedule: [0, 0] } }))).toEqual([
    "options.retry.schedule[1]: expected a number of seconds > 0, got 0",
  ]);
  expect(faultsOf(() => readOptions({ retry: { schedule: [] } }))).toEqual([
    "options.retry.schedule: expected a list, each a number of seconds > 0, got []",
  ]);
});

test("an unknown option is named with the one that was meant, also from another group", () => {
  const given = { databse: "postgres://localhost/app", retry: { shedule: [0] }, timeoutMS: 1, quux: true };
  expect(faultsOf(() => readOptions(given))).toEqual([
    'options.databse: expected the name of an option, got "databse"; did you mean options.database?',
    'options.retry.shedule: expected the name of an option, got "shedule"; did you mean options.retry.schedule?',
    'options.timeoutMS: expected the name of an option, got "timeoutMS"; did you mean options.delivery.timeoutMs?',
    'options.quux: expected the name of an option, got "quux"',
  ]);
  expect(faultsOf(() => readOptions(["postgres://localhost/app"]))).toEqual([
    'options: expected an object, got ["postgres://localhost/app"]',
  ]);
});

test("a flag goes before the environment, the environment before the config, the config before the default", () => {
  const config = { port: 1, host: "config", environment: "config", logLevel: "warn" };
  const env = { PORT: "2", ANCRAGE_HOST: "env", ANCRAGE_ENVIRONMENT: "" };
  expect(readOptions(config, { env, flags: { port: "3", host: undefined } })).toMatchObject({
    port: 3,
    host: "env",
    environment: "config",
    logLevel: "warn",
  });
});

test("variables and flags are read as text, and a fault names them and not the option", () => {
  const env = {
    DATABASE_URL: "postgres://user:hunter2@localhost/app",
    ANCRAGE_ALLOW_HTTP: "1",
    ANCRAGE_ALLOW_NETWORKS: "10.0.0.0/8, fd00::/8",
    ANCRAGE_RETRY_SCHEDULE: "0,0.5,60",
  };
  expect(readOptions({}, { env, flags: { allowNetworks: ["127.0.0.0/8", "::1/128"] } })).toMatchObject({
    database: "postgres://user:hunter2@localhost/app",
    allowHttp: true,
    allowNetworks: ["127.0.0.0/8", "::1/128"],
    retry: { schedule: [0, 0.5, 60] },
  });
  const wrong = { PORT: "http", ANCRAGE_ALLOW_HTTP: "yes", ANCRAGE_RETRY_SCHEDULE: "0,5m" };
  expect(faultsOf(() => readOptions({}, { env: wrong, flags: { allowNetworks: ["here"] } }))).toEqual([
    'PORT: expected a whole number from 0 to 65535, got "http"',
    'ANCRAGE_ALLOW_HTTP: expected true or false, got "yes"',
    '--allow-network[0]: expected a network such as "10.20.0.0/16", got "here"',
    'ANCRAGE_RETRY_SCHEDULE[1]: expected a number of seconds > 0, got "5m"',
  ]);
});

test("a fault never shows a secret", () => {
  const env = { DATABASE_URL: "mysql://u:hunter2@h/d", ANCRAGE_TOKEN: "hunter2", ANCRAGE_SECRET_KEY: "hunter2" };
  const faults = faultsOf(() => readOptions({ replicationUrl: "hunter2" }, { env }));
  expect(faults).toHaveLength(4);
  expect(faults.join("\n")).not.toContain("hunter2");
  expect(faults).toContain("ANCRAGE_TOKEN: expected a text of at least 16 characters without spaces, got a text of 7 characters");
});

test("checked options are good as options again", () => {
  const once = readOptions({ retry: { schedule: [0, 1] }, project: () => "acme" });
  expect(readOptions(once)).toEqual(once);
  expectTypeOf<CheckedOptions>().toExtend<AncrageOptions>();
});

test("types: what a user may leave out, the running system finds", () => {
  expectTypeOf<CheckedOptions["retry"]["schedule"]>().toEqualTypeOf<readonly number[]>();
  expectTypeOf<CheckedOptions["database"]>().toEqualTypeOf<string | undefined>();
  expectTypeOf<CheckedOptions["capture"]>().toEqualTypeOf<"wal" | "outbox">();
  // @ts-expect-error -- a misspelt option does not compile
  expect(defineConfig({ prot: 1 })).toEqual({ prot: 1 });
  // What process.env gives is accepted as it is.
  expect(defineConfig({ database: undefined as string | undefined })).toEqual({ database: undefined });
});

test("what a running system cannot do without is refused together", () => {
  const options = readOptions({ token: "0123456789abcdef" });
  expect(faultsOf(() => requireOptions(options, "database", "token", "secretKey"))).toEqual([
    "options.database: expected a connection string postgres://user:password@host:port/database, got undefined",
    "options.secretKey: expected 32 bytes in base64, got undefined",
  ]);
  expect(requireOptions(options, "token")).toEqual({ token: "0123456789abcdef" });
});

test("docs/reference/options.md holds this table, row by row", async () => {
  const page = await readFile(new URL("../docs/reference/options.md", import.meta.url), "utf8");
  const rows = page.split("\n").filter((line) => line.startsWith("| `"));
  expect(rows).toEqual(
    declaredOptions.map(({ path, option }) => {
      const name = option.isSecret === true ? `\`${path}\` (secret)` : `\`${path}\``;
      const fallback = option.default === undefined ? "–" : code(Array.isArray(option.default) ? option.default.join(",") : option.default);
      return `| ${name} | ${option.kind.expected} | ${fallback} | ${code(option.env)} | ${code(option.flag)} | ${option.help} |`;
    }),
  );
});

function code(value: unknown): string {
  return value === undefined || value === "" ? "–" : `\`${typeof value === "string" ? value : JSON.stringify(value)}\``;
}

function faultsOf(work: () => unknown): readonly string[] {
  try {
    work();
  } catch (error) {
    if (error instanceof AncrageError && error.code === "ANCRAGE_OPTION_INVALID") return error.message.split("\n");
    throw error;
  }
  throw new Error("expected an AncrageError, got none");
}
