import { execFile } from "node:child_process";
import { access, chmod, mkdir, mkdtemp, readFile, realpath, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { startAncrage, type AncrageProcess } from "../ancrage-process.ts";

/**
 * Runs the code blocks of a guide in their order, as a reader would, in an empty folder against a real `ancrage dev`:
 *
 * - a block whose first line is a comment with a file's name is written to that file; `// file, below \`text\`` (in French `sous`) adds to the file,
 * - `sh` is run; `ancrage dev` starts it and leaves it running; `NAME=…` is filled in from what dev has shown,
 * - `json` must be in what the command before it prints (asked again until it is: deliveries take their time),
 * - each line of `text` must be in what dev, or the command before it, has printed since. `…` stands for anything,
 * - `console` is only to be read: what installs from a registry is not run here.
 */
const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
const patience = { timeout: 20_000 };

let base: string;
let folder: string;
let bin: string;
let dev: AncrageProcess | undefined;

beforeEach(async () => {
  base = await realpath(await mkdtemp(join(tmpdir(), "ancrage-guide-")));
  // As root the database runs as another user, who must get to his folder in it.
  await chmod(base, 0o755);
  folder = join(base, "hooks");
  bin = join(base, "bin");
  await mkdir(folder);
  await mkdir(bin);
  await writeProgram("ancrage", `#!/bin/sh\nexec "${process.execPath}" "${join(root, "src/cli/main.ts")}" "$@"\n`);
  await writeProgram("node", `#!/bin/sh\nexec "${process.execPath}" "$@"\n`);
  if (!(await has("psql"))) await writeProgram("psql", psqlOfOurOwn());
});
afterEach(async () => {
  await dev?.end("SIGTERM");
  dev = undefined;
  await rm(base, { recursive: true, force: true });
});

// Four reloads and a start, on a machine that may run other tests.
test.each(["docs/guides/add-an-event.md", "docs/fr/ajouter-un-evenement.md"])(
  "%s does what it says",
  { timeout: 120_000 },
  async (guide) => {
    const blocks = parseBlocks(await readFile(join(root, guide), "utf8"));
    const reader: Reader = { variables: {}, seen: 0, command: undefined, printed: "" };
    for (const block of blocks) await follow(block, reader);
    // A guide that no longer shows anything would pass as well.
    expect(blocks.filter(({ language }) => language === "json").length).toBeGreaterThanOrEqual(3);
    expect(blocks.filter(({ language }) => language === "text").length).toBeGreaterThanOrEqual(5);
  },
);

test("docs/guides/test-your-events.md does what it says, in the folder of the guide before", { timeout: 120_000 }, async () => {
  const [before, guide] = await Promise.all(
    ["add-an-event", "test-your-events"].map(async (name) => parseBlocks(await readFile(join(root, `docs/guides/${name}.md`), "utf8"))),
  );
  for (const block of before ?? []) if (isOfFiles(block)) await follow(block, { variables: {}, seen: 0, command: undefined, printed: "" });
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  await install("ancrage", root);
  for (const name of ["zod", "@types"]) await install(name, join(root, "node_modules", name));
  // The package is run from its sources; the server is that of all tests.
  const variables = { NODE_OPTIONS: "--conditions=ancrage-source", TEST_DATABASE_URL: inject("serverUrl") };
  const reader: Reader = { variables, seen: 0, command: undefined, printed: "" };
  const ran: string[] = [];
  for (const block of guide ?? []) {
    await follow(block, reader);
    if (block.language === "sh") ran.push(reader.printed);
  }
  await writeFile(
    join(folder, "tsconfig.json"),
    JSON.stringify({ extends: join(root, "tsconfig.json"), include: [join(folder, "**/*.ts")] }),
  );
  // Neither guide shows what an editor would underline.
  expect(await runCommand(`"${join(root, "node_modules/.bin/tsc")}" -p .`, reader)).toBe("");
  expect(ran).toEqual([expect.stringMatching(/\bpass 3\b/), expect.stringMatching(/\bpass 1\b/)]);
});

interface Block {
  readonly language: string;
  readonly text: string;
  /** In the guide, for what a failure says. */
  readonly line: number;
}

interface Reader {
  variables: Record<string, string>;
  /** How many lines of dev were shown before the last thing that was done. */
  seen: number;
  command: string | undefined;
  printed: string;
}

function parseBlocks(markdown: string): readonly Block[] {
  return [...markdown.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(({ 1: language = "", 2: text = "", index }) => ({
    language,
    text,
    line: markdown.slice(0, index).split("\n").length,
  }));
}

async function follow(block: Block, reader: Reader): Promise<void> {
  switch (block.language) {
    case "sql":
    case "ts":
      reader.seen = shown().length;
      return writeBlock(block);
    case "sh":
      reader.seen = shown().length;
      if (block.text.startsWith("ancrage dev ")) return startDev(block.text.trim(), reader);
      if (block.text.includes("=…")) return fillIn(block.text, reader);
      reader.command = block.text;
      reader.printed = await runCommand(block.text, reader);
      return;
    case "json":
      return expectJson(block, reader);
    case "text":
      return expectText(block, reader);
    case "console":
      return;
    default:
      throw new Error(`line ${block.line}: expected sql, ts, sh, json, text or console, got ${block.language}`);
  }
}

const shown = (): readonly string[] => dev?.out ?? [];

async function writeBlock({ text, line }: Block): Promise<void> {
  const [first = "", ...rest] = text.split("\n");
  const [, name, below] = /^(?:\/\/|--) ([\w./]+)(?:, (?:below|sous) `(.+)`)?$/.exec(first) ?? [];
  if (name === undefined) throw new Error(`line ${line}: expected the name of a file in the first line, got ${first}`);
  const path = join(folder, name);
  if (below === undefined) return writeWhole(path, text);
  const lines = (await readFile(path, "utf8")).split("\n");
  const place = lines.findIndex((one) => one.includes(below));
  if (place === -1) throw new Error(`line ${line}: ${name} has no line with ${below}`);
  return writeFile(path, lines.toSpliced(place + 1, 0, ...rest.slice(0, -1)).join("\n"));
}

/** A new folder comes with its file in it: dev would otherwise take it over as it is, empty. */
async function writeWhole(path: string, text: string): Promise<void> {
  if (await isThere(dirname(path))) return writeFile(path, text);
  const made = await mkdtemp(join(base, "new-"));
  await writeFile(join(made, basename(path)), text);
  await rename(made, dirname(path));
}

/** Whether it leaves the folder another than it was. */
const isOfFiles = ({ language, text }: Block): boolean => /^(sql|ts)$/.test(language) || (language === "sh" && text.startsWith("rm "));

/** As `npm install` leaves it. */
async function install(name: string, path: string): Promise<void> {
  await mkdir(join(folder, "node_modules"), { recursive: true });
  await symlink(path, join(folder, "node_modules", name));
}

async function startDev(command: string, reader: Reader): Promise<void> {
  dev = startAncrage(command.split(" ").slice(1), { PORT: "0" }, { workingFolder: folder });
  await dev.line(/Ancrage is ready/);
  const address = JSON.parse(await readFile(join(folder, ".ancrage/dev.json"), "utf8")) as Record<string, string>;
  reader.variables = { URL: address["url"] ?? "", TOKEN: address["token"] ?? "", DATABASE: address["database"] ?? "" };
}

/** The reader copies what dev has shown: all that the guide asks for must be there to be copied. */
function fillIn(text: string, { variables }: Reader): void {
  const names = [...text.matchAll(/(\w+)=…/g)].map(({ 1: name = "" }) => name);
  expect(names).toEqual(Object.keys(variables));
  for (const value of Object.values(variables)) expect(shown().join("\n")).toContain(value);
}

async function runCommand(command: string, { variables }: Reader): Promise<string> {
  const env = { ...process.env, ...variables, PATH: `${bin}${delimiter}${process.env["PATH"] ?? ""}` };
  try {
    return (await run("sh", ["-euc", command], { cwd: folder, env })).stdout;
  } catch (error) {
    const { stdout, stderr } = error as { readonly stdout: string; readonly stderr: string };
    throw new Error(`${command}${stdout}${stderr}`, { cause: error });
  }
}

async function expectJson({ text, line }: Block, reader: Reader): Promise<void> {
  const { command } = reader;
  if (command === undefined) throw new Error(`line ${line}: there is no command whose answer this could be`);
  const expected = withPlaceholders(JSON.parse(text));
  if (!/ -X POST/.test(command)) {
    // What only reads may be asked again.
    await expect.poll(async () => JSON.parse(await runCommand(command, reader)), patience).toMatchObject(expected);
  } else expect(JSON.parse(reader.printed)).toMatchObject(expected);
}

async function expectText({ text, line }: Block, reader: Reader): Promise<void> {
  for (const one of text.trimEnd().split("\n")) {
    const pattern = new RegExp(`(^|\\s)${patternOf(one)}`);
    await expect
      .poll(() => [...shown().slice(reader.seen), ...reader.printed.split("\n")], { ...patience, message: `line ${line}: ${one}` })
      .toContainEqual(expect.stringMatching(pattern));
  }
}

function withPlaceholders(value: unknown): object {
  const replace = (inner: unknown): unknown => {
    if (typeof inner === "string" && inner.includes("…")) return expect.stringMatching(new RegExp(`^${patternOf(inner)}$`)) as unknown;
    if (Array.isArray(inner)) return inner.map(replace);
    if (typeof inner !== "object" || inner === null) return inner;
    return Object.fromEntries(Object.entries(inner).map(([name, one]) => [name, replace(one)]));
  };
  return replace(value) as object;
}

/** `…` stands for at least one character of whatever. */
const patternOf = (text: string): string =>
  text
    .split("…")
    .map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
    .join(".+");

async function writeProgram(name: string, text: string): Promise<void> {
  await writeFile(join(bin, name), text, { mode: 0o755 });
}

const succeeds = (work: Promise<unknown>): Promise<boolean> =>
  work.then(
    () => true,
    () => false,
  );
const has = (program: string): Promise<boolean> => succeeds(run("sh", ["-c", `command -v ${program}`]));
const isThere = (path: string): Promise<boolean> => succeeds(access(path));

/** `psql URL -c SQL`, for a machine that has none. */
function psqlOfOurOwn(): string {
  return `#!/usr/bin/env -S "${process.execPath}" --input-type=module
import pg from ${JSON.stringify(pathToFileURL(join(root, "node_modules/pg/esm/index.mjs")).href)};
const client = new pg.Client({ connectionString: process.argv[2] });
await client.connect();
await client.query(process.argv[4]);
await client.end();
`;
}
