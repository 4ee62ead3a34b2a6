import { readdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { EventDefinition } from "./define.ts";
import { describeValue, type Fault, shownPath } from "./fault.ts";
import { isThenable } from "../thenable.ts";
import type { TrackingHandler } from "./track.ts";

/** Where events come from: a folder with `events/` and `tracking/`, or the definitions themselves (for bundlers). */
export type EventSource = string | Readonly<Record<string, unknown>>;

export interface FoundEvent {
  readonly name: string;
  /** For messages: `events/deal/won.ts`. */
  readonly file: string;
  readonly definition: EventDefinition;
}

export interface FoundHandler {
  readonly file: string;
  readonly handler: TrackingHandler;
}

export interface Discovered {
  readonly events: readonly FoundEvent[];
  readonly tracking: readonly FoundHandler[];
  /** The default export of `ancrage.config.ts`; `undefined` where there is none. */
  readonly config: object | undefined;
  /** Files that could not be taken. `buildCatalogue` lists them with its own. */
  readonly faults: readonly Fault[];
}

/**
 * Finds and imports what a folder defines. A file that cannot be imported is a fault and hides none of the others.
 *
 * @example
 * ```ts
 * const { events, tracking, config, faults } = await discover("./hooks");
 * const catalogue = buildCatalogue({ events, tracking, tables, config, faults });
 * ```
 */
export async function discover(source: EventSource, { mayBeEmpty = false }: DiscoverHow = {}): Promise<Discovered> {
  if (typeof source !== "string") return found.get(source) ?? takeDefinitions(source);
  const folder = resolve(source);
  const discovered = await discoverFolder(folder);
  const isEmpty = !mayBeEmpty && (await isFolder(folder)) && !(await hasDefinitions(folder));
  return isEmpty ? { ...discovered, faults: [faultOfEmpty(folder), ...discovered.faults] } : discovered;
}

interface DiscoverHow {
  /** Whether a folder with neither `events/` nor `tracking/` is one that nothing was written in yet. */
  readonly mayBeEmpty?: boolean;
}

async function hasDefinitions(folder: string): Promise<boolean> {
  return (await isFolder(join(folder, "events"))) || (await isFolder(join(folder, "tracking")));
}

/** It would define nothing: `migrate` would publish no table any more, and `start` read the log past every change. */
function faultOfEmpty(folder: string): Fault {
  return {
    file: folder,
    message: "expected a folder with events/ or tracking/ in it, found neither.",
    hint: "Name the folder that holds them; where nothing is to be sent any more, make an empty events/.",
  };
}

/** What `keepFound` was given. Names are not enough to tell it from definitions: an event may be called `faults`. */
const found = new WeakMap<object, Discovered>();

/**
 * A source that stands for what was found in a folder, whatever its files have become since. `dev` checks definitions before it ends
 * the pipeline that runs: what is saved between the two is for the next reload, and must not fail this one.
 */
export function keepFound(discovered: Discovered): Readonly<Record<string, never>> {
  const source = {};
  found.set(source, discovered);
  return source;
}

async function discoverFolder(folder: string): Promise<Discovered> {
  if (!(await isFolder(folder))) {
    const fault = {
      file: folder,
      message: "expected a folder that holds events/, found none.",
      hint: "Create it, or name another folder.",
    };
    return { events: [], tracking: [], config: undefined, faults: [fault] };
  }
  const config = await loadConfig(folder);
  const faults: Fault[] = [...config.faults];
  const eventFiles = await findEventFiles(folder);
  faults.push(...eventFiles.faults);
  const handlerFiles = await findSourceFiles(folder, "tracking");
  faults.push(...handlerFiles.faults);

  const events: FoundEvent[] = [];
  for (const { name, file } of eventFiles.events) {
    const imported = await importDefault(folder, file, eventExport);
    if ("fault" in imported) faults.push(imported.fault);
    else events.push({ name, file, definition: imported.value });
  }
  const tracking: FoundHandler[] = [];
  for (const file of handlerFiles.files) {
    const imported = await importDefault(folder, file, trackingExport);
    if ("fault" in imported) faults.push(imported.fault);
    else tracking.push({ file, handler: imported.value });
  }
  return { events, tracking, config: config.config, faults };
}

/** Definitions that were imported by the caller: under their names, tracking handlers under any. */
function takeDefinitions(definitions: Readonly<Record<string, unknown>>): Discovered {
  const events: FoundEvent[] = [];
  const tracking: FoundHandler[] = [];
  const faults: Fault[] = [];
  for (const [name, value] of Object.entries(definitions)) {
    if (isTrackingHandler(value)) {
      tracking.push({ file: name, handler: value });
      continue;
    }
    const fault = isEventDefinition(value) ? faultOfName(name, name) : faultOfExport(name, "the definition", eventExport, value);
    if (fault !== undefined) faults.push(fault);
    else if (isEventDefinition(value)) events.push({ name, file: name, definition: value });
  }
  return { events, tracking, config: undefined, faults };
}

/** Imports `ancrage.config.ts` (or `.mts`, `.js`, `.mjs`) of a folder, if there is one. */
export async function loadConfig(folder: string): Promise<{ readonly config: object | undefined; readonly faults: readonly Fault[] }> {
  const names = await readNames(folder);
  const [file, ...others] = sourceEndings.map((ending) => `ancrage.config${ending}`).filter((name) => names.includes(name));
  if (file === undefined) return { config: undefined, faults: [] };
  if (others.length > 0) {
    const message = `expected one configuration, found ${[file, ...others].join(" and ")}.`;
    return { config: undefined, faults: [{ file, message, hint: "Delete the others: only one of them could count." }] };
  }
  const imported = await importDefault(resolve(folder), file, configExport);
  return "fault" in imported ? { config: undefined, faults: [imported.fault] } : { config: imported.value, faults: [] };
}

export interface EventFile {
  readonly name: string;
  /** Below the folder, with slashes. */
  readonly file: string;
}

/** Names the events of a folder by their paths, importing none: types can be generated while a file has a mistake. */
export async function findEventFiles(
  folder: string,
): Promise<{ readonly events: readonly EventFile[]; readonly faults: readonly Fault[] }> {
  const { files, faults } = await findSourceFiles(folder, "events");
  const named = files.map((file) => ({ name: eventNameOf(file), file }));
  const nameFaults = named.map(({ name, file }) => faultOfName(name, file)).filter((fault) => fault !== undefined);
  return { events: named.filter(({ name }) => isEventName(name)), faults: [...faults, ...nameFaults] };
}

/** `events/deal/won.ts` → `deal.won`. */
export function eventNameOf(file: string): string {
  return file
    .replace(/^events\//, "")
    .replace(/\.[^./]+$/, "")
    .replaceAll("/", ".");
}

/** What Standard Webhooks allows a `type` to be: segments of letters, digits and `_`, between full stops. */
export function isEventName(name: string): boolean {
  return /^[a-zA-Z0-9_]+(\.[a-zA-Z0-9_]+)*$/.test(name);
}

function faultOfName(name: string, file: string): Fault | undefined {
  if (isEventName(name)) return undefined;
  const message = `the event would be named "${name}", expected letters, digits and _, with full stops between (Standard Webhooks).`;
  return {
    file,
    message,
    hint: `Rename it, for example to "${name.replaceAll(/[^a-zA-Z0-9_.]+/g, "_").replaceAll(/^\.+|\.+$|\.(?=\.)/g, "")}".`,
  };
}

const sourceEndings = [".ts", ".mts", ".js", ".mjs"] as const;

/** Endings of which one may believe that they are read. They are refused: silence would look like an event that never happens. */
const unreadEndings = [".tsx", ".jsx", ".cts", ".cjs"] as const;

interface SourceFiles {
  readonly files: readonly string[];
  readonly faults: readonly Fault[];
}

/** All source files below `folder/part`, sorted; none where it does not exist. */
async function findSourceFiles(folder: string, part: "events" | "tracking"): Promise<SourceFiles> {
  const files: string[] = [];
  const faults: Fault[] = [];
  for (const file of await walk(folder, join(folder, part))) {
    if (/\.d\.[^./]+$|\.test\.[^./]+$/.test(file)) continue;
    if (sourceEndings.some((ending) => file.endsWith(ending))) files.push(file);
    else if (unreadEndings.some((ending) => file.endsWith(ending))) {
      const message = `expected a file that ends in ${sourceEndings.join(", ")}.`;
      faults.push({ file, message, hint: "Rename it, or begin its name with _ to have it ignored." });
    }
  }
  return { files: files.toSorted(), faults };
}

async function walk(folder: string, path: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readNames(path)) {
    if (/^[_.]/.test(name) || name === "node_modules") continue;
    const entry = join(path, name);
    // Not the directory entry's own type: a linked file or folder counts as what it links to.
    if (await isFolder(entry)) found.push(...(await walk(folder, entry)));
    else found.push(shownPath(folder, entry));
  }
  return found;
}

async function readNames(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    // A link to nothing: the import will say so, with its name.
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

/** What a kind of file exports by default. */
interface ExpectedExport<Value> {
  readonly is: (value: unknown) => value is Value;
  readonly expected: string;
  readonly hint: string;
}

// By `kind` and not by identity: the file may have imported another copy of this package.
const isEventDefinition = (value: unknown): value is EventDefinition => kindOf(value) === "event";
const isTrackingHandler = (value: unknown): value is TrackingHandler => kindOf(value) === "tracking";
const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

const eventExport: ExpectedExport<EventDefinition> = {
  is: isEventDefinition,
  expected: "an event",
  hint: "Write `export default defineEvent({ … })`, or begin the file's name with _ to have it ignored.",
};

const trackingExport: ExpectedExport<TrackingHandler> = {
  is: isTrackingHandler,
  expected: "a tracking handler",
  hint: 'Write `export default track("table", (change) => { … })`, or begin the file\'s name with _ to have it ignored.',
};

const configExport: ExpectedExport<object> = {
  // The options of a promise would be none.
  is: (value): value is object => isObject(value) && !isThenable(value),
  expected: "the configuration",
  hint: "Write `export default defineConfig({ … })`, with an await before what is a promise.",
};

type Imported<Value> = { readonly value: Value } | { readonly fault: Fault };

async function importDefault<Value>(folder: string, file: string, expected: ExpectedExport<Value>): Promise<Imported<Value>> {
  let module: Readonly<Record<string, unknown>>;
  try {
    module = await import(pathToFileURL(join(folder, file)).href);
  } catch (error) {
    return { fault: faultOfImport(folder, file, error) };
  }
  const value = module["default"];
  const names = Object.keys(module).filter((name) => name !== "default");
  if (expected.is(value)) {
    const unread = names.filter((name) => module[name] !== value && (isEventDefinition(module[name]) || isTrackingHandler(module[name])));
    return unread.length === 0 ? { value } : { fault: faultOfUnread(file, unread) };
  }
  const what = "default" in module ? "the default export" : "no default export";
  return { fault: faultOfExport(file, what, expected, value, names) };
}

/** Silence would look like an event that never happens. */
function faultOfUnread(file: string, names: readonly string[]): Fault {
  return {
    file,
    message: `expected one definition, the default export, and found ${names.join(", ")} beside it.`,
    hint: "Give each a file of its own, as its default export; or begin the name of a file that others import from with _.",
  };
}

function faultOfExport(
  file: string,
  what: string,
  expected: ExpectedExport<unknown>,
  value: unknown,
  names: readonly string[] = [],
): Fault {
  const kind = kindOf(value);
  if (kind === "event" || kind === "tracking") {
    const found = kind === "event" ? "an event" : "a tracking handler";
    const place = kind === "event" ? "events/" : "tracking/";
    return { file, message: `${what} is ${found}, expected ${expected.expected}.`, hint: `Move the file to ${place}.` };
  }
  const others = names.length === 0 ? "" : ` (but ${names.join(", ")})`;
  const found = value === undefined ? `${what}${others}` : `${what} is ${describeValue(value)}`;
  return { file, message: `${found}, expected ${expected.expected}.`, hint: expected.hint };
}

function faultOfImport(folder: string, file: string, error: unknown): Fault {
  const text = error instanceof Error ? firstLine(error.message) : `threw ${describeValue(error)}`;
  const place = placeOf(error);
  const where = place === undefined ? "" : ` (${shownPath(folder, place.path)}:${place.line})`;
  const message = `could not be imported: ${error instanceof Error ? `${error.name}: ` : ""}${text.replace(/\.$/, "")}${where}.`;
  return { file, message, hint: cureOfImport(error) };
}

function cureOfImport(error: unknown): string {
  switch (codeOf(error)) {
    case "ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX":
      return (
        "Node strips types and compiles nothing: write a union of texts instead of an enum, and no namespaces or parameter " +
        'properties ("erasableSyntaxOnly" in tsconfig.json shows them in the editor).'
      );
    case "ERR_INVALID_TYPESCRIPT_SYNTAX":
      return "Correct that line.";
    case "ERR_MODULE_NOT_FOUND":
      return "Install the package, or correct the path: relative imports name the file with its ending (./_shared.ts).";
    case "ERR_UNKNOWN_FILE_EXTENSION":
      return `Node ${process.versions.node} does not strip types here: run Node 22.18 or later, without --no-experimental-strip-types.`;
    case "ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING":
      return "Node strips no types below node_modules: import the package's compiled files.";
    case undefined:
    default:
      if (isReadAsCommonJs(error)) return 'Set "type": "module" in the nearest package.json, or let the file end in .mts.';
      return error instanceof SyntaxError ? "Correct that line." : "What the file does when it is imported failed; correct that.";
  }
}

/** `npm init` writes `"type": "commonjs"`. The words only choose the hint: Node gives this error no code. */
function isReadAsCommonJs(error: unknown): boolean {
  return error instanceof SyntaxError && /import statement outside a module|Unexpected token 'export'/.test(error.message);
}

interface Place {
  readonly path: string;
  readonly line: string;
}

/** Where it failed. Node puts the place of a syntax error into the first line of the stack, that of others into its first frame. */
function placeOf(error: unknown): Place | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  const match = /^(.+):(\d+)$/m.exec(firstLine(error.stack)) ?? /(file:\/\/[^\s)]+?):(\d+):\d+/.exec(error.stack);
  const [, path, line] = match ?? [];
  if (path === undefined || line === undefined) return undefined;
  return { path: path.startsWith("file://") ? fileURLToPath(path) : path, line };
}

const firstLine = (text: string): string => text.split("\n", 1)[0] ?? "";

const codeOf = (error: unknown): unknown => (isObject(error) && "code" in error ? error.code : undefined);

const kindOf = (value: unknown): unknown => (isObject(value) && "kind" in value ? value.kind : undefined);
