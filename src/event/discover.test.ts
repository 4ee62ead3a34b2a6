import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterEach, expect, test } from "vitest";
import type { EventDefinition } from "./define.ts";
import { defineEvent } from "./define.ts";
import { type Discovered, discover, findEventFiles } from "./discover.ts";
import { track } from "./track.ts";

const folders: string[] = [];

afterEach(async () => {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })));
});

const aDefinition = `export default { kind: "event", payload: () => ({}) };`;
const aHandler = `export default { kind: "tracking", table: "deal", handle() {} };`;

test("names events by their paths", async () => {
  const { events, tracking, faults } = await discoverIn({
    "events/NewOpportunity.ts": `const payload: () => object = () => ({});\nexport default { kind: "event", payload };`,
    "events/deal/won.mts": aDefinition,
    "events/deal/stage/changed.js": aDefinition,
    "events/deal.lost.mjs": aDefinition,
    "tracking/deal.ts": aHandler,
    "tracking/sales/order.ts": aHandler,
  });

  expect(faults).toEqual([]);
  expect(events.map(({ name, file }) => [name, file])).toEqual([
    ["NewOpportunity", "events/NewOpportunity.ts"],
    ["deal.lost", "events/deal.lost.mjs"],
    ["deal.stage.changed", "events/deal/stage/changed.js"],
    ["deal.won", "events/deal/won.mts"],
  ]);
  expect(tracking.map(({ file }) => file)).toEqual(["tracking/deal.ts", "tracking/sales/order.ts"]);
});

test("ignores what is no definition", async () => {
  const found = await discoverIn({
    "events/_shared.ts": "export const a = 1;",
    "events/_drafts/NewLead.ts": "throw new Error('imported');",
    "events/NewLead.test.ts": "throw new Error('imported');",
    "events/NewLead.d.ts": "export {};",
    "events/node_modules/x/index.js": "throw new Error('imported');",
    "events/README.md": "# Events",
    "events/.cache.js": "throw new Error('imported');",
    "tracking/deal.test.mjs": "throw new Error('imported');",
    "other/NewLead.ts": "throw new Error('imported');",
  });

  expect(found).toEqual({ events: [], tracking: [], faults: [] });
});

test("takes the configuration", async () => {
  const { config } = await discoverIn({ "ancrage.config.ts": `export default { environment: "test" };` });

  expect(config).toEqual({ environment: "test" });
});

test("refuses two configurations, of which only one could count", async () => {
  const { config, faults } = await discoverIn({
    "events/E.ts": aDefinition,
    "ancrage.config.ts": "export default {};",
    "ancrage.config.js": "export default {};",
  });

  expect(config).toBeUndefined();
  expect(faults.map(({ message }) => message)).toEqual(["expected one configuration, found ancrage.config.ts and ancrage.config.js."]);
});

test("a package.json that npm init wrote says commonjs: the fault says what to set", async () => {
  const { events, faults } = await discoverIn({
    "package.json": `{"type":"commonjs"}`,
    "events/E.ts": `import "node:fs";\n${aDefinition}`,
    "events/F.mts": aDefinition,
  });
  expect(events.map(({ name }) => name)).toEqual(["F"]);
  expect(faults.map(({ file, hint }) => [file, hint])).toEqual([
    ["events/E.ts", 'Set "type": "module" in the nearest package.json, or let the file end in .mts.'],
  ]);
});

test("a file that cannot be imported is a fault with its place and cure, and hides no other", async () => {
  const { events, faults } = await discoverIn({
    "events/Fine.ts": aDefinition,
    "events/broken/Enum.ts": `const a = 1;\nenum Stage { open }`,
    "events/broken/Syntax.ts": `const a = 1;\nconst b = ;`,
    "events/broken/Shared.ts": `import "./_shared.ts";\n${aDefinition}`,
    "events/broken/_shared.ts": `\n\nenum Stage { open }`,
    "events/broken/Missing.ts": `import "no-such-package";`,
    "events/broken/Throws.ts": `\n\nthrow new Error("no DATABASE_URL");`,
    "events/broken/ThrowsText.ts": `throw "oops";`,
    "ancrage.config.ts": `export default 5;`,
  });

  expect(events.map(({ name }) => name)).toEqual(["Fine"]);
  const shown = Object.fromEntries(faults.map(({ file, message, hint }) => [file, `${message} ${hint}`]));
  expect(shown["events/broken/Enum.ts"]).toMatch(
    /enum is not supported.*\(events\/broken\/Enum\.ts:2\)\. Node strips types.*union of texts/,
  );
  expect(shown["events/broken/Syntax.ts"]).toMatch(/SyntaxError: .*\(events\/broken\/Syntax\.ts:2\)\. Correct that line\./);
  expect(shown["events/broken/Shared.ts"]).toMatch(/enum is not supported.*\(events\/broken\/_shared\.ts:3\)/);
  expect(shown["events/broken/Missing.ts"]).toMatch(/Cannot find package 'no-such-package'.*Install the package/);
  expect(shown["events/broken/Throws.ts"]).toMatch(/Error: no DATABASE_URL \(events\/broken\/Throws\.ts:3\)/);
  expect(shown["events/broken/ThrowsText.ts"]).toMatch(/threw "oops"/);
  expect(shown["ancrage.config.ts"]).toMatch(/the default export is 5, expected the configuration/);
  expect(faults).toHaveLength(7);
});

