import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type DefinitionWatch, isDefinitionFile, watchDefinitions } from "./watch-definitions.ts";

let folder: string;
let watching: DefinitionWatch | undefined;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ancrage-test-"));
});
afterEach(async () => {
  watching?.close();
  await rm(folder, { recursive: true, force: true });
});

/** Resolves with what has changed, once all of `files` have been reported. */
function changesOf(...files: readonly string[]): Promise<readonly string[]> {
  const seen = new Set<string>();
  return new Promise((resolve) => {
    watching?.close();
    watching = watchDefinitions({
      folder,
      debounceMs: 10,
      onChange: (changed) => {
        for (const file of changed) seen.add(file);
        if (files.every((file) => seen.has(file))) resolve([...seen].toSorted());
      },
    });
  });
}

test("files under events/ and tracking/ and the config are seen, others are not", async () => {
  await mkdir(join(folder, "events", "deal"), { recursive: true });
  await mkdir(join(folder, "tracking"));
  await mkdir(join(folder, "node_modules"));
  const changed = changesOf("events/deal/won.ts", "tracking/deal.ts", "ancrage.config.ts");
  await writeFile(join(folder, "ancrage.d.ts"), "");
  await writeFile(join(folder, "node_modules", "x.ts"), "");
  await writeFile(join(folder, "events", "deal", "won.test.ts"), "");
  await writeFile(join(folder, "events", "deal", "won.ts"), "");
  await writeFile(join(folder, "tracking", "deal.ts"), "");
  await writeFile(join(folder, "ancrage.config.ts"), "");
  expect(await changed).toEqual(["ancrage.config.ts", "events/deal/won.ts", "tracking/deal.ts"]);
});

test("a folder that comes later is watched from then on", async () => {
  const made = changesOf("events");
  await mkdir(join(folder, "events"));
  await made;
  const changed = new Promise((resolve) => {
    watching?.close();
    watching = watchDefinitions({ folder, debounceMs: 10, onChange: resolve });
  });
  await writeFile(join(folder, "events", "A.ts"), "");
  expect(await changed).toEqual(["events/A.ts"]);
});

test("events/ that is removed and made again is watched on, by the same watch", async () => {
  await mkdir(join(folder, "events"));
  const changed = changesOf("events", "events/B.ts");
  await rename(join(folder, "events"), join(folder, "old"));
  await mkdir(join(folder, "events"));
  // The watch on the new folder begins after the system has told of it; written until it is seen.
  const writeOnce = async (): Promise<undefined> => {
    await writeFile(join(folder, "events", "B.ts"), "");
    return undefined;
  };
  let seen: readonly string[] | undefined;
  while (seen === undefined) seen = await Promise.race([changed, writeOnce()]);
  expect(seen).toContain("events/B.ts");
});

test("a file that is replaced by a rename is seen each time, and what is done to it after", async () => {
  await mkdir(join(folder, "events", "deal"), { recursive: true });
  for (const file of ["events/Won.ts", "events/deal/lost.ts"]) {
    const path = join(folder, ...file.split("/"));
    await writeFile(path, "0");
    const reports: ((files: readonly string[]) => void)[] = [];
    watching?.close();
    watching = watchDefinitions({ folder, debounceMs: 10, onChange: (files) => files.includes(file) && reports.shift()?.(files) });
    const seenAfter = async (work: () => Promise<void>): Promise<readonly string[]> => {
      const { promise, resolve } = Promise.withResolvers<readonly string[]>();
      reports.push(resolve);
      await work();
      return promise;
    };
    const replace = async (): Promise<void> => {
      await writeFile(`${path}.swp`, "1");
      await rename(`${path}.swp`, path);
    };
    expect(await seenAfter(replace)).toEqual([file]);
    expect(await seenAfter(replace)).toEqual([file]);
    expect(await seenAfter(() => appendFile(path, "2"))).toEqual([file]);
    expect(await seenAfter(replace)).toEqual([file]);
    expect(await seenAfter(() => rm(path))).toEqual([file]);
  }
});

test("a folder below that comes, with files in it, and goes", async () => {
  await mkdir(join(folder, "events"));
  await mkdir(join(folder, "made", "inner"), { recursive: true });
  await writeFile(join(folder, "made", "inner", "A.ts"), "");
  const came = changesOf("events/deal/inner/A.ts");
  await rename(join(folder, "made"), join(folder, "events", "deal"));
  expect(await came).toContain("events/deal");
  const went = changesOf("events/deal");
  await rename(join(folder, "events", "deal"), join(folder, "made"));
  await went;
});

test("what was saved together is reported once", async () => {
  await mkdir(join(folder, "events"));
  const reports: (readonly string[])[] = [];
  const changed = new Promise<void>((resolve) => {
    watching = watchDefinitions({
      folder,
      debounceMs: 50,
      onChange: (files) => {
        reports.push(files);
        resolve();
      },
    });
  });
  await Promise.all(["A", "B", "C"].map((name) => writeFile(join(folder, "events", `${name}.ts`), "")));
  await changed;
  expect(reports).toEqual([["events/A.ts", "events/B.ts", "events/C.ts"]]);
});

test.each([
  ["events/NewOpportunity.ts", true],
  ["events/deal/won.mjs", true],
  ["events/_shared.ts", true],
  ["events/rates.json", true],
  ["tracking/deal.ts", true],
  ["ancrage.config.ts", true],
  ["ancrage.config.mjs", true],
  ["ancrage.d.ts", false],
  ["events/types.d.ts", false],
  ["events/NewOpportunity.test.ts", false],
  ["events/.NewOpportunity.ts.swp", false],
  ["events/NewOpportunity.ts~", false],
  ["events/4913", false],
  ["schema.sql", false],
  ["demo.ts", false],
])("%s defines something: %s", (file, expected) => {
  expect(isDefinitionFile(file)).toBe(expected);
});