test("a file that exports something else is a fault", async () => {
  const { faults } = await discoverIn({
    "events/Named.ts": `export const NewDeal = {};`,
    "events/Number.ts": `export default 42;`,
    "events/Handler.ts": aHandler,
    "events/Second.ts": `${aDefinition}\nexport const Other = { kind: "event", payload: () => 1 }; export const limit = 5;`,
    "events/Twice.ts": `const Won = { kind: "event", payload: () => 1 };\nexport { Won, Won as default };`,
    "tracking/Event.ts": aDefinition,
    "tracking/deal.ts": `${aHandler}\nexport const customers = { kind: "tracking", table: "customer", handle() {} };`,
    "ancrage.config.ts": `export default Promise.resolve({ environment: "test" });`,
  });

  expect(faults.map(({ file, message }) => `${file}: ${message}`)).toEqual([
    "ancrage.config.ts: the default export is a promise, expected the configuration.",
    "events/Handler.ts: the default export is a tracking handler, expected an event.",
    "events/Named.ts: no default export (but NewDeal), expected an event.",
    "events/Number.ts: the default export is 42, expected an event.",
    "events/Second.ts: expected one definition, the default export, and found Other beside it.",
    "tracking/Event.ts: the default export is an event, expected a tracking handler.",
    "tracking/deal.ts: expected one definition, the default export, and found customers beside it.",
  ]);
});

test("refuses names that Standard Webhooks does not allow, and endings that it does not read", async () => {
  const { events, faults } = await discoverIn({
    "events/new-deal.ts": aDefinition,
    "events/deal..won.ts": aDefinition,
    "events/Widget.tsx": "",
    "events/Old.cjs": "",
  });

  expect(events).toEqual([]);
  expect(faults.map(({ file, hint }) => [file, hint])).toEqual([
    ["events/Old.cjs", "Rename it, or begin its name with _ to have it ignored."],
    ["events/Widget.tsx", "Rename it, or begin its name with _ to have it ignored."],
    ["events/deal..won.ts", 'Rename it, for example to "deal.won".'],
    ["events/new-deal.ts", 'Rename it, for example to "new_deal".'],
  ]);
});

test("follows a link to a folder", async () => {
  const elsewhere = await writeFolder({ "Shared.ts": aDefinition });
  const folder = await writeFolder({ "events/Own.ts": aDefinition });
  await symlink(elsewhere, join(folder, "events", "linked"));

  expect((await findEventFiles(folder)).events.map(({ name }) => name)).toEqual(["Own", "linked.Shared"]);
});

test("names the files of events without importing them", async () => {
  const folder = await writeFolder({ "events/Broken.ts": "enum Stage { open }" });

  expect(await findEventFiles(folder)).toEqual({ events: [{ name: "Broken", file: "events/Broken.ts" }], faults: [] });
});

test("a folder that is not there is a fault, not an empty start", async () => {
  const { faults } = await discover("/no/such/folder");

  expect(faults.map(({ file, message }) => `${file}: ${message}`)).toEqual([
    "/no/such/folder: expected a folder that holds events/, found none.",
  ]);
});

test("so is one without events/ and tracking/, but for a beginner's; an empty events/ is meant", async () => {
  const folder = await writeFolder({ "event/Won.ts": aDefinition });
  expect((await discover(folder)).faults.map(({ message }) => message)).toEqual([
    "expected a folder with events/ or tracking/ in it, found neither.",
  ]);
  expect((await discover(folder, { mayBeEmpty: true })).faults).toEqual([]);
  await mkdir(join(folder, "events"));
  expect((await discover(folder)).faults).toEqual([]);
});

test("takes definitions from an object", async () => {
  const NewDeal = defineEvent({ table: "deal", payload: (deal) => deal });
  const onDeal = track("deal", () => undefined);

  const { events, tracking, faults } = await discover({ NewDeal, "deal.won": NewDeal, onDeal, "deal-lost": NewDeal, wrong: () => 1 });

  expect(events.map(({ name }) => name)).toEqual(["NewDeal", "deal.won"]);
  expect(events[0]?.definition).toBe<EventDefinition>(NewDeal);
  expect(tracking).toEqual([{ file: "onDeal", handler: onDeal }]);
  expect(faults.map(({ file }) => file)).toEqual(["deal-lost", "wrong"]);
});

/** In a Node of its own: the test runner would compile what Node itself refuses. */
async function discoverIn(files: Readonly<Record<string, string>>): Promise<Discovered> {
  const folder = await writeFolder(files);
  const script = `import { discover } from ${JSON.stringify(new URL("discover.ts", import.meta.url).href)};
    process.stdout.write(JSON.stringify(await discover(${JSON.stringify(folder)})));`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script]);
  return JSON.parse(stdout) as Discovered;
}

async function writeFolder(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "ancrage-discover-"));
  folders.push(folder);
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), text);
  }
  return folder;
}
